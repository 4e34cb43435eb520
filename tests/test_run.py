"""One run as a story: events in, effects out, a real Lua machine and no server.

Each test tells what happened in stream order and asserts the whole answer. Histories are replayed in fresh VMs where
it matters; random ones are in tests/test_replay_properties.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mesh import codec
from mesh.events import StartSpec, decode_start
from mesh.failure import Failure, Kind
from node.machine.vm import LuaVM
from node.workflows.messages import HEARD_MAX
from node.workflows.ops import Finish, Log, fingerprint
from node.workflows.run import REFUSED_CALLS_MAX, TIMEOUT_TICK
from tests.flows import PID, RUN, T0_NS, Flow, run_lua

SECOND_NS = 1_000_000_000
SPEC = StartSpec(workflow="app:flow", entropy=b"entropy")

CALL = "return function(...) return funcs.call('a:b', ...) end"
TWO_CALLS = "return function() local x = funcs.call('a:x') local y = funcs.call('a:y') return {x, y} end"
INBOX = "return function() local m = process.inbox():receive() return {m:topic(), m:from(), m:payload() and m:payload():data()} end"

# Bytes that are no payload of anybody's, or one that only one of the two decoders takes.
JUNK = {
    "marker alone": b"\xc1",
    "truncated": b"\xc1\x92\x00",
    "bytes behind": b"\xc1\x92\x00\x01\x02",
    "not an outcome": b"\xc1\x93\x00\x01\x02",
    "list as a key": b"\xc1\x92\x00\x81\x90\x01",
    "nil as a key": b"\xc1\x92\x00\x81\xc0\x01",
    "NaN as a key": b"\xc1\x92\x00\x81\xcb\x7f\xf8\0\0\0\0\0\0\x01",
    "unknown extension": b"\xc1\x92\x00\xd4\x05\x00",
    "timestamp": b"\xc1\x92\x00\xd6\xff\x00\x00\x00\x01",
    "error that is a number": b"\xc1\x92\x00\xc7\x01\x01\x05",
    "error with odd fields": b"\xc1\x92\x00\xc7\x17\x01\x83\xa7message\x90\xa4kind\x05\xa7details\x07",
    "failure with odd fields": b"\xc1\x92\x01\x83\xa7message\x90\xa4kind\x05\xa7details\x07",
    "failure that is a text": b"\xc1\x92\x01\xa1x",
    "failure in no encoding": b"\xc1\x92\x01\x81\xa7message\xa2\xff\xfe",
    "timeout of no type": b"\xc1\x92\x01\x82\xa4kind\xa7Timeout\xa7details\x81\xactimeout_type\x90",
    "too deep": b"\xc1\x92\x00" + b"\x91" * 200 + b"\x01",
    "far too deep": b"\xc1\x92\x01\x81\xa7details\x81\xa1x" + b"\x91" * 900 + b"\x01",
    "deep JSON": b"[" * 600 + b"]" * 600,
    "half a surrogate pair": b'"\\ud800"',
    "half a surrogate pair as key": b'{"\\udfff": 1}',
    "big integer": b"[123456789012345678901234567890, -99999999999999999999]",
    "no text": b"\xff\xfe\x00",
    "text in no encoding": b"\xc1\x92\x00\xa2\xff\xfe",
    "msgpack bomb": b"\xc1\x92\x00\xdd\xff\xff\xff\xff",
    "zeros": b"\x00" * 9,
}  # fmt: skip


# -- each kind of op ---------------------------------------------------------------------------------------------


def test_a_call_is_dispatched_and_its_outcome_is_the_result() -> None:
    flow = Flow(CALL, args=[21])
    assert flow.start() == ["call 1 a:b"]
    assert codec.decode(flow.run.open[1].payload) == [[21], None]
    assert flow.run.open[1].fp == fingerprint("call", "a:b")
    assert flow.ok(1, 42) == ["end completed 42"]
    assert flow.run.ops.calls == 0
    assert flow.outstanding() == ["end completed 42"]


def test_a_sleep_is_a_timer_from_the_time_of_its_step() -> None:
    flow = Flow("return function() local m = process.inbox():receive() time.sleep('24h') return m.x end")
    flow.start()
    assert flow.signal("go", {"x": 5}, after_ms=250) == ["timer 1 +8.64002e+07ms"]
    assert flow.run.open[1].due_ns == T0_NS + 250_000_000 + 86_400 * SECOND_NS
    assert flow.tick(1, after_ms=86_400_000) == ["end completed 5"]


def test_a_timer_may_fire_a_day_late() -> None:
    flow = Flow("return function() local t = time.now() time.sleep('1s') return time.now():sub(t):seconds() end")
    assert flow.start() == ["timer 1 +1000ms"]
    assert flow.tick(1, after_ms=86_401_000) == ["end completed 86401.0"]
    assert flow.replay().result == 86401.0


def test_spawn_answers_with_the_pid_and_its_end_is_an_event() -> None:
    flow = Flow(
        "return function() local events = process.events() local pid, err = process.spawn('a:child', 'a:worker', 1) "
        "local e = events:receive() return {pid, e.kind, e.from, e.result.value} end"
    )
    assert flow.start() == ["spawn 1 a:child"]
    assert flow.ok(1, {"pid": "{c@w|kid}", "queue": "q", "id": "kid"}) == []
    assert list(flow.run.children.by_n) == [1]
    assert flow.exit(1, "done") == ["end completed ['{c@w|kid}', 'pid.exit', '{c@w|kid}', 'done']"]


def test_exec_waits_for_the_end_of_the_child() -> None:
    flow = Flow(
        "return function() local v, err = process.exec('a:child', 'a:worker') return {v or 'none', err and err:kind()} end"
    )
    flow.start()
    assert flow.ok(1, {"pid": "{c@w|kid}"}) == []
    assert flow.exit(1, Failure("no", Kind.CONFLICT)) == ["end completed ['none', 'Conflict']"]


def test_send_cancel_and_terminate_are_performed_and_answered() -> None:
    flow = Flow(
        "return function() local a = process.send('{c@w|o}', 'hi', 1, 2) local b, err = process.cancel('{c@w|o}', 'why') "
        "local c = process.terminate('{c@w|o}') return {a, err:message(), c} end"
    )
    assert flow.start() == ["send 1 {c@w|o}"]
    assert flow.run.open[1].options == {"topic": "hi"}
    assert flow.ok(1, True) == ["cancel 2 {c@w|o}"]
    assert flow.run.open[2].options == {"reason": "why"}
    assert flow.fails(2, Failure("gone", Kind.NOT_FOUND)) == ["terminate 3 {c@w|o}"]
    assert flow.ok(3, True) == ["end completed [True, 'gone', True]"]


def test_a_stopped_timer_and_a_canceled_call_are_abandoned_and_their_outcomes_ignored() -> None:
    flow = Flow(
        "return function() local t = time.timer('1h') local f = funcs.async('a:b') process.inbox():receive() "
        "t:stop() f:cancel() process.inbox():receive() return f:is_canceled() end"
    )
    assert flow.start() == ["timer 1 +3.6e+06ms", "call 2 a:b"]
    assert flow.signal("x") == ["abandon 1 timer", "abandon 2 call"]
    assert flow.run.open == {}
    assert flow.tick(1) == []
    assert flow.ok(2, 5) == []
    assert flow.fails(2, "late") == []
    assert flow.run.suspended == ""
    assert flow.signal("x") == ["end completed True"]


WAITS = "return function() local f = funcs.new():with_options{['activity.wait_for_cancellation'] = true}:async('a:b') "


def test_a_call_that_is_waited_for_stays_open_until_it_has_ended() -> None:
    flow = Flow(
        WAITS + "process.inbox():receive() f:cancel() return { f:is_canceled(), select(2, f:result()):kind() } end"
    )
    flow.start()
    assert flow.signal("x") == ["stop 1 a:b"]
    assert (flow.run.open[1].stopping, flow.run.finished) == (True, None)
    assert flow.replay().outstanding() == ["call 1 a:b"]
    assert flow.ok(1, "late result") == ["end completed [True, 'Canceled']"]


def test_a_call_that_was_asked_to_stop_is_not_tried_again() -> None:
    flow = Flow(WAITS + "process.inbox():receive() f:cancel() return 'over' end")
    flow.start()
    flow.signal("x")
    assert flow.fails(1, "no") == ["end completed over"]


def test_a_call_that_waits_for_its_next_attempt_is_stopped_there() -> None:
    flow = Flow(WAITS + "process.inbox():receive() f:cancel() return 'over' end")
    flow.start()
    assert flow.fails(1, "no")[0].startswith("retry 1 a:b attempt 2")
    assert flow.signal("x") == ["stop 1 a:b"]
    assert flow.replay().outstanding() == ["stop 1 a:b"]
    assert flow.fails(1, Failure("operation canceled", Kind.CANCELED, False), attempt=2) == ["end completed over"]


def test_a_request_to_stop_may_wait_for_the_end_of_the_child() -> None:
    flow = Flow(
        "return function() local pid = process.with_options{wait_for_cancellation=true}:spawn('a:child', 'app:worker') "
        "local ok = process.cancel(pid) "
        "local e = channel.select{process.events():case_receive(), default=true} return { ok, e.value.result.value } end"
    )
    flow.start()
    child = "{c@w|child}"
    assert flow.ok(1, {"pid": child, "queue": "q", "id": "child"}) == [f"cancel 2 {child}"]
    assert flow.ok(2, True) == []
    assert flow.ok(2, True) == [], "told twice"
    assert flow.replay().outstanding() == []
    assert flow.exit(1, "over") == ["end completed [True, 'over']"]


def test_a_request_to_stop_that_failed_is_told_at_once_when_the_child_has_ended() -> None:
    flow = Flow(
        "return function() local pid = process.with_options{wait_for_cancellation=true}:spawn('a:child', 'app:worker') "
        "local ok, err = process.cancel(pid) return err:kind() end"
    )
    flow.start()
    flow.ok(1, {"pid": "{c@w|child}", "queue": "q", "id": "child"})
    assert flow.exit(1, "over") == []
    assert flow.fails(2, Failure("gone", Kind.NOT_FOUND)) == ["end completed NotFound"]


def test_prints_are_told_once_and_not_in_replay() -> None:
    flow = Flow("return function() print('one', 2) funcs.call('a:b') print('three') end")
    assert flow.start() == ["info one 2", "call 1 a:b"]
    assert flow.ok(1) == ["info three", "end completed None"]
    assert flow.replay().steps == [["call 1 a:b"], ["info three", "end completed None"]]


def test_attributes_and_memo_are_kept_with_the_run() -> None:
    flow = Flow(
        "return function() workflow.attrs{search={customer='c1'}, memo={note={1,2}}} workflow.attrs{} workflow.attrs{search={}} "
        "local ok, err = workflow.attrs{search={1}} return err:kind() end",
        spec=replace(SPEC, attrs={"a": 1}),
    )
    assert flow.start() == ["attrs", "end completed Invalid"]
    assert flow.run.attributes.search == {"a": 1, "customer": "c1"}
    assert flow.run.attributes.memo == {"note": [1, 2]}


@pytest.mark.parametrize(
    "call",
    [
        "process.cancel()",
        "process.cancel({})",
        "process.terminate(5)",
        "process.terminate('')",
        "process.send(nil, 'x')",
    ],
)
def test_a_destination_that_is_none_is_an_error_of_the_code(call: str) -> None:
    assert run_lua(f"return function() local ok, err = {call} return err:kind() end") == "Invalid"


@pytest.mark.parametrize("name", ["monitor", "unmonitor", "link", "unlink"])
def test_watching_is_refused_inside_a_workflow(name: str) -> None:
    text = run_lua(
        f"return function() local ok, err = process.{name}('{{c@w|x}}') return err:kind() .. ' ' .. err:message() end"
    )
    assert text.startswith(f"Internal process.{name} not supported in workflow context")


# -- the first outcome wins --------------------------------------------------------------------------------------


def test_second_outcome_for_the_same_op_is_ignored() -> None:
    flow = Flow(TWO_CALLS)
    flow.start()
    assert flow.ok(1, "first") == ["call 2 a:y"]
    assert flow.ok(1, "second") == []
    assert flow.fails(1, Failure("third", retryable=False)) == []
    assert flow.ok(1, "other attempt", attempt=7) == []
    assert flow.ok(2, "y") == ["end completed ['first', 'y']"]
    assert flow.ok(2, "again") == []
    assert flow.replay().result == ["first", "y"]


def test_second_start_is_ignored() -> None:
    flow = Flow(CALL)
    assert flow.start() == ["call 1 a:b"]
    assert flow.start() == []
    assert flow.ok(1, 1) == ["end completed 1"]


@pytest.mark.parametrize("kind", ["ret", "tick", "exit", "claim", "end"])
def test_events_of_another_run_are_ignored(kind: str) -> None:
    flow = Flow(
        "return function() local f = funcs.async('a:b') time.sleep('1s') local p = process.spawn('a:c', 'w') return f:channel():receive():data() end"
    )
    flow.start()
    fp = fingerprint("call", "a:b")
    tokens = {"ret": ("1", "1", fp), "tick": ("2",), "exit": ("1",), "claim": ("1", "1"), "end": ()}[kind]
    before = flow.outstanding()
    for other in (RUN - 1, RUN + 1, 0):
        assert flow.event(kind, str(other), *tokens, data=codec.encode_success("stale")) == []
    assert flow.outstanding() == before
    assert not flow.run.open[1].claimed
    assert not flow.run.closed


def test_an_older_attempt_that_failed_late_is_ignored_but_one_that_succeeded_counts() -> None:
    flow = Flow(CALL)
    flow.start()
    assert flow.fails(1, "one") == ["retry 1 a:b attempt 2 at +1000ms"]
    assert flow.fails(1, "one again") == []
    assert flow.fails(1, "two", attempt=2, after_ms=1000) == ["retry 1 a:b attempt 3 at +3000ms"]
    assert flow.fails(1, "one, late", attempt=1) == []
    assert flow.ok(1, "one, later still", attempt=1) == ["end completed one, later still"]


def test_a_claim_is_noted_for_the_attempt_under_way_only() -> None:
    flow = Flow(CALL)
    flow.start()
    assert flow.event("claim", str(RUN), "1", "2") == []
    assert not flow.run.open[1].claimed
    assert flow.event("claim", str(RUN), "1", "1") == []
    assert flow.run.open[1].claimed
    flow.fails(1, "one")
    assert not flow.run.open[1].claimed


def test_nothing_is_applied_after_the_end() -> None:
    flow = Flow(CALL)
    flow.start()
    flow.ok(1, 1)
    assert flow.signal("x") == []
    assert flow.event("cancel") == []
    assert flow.event("kill") == []
    assert flow.event("end", str(RUN), data=b"") == []
    assert flow.run.closed
    assert flow.outstanding() == []
    assert flow.run.machine is None


def test_op_zero_and_huge_numbers_are_never_ours() -> None:
    flow = Flow(CALL)
    flow.start()
    assert flow.ret(0, codec.NIL_OUTCOME, fp="x") == []
    assert flow.tick(0) == []
    assert flow.exit(0) == []
    assert flow.run.suspended == ""
    assert flow.ret(10**30, codec.NIL_OUTCOME, fp="x")[0].startswith("suspend the history has an outcome for op 10000")


# -- code that does not fit the history --------------------------------------------------------------------------


def test_an_outcome_of_another_op_suspends_and_shows_both_sides() -> None:
    flow = Flow(CALL)
    flow.start()
    other = fingerprint("call", "a:other")
    assert flow.ret(1, codec.NIL_OUTCOME, fp=other) == [
        f"suspend op 1: the history has the outcome of another op (fingerprint {other}), "
        f"the code asked for call a:b (fingerprint {fingerprint('call', 'a:b')})"
    ]
    assert flow.ok(1, 1) == []
    assert flow.signal("x") == []
    assert flow.event("cancel") == []
    assert flow.tick(1) == []
    assert flow.run.finished is None
    assert flow.outstanding() == [f"suspend {flow.run.suspended}"]


MISFITS = {
    "another function": (CALL, "return function() return funcs.call('a:c') end", "the code asked for call a:c"),
    "a sleep instead": (CALL, "return function() time.sleep('1s') return funcs.call('a:b') end", "the code asked for timer"),
    "fewer ops": (CALL, "return function() process.inbox():receive() end", "the code has asked for 0 ops so far"),
    "a call instead of a sleep": ("return function() time.sleep('1s') return funcs.call('a:b') end", CALL, "the history has a timer, the code asked for call a:b"),
    "no sleep any more": ("return function() time.sleep('1s') funcs.call('a:b') end", "return function() process.inbox():receive() end", "the history has a timer for op 1, the code has asked for 0 ops"),
    "no child any more": ("return function() process.exec('a:c', 'w') funcs.call('a:b') end", "return function() funcs.call('a:b') process.inbox():receive() end", "the code asked for call a:b"),
    "another order": (TWO_CALLS, "return function() local y = funcs.call('a:y') local x = funcs.call('a:x') return {x, y} end", "the code asked for call a:y"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISFITS)
def test_changed_code_is_suspended_in_replay_and_goes_on_when_it_fits_again(name: str) -> None:
    """A mismatch suspends the run, harms nothing, and is over as soon as the code fits its history."""
    old, new, text = MISFITS[name]
    flow = Flow(old)
    flow.start()
    for op in range(1, 3):
        if flow.run.finished is not None or op not in flow.run.open:
            break
        kind = flow.run.open[op].kind
        if kind == "timer":
            flow.tick(op)
        elif kind == "spawn":
            flow.ok(op, {"pid": "{c@w|k}"})
            flow.exit(op, 1)
        else:
            flow.ok(op, op)
    changed = flow.replay(source=new)
    assert text in changed.run.suspended
    assert changed.run.finished is None
    assert changed.outstanding() == [f"suspend {changed.run.suspended}"]
    at = next(i for i, step in enumerate(changed.steps) if step and step[-1].startswith("suspend"))
    assert all(step == [] for step in changed.steps[at + 1 :])
    assert flow.replay().outstanding() == flow.outstanding()


def test_a_suspended_run_can_be_terminated_times_out_and_learns_of_its_end() -> None:
    """Its code is not needed for that, and an operator must be able to get rid of it."""
    for kind, expected in (
        (("kill",), ["end terminated Canceled: workflow terminated"]),
        (("tick", str(RUN), TIMEOUT_TICK), ["end timed-out Timeout: workflow timed out"]),
    ):
        flow = Flow(CALL, spec=replace(SPEC, run_timeout_ns=SECOND_NS))
        flow.start()
        flow.ret(1, codec.NIL_OUTCOME, fp="other")
        assert flow.run.suspended
        assert flow.event(*kind) == expected
        assert flow.outstanding() == expected
    flow = Flow(CALL)
    flow.start()
    flow.ret(1, codec.NIL_OUTCOME, fp="other")
    assert flow.event("end", str(RUN), data=b"") == []
    assert flow.run.closed


# -- bytes from anybody ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", JUNK)
def test_junk_as_an_outcome_never_raises_and_the_run_goes_on(name: str) -> None:
    """Undecodable bytes on `ret` are a failure of that attempt or of the call, never of the node."""
    for source in (CALL, "return function() local v, err = process.send('{c@w|o}', 'x') return {v, err} end"):
        flow = Flow(source)
        flow.start()
        flow.ret(1, JUNK[name])
        assert not flow.run.suspended
        if flow.run.finished is None:
            assert flow.ok(1, "good", attempt=2)[0].startswith("end completed")
        again = flow.replay()
        assert again.steps == flow.steps
        assert again.run.finished == flow.run.finished


@pytest.mark.parametrize("name", JUNK)
@pytest.mark.parametrize(
    "kind", ["signal", "exit", "exit before the outcome", "claim", "tick", "cancel", "kill", "mark", "end"]
)
def test_junk_on_any_subject_never_raises(kind: str, name: str) -> None:
    flow = Flow(
        "return function() coroutine.spawn(function() process.spawn('a:c', 'w') end) funcs.async('a:b') time.after('1h') "
        "while true do local r = channel.select{process.inbox():case_receive(), process.events():case_receive()} "
        "if r.value.kind == nil and r.value:topic() == 'stop' then return 'stopped' end end end"
    )
    flow.start()
    assert list(flow.run.open) == [1, 2, 3]
    if kind == "exit":
        flow.ok(3, {"pid": "{c@w|k}"})
    data = JUNK[name]
    tokens: dict[str, tuple[str, ...]] = {
        "signal": ("signal", "t"), "exit": ("exit", "100", "3"), "exit before the outcome": ("exit", "100", "3"),
        "claim": ("claim", "100", "1", "1"), "tick": ("tick", "100", "2"), "cancel": ("cancel",), "kill": ("kill",),
        "mark": ("mark", "100", "version%3Ax"), "end": ("end", "100"),
    }  # fmt: skip
    flow.event(*tokens[kind], data=data)
    assert not flow.run.suspended
    if kind == "end":
        assert flow.run.closed
        return
    if kind != "kill":
        flow.signal("stop")
    assert flow.run.finished is not None
    assert flow.replay(marks={}).steps == flow.steps


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        (b'{"approved": true}', {"approved": True}),
        (b"[1, 2.5, null]", [1, 2.5]),
        (b"plain text", "plain text"),
        (b"{broken json", "{broken json"),
        (b"", None),
        (b"\xff\xfe\x00", b"\xff\xfe\x00"),
        (b"\xc1", b"\xc1"),
        (codec.encode({"a": [1, "x"]}), {"a": [1, "x"]}),
        (b"123456789012345678901234567890", 1.2345678901234568e29),
        (b'"\\ud800"', '"\\ud800"'),
        (b"\xc1\xd4\x05\x00", b"\xc1\xd4\x05\x00"),
    ],
)
def test_a_signal_is_read_as_ours_else_json_else_text_else_bytes(data: bytes, seen: Any) -> None:
    flow = Flow("return function() local m = process.inbox():receive() return {m:payload():data()} end")
    flow.start()
    flow.signal("t", raw=data)
    assert flow.result == ([] if seen is None else [seen])


@pytest.mark.parametrize(
    ("data", "headers", "expected"),
    [
        (b'{"total": 5}', None, "end completed {'total': 5}"),
        (b"thanks", None, "end completed thanks"),
        (b"", None, "end completed None"),
        (b"null", {"X": "y"}, "end completed None"),
        (
            b"detail",
            {"Nats-Service-Error": "no stock", "Nats-Service-Error-Code": "404"},
            "retry 1 a:b attempt 2 at +1000ms",
        ),
        (b"", {"Nats-Service-Error-Code": "500"}, "retry 1 a:b attempt 2 at +1000ms"),
        (codec.encode_success(1), {"Nats-Service-Error-Code": "409", "Nats-Service-Error": "taken"}, "end completed 1"),
    ],
)
def test_foreign_replies_are_outcomes(data: bytes, headers: dict[str, str] | None, expected: str) -> None:
    """A service that knows nothing of us answers in JSON, text or nothing, and fails by a header (ADR-32)."""
    flow = Flow(CALL)
    flow.start()
    assert flow.ret(1, data, headers=headers) == [expected]
    assert flow.replay().steps == flow.steps


def test_a_foreign_error_keeps_its_text_kind_and_code() -> None:
    flow = Flow(
        "return function() local v, err = funcs.new():with_options{retry_policy={maximum_attempts=1}}:call('a:b') "
        "return {err:message(), err:kind(), err:details().code, err:details()._wrapper} end"
    )
    flow.start()
    flow.ret(1, b"", headers={"Nats-Service-Error": "no stock", "Nats-Service-Error-Code": "404"})
    assert flow.result == ["no stock", "NotFound", "404", "activity"]


def test_the_arguments_of_a_start_that_nobody_can_read_fail_the_run() -> None:
    """Python reads more than Lua does: a map with nil as its key."""
    flow = Flow(CALL, spec=replace(SPEC, args=b"\x91\x81\xc0\x01"))
    assert flow.start() == ["end failed Invalid: the arguments cannot be read: malformed msgpack: nil or NaN as a key"]


# -- retries and timeouts ----------------------------------------------------------------------------------------


def with_policy(policy: str) -> str:
    return f"return function() local v, err = funcs.new():with_options{{retry_policy={policy}}}:call('a:b') if err then return {{err:kind(), err:message(), err:details()}} end return v end"


def test_failures_are_retried_with_growing_pauses_and_earlier_ones_dropped() -> None:
    flow = Flow(CALL)
    flow.start()
    assert flow.fails(1, "1") == ["retry 1 a:b attempt 2 at +1000ms"]
    assert flow.fails(1, "2", attempt=2) == ["retry 1 a:b attempt 3 at +2000ms dropping 101"]
    assert flow.fails(1, "3", attempt=3) == ["retry 1 a:b attempt 4 at +4000ms dropping 102"]
    assert flow.outstanding() == ["retry 1 a:b attempt 4 at +4000ms"]
    assert flow.run.open[1].last_failure == "3"
    assert flow.ok(1, "ok", attempt=4) == ["end completed ok"]


def test_at_most_once_is_never_tried_twice() -> None:
    flow = Flow(with_policy("{maximum_attempts=1}"))
    flow.start()
    flow.fails(1, Failure("lost", "HostLost"))
    assert flow.result[:2] == ["HostLost", "lost"]
    assert flow.result[2]["_attempt"] == 1


def test_the_last_attempt_of_the_policy_ends_the_call_with_its_own_failure() -> None:
    flow = Flow(with_policy("{maximum_attempts=2, initial_interval='10ms'}"))
    flow.start()
    assert flow.fails(1, "one") == ["retry 1 a:b attempt 2 at +10ms"]
    flow.fails(1, Failure("two", Kind.CONFLICT, None, {"sku": 7}), attempt=2)
    assert flow.result == [
        "Conflict",
        "two",
        {
            "sku": 7,
            "_wrapper": "activity",
            "_activity_id": "1",
            "_activity_type": "a:b",
            "_attempt": 2,
            "_retry_state": "MaximumAttemptsReached",
        },
    ]


@pytest.mark.parametrize(
    ("policy", "failure"),
    [
        ("{}", Failure("no", retryable=False)),
        ("{}", Failure("no", Kind.CANCELED)),
        ("{}", Failure("no", "UnknownOutcome", retryable=True)),
        ("{non_retryable_error_types={'Conflict'}}", Failure("no", Kind.CONFLICT, retryable=True)),
        ("{nonRetryableErrorTypes={'Conflict'}}", Failure("no", Kind.CONFLICT)),
        ("{}", Failure("no", Kind.TIMEOUT, None, {"timeout_type": "schedule_to_close"})),
        ("{}", Failure("no", Kind.TIMEOUT, None, {"timeout_type": ["odd"]})),
    ],
)
def test_what_may_not_be_retried_ends_the_call_at_once(policy: str, failure: Failure) -> None:
    flow = Flow(with_policy(policy))
    flow.start()
    flow.fails(1, failure)
    assert flow.result[:2] == [str(failure.kind), "no"]


def test_a_lost_host_is_replaced_at_once_and_then_with_pauses() -> None:
    flow = Flow(CALL)
    flow.start()
    lost = Failure("gone", "HostLost", retryable=True)
    assert flow.fails(1, lost) == ["retry 1 a:b attempt 2 at +0ms"]
    assert flow.fails(1, lost, attempt=2) == ["retry 1 a:b attempt 3 at +1000ms dropping 101"]


def test_long_pauses_are_timers_of_the_server() -> None:
    flow = Flow(with_policy("{initial_interval='5s', maximum_interval='1h'}"))
    flow.start()
    assert not flow.run.quiet()
    assert flow.fails(1, "one") == ["retry 1 a:b attempt 2 at +5000ms durably"]
    assert not flow.run.quiet()  # what was decided is not recorded yet
    flow.record_marks()
    assert flow.run.quiet()
    assert flow.tick("retry-1-2", after_ms=5000) == ["call 1 a:b attempt 2"]
    assert not flow.run.quiet()
    assert flow.tick("retry-1-2") == []
    assert flow.outstanding() == ["call 1 a:b attempt 2"]
    assert flow.replay().outstanding() == ["call 1 a:b attempt 2"]


def test_the_tick_of_an_earlier_pause_does_not_cut_the_next_one_short() -> None:
    flow = Flow(with_policy("{initial_interval='5s'}"))
    flow.start()
    flow.fails(1, "one")
    flow.tick("retry-1-2", after_ms=5000)
    flow.fails(1, "two", attempt=2)
    assert flow.tick("retry-1-2") == []
    assert flow.tick("retry-1-3", after_ms=10_000) == ["call 1 a:b attempt 3"]


def test_a_history_replays_after_an_attempt_with_a_durable_pause_was_dropped_from_it() -> None:
    """The failure that began the pause is deleted once a later one is recorded; the tick that ended it stays."""
    flow = Flow(with_policy("{initial_interval='10s'}"))
    flow.start()
    flow.fails(1, "one")
    flow.tick("retry-1-2", after_ms=10_000)
    assert flow.fails(1, "two", attempt=2) == ["retry 1 a:b attempt 3 at +30000ms dropping 101 durably"]
    kept = [event for event in flow.events if event.seq != 101]
    again = flow.replay(events=kept)
    assert again.run.suspended == ""
    assert again.outstanding() == flow.outstanding() == ["retry 1 a:b attempt 3 at +30000ms durably"]
    assert again.run.open == flow.run.open


def test_a_failure_that_shows_another_one_to_be_late_stays_in_the_history() -> None:
    """Without it a replay would take the late failure of the older attempt, which may be final, for the latest news."""
    flow = Flow(CALL)
    flow.start()
    flow.fails(1, Failure("lost", "HostLost"))
    late = Failure("late and final", retryable=False)
    assert flow.fails(1, late) == []
    assert flow.fails(1, "two", attempt=2) == ["retry 1 a:b attempt 3 at +2000ms"]
    assert flow.fails(1, "three", attempt=3) == ["retry 1 a:b attempt 4 at +4000ms dropping 103"]
    again = flow.replay(events=[event for event in flow.events if event.seq != 103])
    assert again.outstanding() == flow.outstanding() == ["retry 1 a:b attempt 4 at +4000ms"]


def test_the_clock_of_the_code_does_not_go_by_events_that_may_be_deleted() -> None:
    flow = Flow("return function() funcs.call('a:b') return time.now():unix_nano() end")
    flow.start()
    flow.fails(1, "one", after_ms=5000)
    flow.fails(1, "two", attempt=2)
    assert flow.ok(1, attempt=3, after_ms=-3000) == [f"end completed {T0_NS + 2 * SECOND_NS}"]
    assert flow.replay(events=[event for event in flow.events if event.seq != 101]).result == flow.result


def test_ticks_with_odd_names_are_ignored() -> None:
    flow = Flow(CALL)
    flow.start()
    for name in (
        "retry-1",
        "retry-1-1",
        "retry-1-2",
        "retry-",
        "retry-x",
        "retry-99-1",
        "x",
        "delay",
        "timeout",
        "-1",
        "1.5",
    ):
        assert flow.event("tick", str(RUN), *name.split(".")) == []
    assert flow.run.suspended == ""
    assert flow.outstanding() == ["call 1 a:b"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("{retry_policy=5}", "retry_policy must be a table"),
        ("{['activity.start_to_close_timeout']='soon'}", "start_to_close_timeout"),
        ("{['temporal.activity.heartbeat_timeout']={}}", "heartbeat_timeout must be a duration"),
        ("{start_to_close_timeout=-5}", "start_to_close_timeout must not be negative"),
        ("{start_to_close_timeout=true}", "start_to_close_timeout must be a duration"),
        ("{retry_policy={initial_interval={}}}", "retry_policy.initial_interval must be a duration"),
        ("{retry_policy={initial_interval=0}}", "retry_policy.initial_interval must be more than 0"),
        ("{retry_policy={backoff_coefficient=0.5}}", "backoff_coefficient must be a number of at least 1"),
        ("{retry_policy={backoff_coefficient=0/0}}", "backoff_coefficient must be a number of at least 1"),
        ("{retry_policy={maximum_attempts='3'}}", "maximum_attempts must be a whole number"),
        ("{retry_policy={non_retryable_error_types='Internal'}}", "must be a list"),
    ],
)
def test_wrong_call_options_fail_the_call_and_name_the_key(options: str, text: str) -> None:
    failure = run_lua(f"return function() return funcs.new():with_options({options}):call('a:b') end")
    assert failure.kind == "Invalid"
    assert text in failure.message
    assert failure.retryable is False


@pytest.mark.parametrize(
    "options",
    [
        "{}",
        "{retry_policy={}}",
        "{['\\xff']=1}",
        "{whatever=1, priority={1}}",
        "{retry_policy={non_retryable_error_types={}}}",
    ],
)
def test_empty_and_unknown_call_options_are_fine(options: str) -> None:
    flow = Flow(f"return function() return funcs.new():with_options({options}):call('a:b') end")
    assert flow.start() == ["call 1 a:b"]


def test_options_of_the_entry_hold_unless_the_call_says_otherwise() -> None:
    flow = Flow(CALL, defaults={"a:b": {"retry_policy": {"initial_interval": 50}, "start_to_close_timeout": "3s"}})
    flow.start()
    assert flow.run.call_options(1).start_to_close_ns == 3 * SECOND_NS
    assert flow.fails(1, "one") == ["retry 1 a:b attempt 2 at +50ms"]


def test_refused_calls_do_not_disturb_the_numbers_of_the_others() -> None:
    """A call that cannot be made is answered in the step that made it, after all ops of that step."""
    flow = Flow(
        "return function() local bad = funcs.new():with_options{retry_policy=5} local done = channel.new(9) "
        "for i = 1, 3 do coroutine.spawn(function() if i ~= 2 then bad:call('a:bad') end done:send(funcs.call('a:' .. i)) end) end "
        "for i = 1, 3 do done:receive() end return 'ok' end"
    )
    assert flow.start() == ["call 2 a:2", "call 4 a:1", "call 5 a:3"]
    assert flow.run.ops.next_n == 6
    flow.ok(5)
    assert flow.ok(5) == []
    flow.ok(2)
    assert flow.ok(4) == ["end completed ok"]
    assert flow.replay().steps == flow.steps


def test_a_refused_call_that_ends_the_run_ends_it_once() -> None:
    flow = Flow(
        "return function() local bad = funcs.new():with_options{retry_policy=5} coroutine.spawn(function() bad:call('a:x') end) "
        "bad:call('a:y') return 'over' end"
    )
    assert flow.start() == ["end completed over"]


def test_code_that_only_makes_refused_calls_is_stopped() -> None:
    """Each answer is a new step with a new budget: this must be counted, or it never comes to an end."""
    failure = run_lua("return function() while true do funcs.new():with_options{retry_policy=5}:call('a:b') end end")
    assert failure.message.startswith(f"made {REFUSED_CALLS_MAX} calls in one step that cannot be made")
    ok = run_lua(
        "return function() for i = 1, 3000 do funcs.new():with_options{retry_policy=5}:call('a:b') end return 'fine' end"
    )
    assert ok == "fine"


# -- signals -----------------------------------------------------------------------------------------------------


def test_signals_before_anybody_listens_wait_in_order() -> None:
    flow = Flow(
        "return function() funcs.call('a:b') local a, b = process.listen('a'), process.listen('b') local i = process.inbox() "
        "return {a:receive(), b:receive(), a:receive(), i:receive():payload():data(), i:receive():topic()} end"
    )
    flow.start()
    for topic, body in (("a", 1), ("c", 2), ("b", 3), ("a", 4), ("d", 5)):
        assert flow.signal(topic, body) == []
    assert flow.ok(1) == ["end completed [1, 3, 4, 2, 'd']"]


def test_fields_of_the_payload_read_through_the_message() -> None:
    flow = Flow(
        "return function() local m = process.inbox():receive() "
        "return {m.approved, m:payload():data().approved, m.missing == nil, m:topic(), type(m.topic), m:from()} end"
    )
    flow.start()
    assert flow.signal("approve", raw=b'{"approved": true, "topic": "mine"}', sender="{c@w|x}") == [
        "end completed [True, True, True, 'approve', 'function', '{c@w|x}']"
    ]


@pytest.mark.parametrize("body", [None, 5, "text", [1], True])
def test_fields_of_a_payload_without_fields_are_nil(body: Any) -> None:
    flow = Flow("return function() local m = process.inbox():receive() return m.approved == nil end")
    flow.start()
    assert flow.signal("x", body) == ["end completed True"]


def test_a_message_sent_twice_is_delivered_once_per_sender() -> None:
    flow = Flow(
        "return function() local n, i = {}, process.inbox() repeat local m = i:receive() n[#n + 1] = m:payload():data() until m:topic() == 'stop' return n end"
    )
    flow.start()
    for body, once in (
        (1, "q/w/9/1"),
        (1, "q/w/9/1"),
        (2, "q/w/9/2"),
        (3, "q/v/9/1"),
        (2, "q/w/9/2"),
        (4, ""),
        (4, ""),
        (5, "odd"),
        (5, "odd"),
    ):
        flow.signal("t", body, once=once)
    assert flow.signal("stop", "end") == ["end completed [1, 2, 3, 4, 4, 5, 'end']"]
    assert flow.replay().result == flow.result


def test_topics_with_any_characters_arrive_as_they_were() -> None:
    flow = Flow("return function() return process.listen('a b.c*>ü'):receive() end")
    flow.start()
    assert flow.signal("a b.c*>ü", 1) == ["end completed 1"]


def test_a_message_of_several_bodies_or_none_keeps_their_number() -> None:
    sender = Flow("return function() process.send('{c@w|o}', 't') process.send('{c@w|o}', 't', 1, nil, 3) end")
    sender.start()
    none = sender.run.open[1].payload
    sender.ok(1)
    several = sender.run.open[2].payload
    flow = Flow(
        "return function() local i = process.inbox() local a, b = i:receive(), i:receive() local l = b:payload() "
        "return {a:payload() == nil, #l, l[1]:data(), l[2]:data() == nil, l[3]:data()} end"
    )
    flow.start()
    flow.signal("t", raw=none)
    assert flow.signal("t", raw=several) == ["end completed [True, 3, 1, True, 3]"]


# -- cancel, kill, time limits, delay ----------------------------------------------------------------------------


def test_cancel_is_an_event_and_interrupts_nothing() -> None:
    flow = Flow(
        "return function() local e = process.events():receive() time.sleep('1s') return {e.kind, e.from, e.at, e.reason == nil} end"
    )
    flow.start()
    assert flow.event("cancel", data=codec.encode("because")) == ["timer 1 +1000ms"]
    assert flow.run.cancel_requested
    assert flow.tick(1) == ["end completed ['pid.cancel', '{|topology}', '2023-11-14T22:13:20Z', True]"]


def test_cancel_before_anybody_listens_waits() -> None:
    flow = Flow("return function() funcs.call('a:b') return process.events():receive().kind end")
    flow.start()
    assert flow.event("cancel") == []
    assert flow.ok(1) == ["end completed pid.cancel"]


def test_a_run_that_fails_with_canceled_is_canceled() -> None:
    flow = Flow(
        "return function() process.events():receive() return nil, errors.new{message='stop', kind=errors.CANCELED} end"
    )
    flow.start()
    assert flow.event("cancel") == ["end canceled Canceled: stop"]


def test_kill_ends_the_run_without_asking() -> None:
    flow = Flow(CALL)
    flow.start()
    assert flow.event("kill") == ["end terminated Canceled: workflow terminated"]
    assert flow.run.machine is None
    assert flow.ok(1, 1) == []


def test_time_limits_are_ticks_and_the_nearer_one_counts() -> None:
    flow = Flow(
        CALL,
        spec=replace(
            SPEC,
            run_timeout_ns=10 * SECOND_NS,
            execution_timeout_ns=7 * SECOND_NS,
            chain_started_ns=T0_NS - 2 * SECOND_NS,
        ),
    )
    assert flow.start() == ["timer timeout +5000ms", "call 1 a:b"]
    assert flow.outstanding() == ["timer timeout +5000ms", "call 1 a:b"]
    assert flow.tick("timeout", after_ms=5000) == ["end timed-out Timeout: workflow timed out"]
    assert flow.result.retryable is False
    assert flow.result.details == {"timeout_type": "run"}


def test_a_delayed_run_begins_with_its_tick() -> None:
    flow = Flow(
        "return function() return {time.now():unix_nano(), process.inbox():receive():payload():data()} end",
        spec=replace(SPEC, start_delay_ns=3 * SECOND_NS, run_timeout_ns=SECOND_NS),
    )
    assert flow.start() == ["timer timeout +4000ms", "timer delay +3000ms"]
    assert flow.run.machine is None
    assert flow.run.quiet()
    assert flow.signal("early", "x") == []
    assert flow.outstanding() == ["timer timeout +4000ms", "timer delay +3000ms"]
    assert flow.tick("delay", after_ms=3000) == [f"end completed [{T0_NS + 3 * SECOND_NS}, 'x']"]
    assert flow.tick("delay") == []
    assert flow.replay().steps == flow.steps


def test_a_delayed_run_can_be_canceled_and_killed_before_it_begins() -> None:
    for kind, end in (
        ("cancel", "end canceled Canceled: operation canceled"),
        ("kill", "end terminated Canceled: workflow terminated"),
    ):
        flow = Flow(CALL, spec=replace(SPEC, start_delay_ns=SECOND_NS))
        flow.start()
        assert flow.event(kind) == [end]
        assert flow.tick("delay") == []


def test_signals_to_a_delayed_run_are_delivered_exactly_once() -> None:
    flow = Flow(
        "return function() local l = process.listen('t') local a, b = l:receive(), l:receive() return {a, b} end",
        spec=replace(SPEC, start_delay_ns=SECOND_NS),
    )
    flow.start()
    flow.signal("t", 1, once="q/w/1/1")
    flow.signal("t", 1, once="q/w/1/1")
    flow.tick("delay")
    flow.signal("t", 1, once="q/w/1/1")
    assert flow.signal("t", 2, once="q/w/1/2") == ["end completed [1, 2]"]


# -- startup messages --------------------------------------------------------------------------------------------


def messages(*items: tuple[str, Any]) -> tuple[dict[str, Any], ...]:
    return tuple({"topic": topic, "body": codec.encode(body), "from": "{c@w|boss}"} for topic, body in items)


def test_startup_messages_come_before_all_signals_in_order() -> None:
    flow = Flow(
        "return function() local i = process.inbox() local seen = {} for n = 1, 4 do local m = i:receive() seen[n] = m:topic() .. m:from() end return seen end",
        spec=replace(SPEC, messages=messages(("a", 1), ("b", 2), ("a", 3)), start_delay_ns=SECOND_NS),
    )
    flow.start()
    flow.signal("early")
    assert flow.tick("delay") == ["end completed ['a{c@w|boss}', 'b{c@w|boss}', 'a{c@w|boss}', 'early']"]


def test_a_start_is_no_replay_because_messages_came_with_it() -> None:
    """A new run gets the newest version and prints, whatever waits for it."""
    flow = Flow(
        "return function() print('here') return workflow.version('change', 1, 3) end",
        spec=replace(SPEC, messages=messages(("a", 1)), start_delay_ns=SECOND_NS),
    )
    flow.start()
    flow.signal("early")
    assert flow.tick("delay") == ["info here", "mark version:change 3", "end completed 3"]


def test_a_run_that_ends_at_once_leaves_startup_messages_alone() -> None:
    assert run_lua("return function() return 1 end", spec=replace(SPEC, messages=messages(("a", 1), ("b", 2)))) == 1


# -- children ----------------------------------------------------------------------------------------------------


def test_the_end_of_a_child_may_be_recorded_before_its_start() -> None:
    flow = Flow(
        "return function() local events = process.events() local pid = process.spawn('a:c', 'w') local e = events:receive() return {pid, e.from, e.result.error:kind()} end"
    )
    flow.start()
    assert flow.exit(1, Failure("bad", Kind.CONFLICT), pid="{c@w|k}") == [
        "end completed ['{c@w|k}', '{c@w|k}', 'Conflict']"
    ]
    assert flow.ok(1, {"pid": "{c@w|k}"}) == []


def test_exec_whose_end_overtakes_its_start_gets_the_result() -> None:
    flow = Flow("return function() return process.exec('a:c', 'w') .. workflow.version('v', 1, 2) end")
    flow.start()
    assert flow.exit(1, "early") == ["mark version:v 2", "end completed early2"]


def test_a_child_ends_once() -> None:
    flow = Flow(
        "return function() local e, n = process.events(), 0 process.spawn('a:c', 'w') while true do e:receive() n = n + 1 funcs.call('a:' .. n) end end"
    )
    flow.start()
    flow.ok(1, {"pid": "{c@w|k}"})
    assert flow.exit(1, 1) == ["call 2 a:1"]
    assert flow.exit(1, 2) == []
    flow.ok(2)
    assert flow.run.children.by_n == {}


def test_a_child_that_could_not_be_started_has_no_end() -> None:
    flow = Flow("return function() local pid, err = process.spawn('a:c', 'w') funcs.call('a:b') return err:kind() end")
    flow.start()
    flow.fails(1, Failure("factory not found", Kind.NOT_FOUND, retryable=False))
    assert flow.exit(1, 1) == []
    assert flow.ok(2) == ["end completed NotFound"]


def test_parent_close_policies() -> None:
    """Children that are still open when their parent ends: terminate is the default; an unanswered start counts too."""
    flow = Flow(
        "return function() local function go(id, policy) local s = process.with_options{parent_close_policy = policy} s:spawn(id, 'w') end "
        "process.spawn('a:1', 'w') go('a:2', 'ABANDON') go('a:3', 'request-cancel') go('a:4', 'terminate') "
        "process.spawn('a:5', 'w') coroutine.spawn(function() process.spawn('a:6', 'w') end) time.sleep('1s') return 'bye' end"
    )
    flow.start()
    for n in range(1, 5):
        flow.ok(n, {"pid": f"{{c@w|{n}}}"})
    assert flow.ok(5, {"pid": "{c@w|5}"}) == ["timer 6 +1000ms", "spawn 7 a:6"]
    flow.exit(4, "gone")
    assert flow.tick(6) == ["end completed bye kill 1 cancel 3 kill 5 kill 7"]


@pytest.mark.parametrize("end", ["error('x')", "return nil, errors.new('x')"])
def test_children_are_closed_too_when_the_parent_fails_or_is_killed(end: str) -> None:
    flow = Flow(f"return function() process.spawn('a:1', 'w') process.inbox():receive() {end} end")
    flow.start()
    flow.ok(1, {"pid": "{c@w|1}"})
    assert flow.signal("go")[-1].endswith(" kill 1")
    flow = Flow("return function() process.spawn('a:1', 'w') process.inbox():receive() end")
    flow.start()
    flow.ok(1, {"pid": "{c@w|1}"})
    assert flow.event("kill") == ["end terminated Canceled: workflow terminated kill 1"]


def test_code_that_raises_says_so_in_the_log_with_its_frames_and_code_that_returns_an_error_does_not() -> None:
    flow = Flow("local function f() error('x') end\nreturn function()\n process.inbox():receive()\n f()\n end")
    flow.start()
    assert flow.signal("go") == ["error workflow failed: Internal: flow.lua:1: x", "end failed Internal: flow.lua:1: x"]
    assert [
        [line.strip() for line in effect.stack.splitlines()] for effect in flow.effects if isinstance(effect, Log)
    ] == [["flow.lua:1: in function 'f'", "flow.lua:4: in main function"]]
    flow = Flow("return function() process.inbox():receive() return nil, errors.new('x') end")
    flow.start()
    assert flow.signal("go") == ["end failed Internal: x"]


def test_after_a_sleep_its_time_has_passed_whatever_the_clock_of_the_tick_says() -> None:
    flow = Flow(
        "return function() local t = time.now() time.sleep('200ms') return time.now():sub(t):milliseconds() end"
    )
    flow.start()
    assert flow.tick(1, after_ms=199.4) == ["end completed 200"]


# -- the run that follows ----------------------------------------------------------------------------------------


def following(flow: Flow) -> StartSpec:
    finish = flow.run.finished
    assert isinstance(finish, Finish)
    return decode_start(finish.record.next_start, {})


def test_continue_as_new_takes_unread_messages_along() -> None:
    flow = Flow(
        "return function(n) local a, m = process.listen('a'), process.listen('m', {message = true}) local ch = channel.new(1) subscribe('s', ch) "
        "local i = process.inbox() i:receive() workflow.attrs{memo={k='v'}} process.upgrade(nil, n + 1, 'x') error('never') end",
        args=[1], spec=replace(SPEC, memo={"old": 1}, run_timeout_ns=SECOND_NS, attempt=3),
    )  # fmt: skip
    flow.start()
    # All of them arrive in the step that ends the run: only the first one is read.
    again = Flow(
        flow.source,
        args=[1],
        spec=replace(flow.spec, messages=messages(("go", 0), ("a", 1), ("m", 2), ("i", 3), ("a", 4), ("s", 5))),
    )
    again.start()
    assert again.steps[-1][-1].startswith("end continued")
    # The run ends within its first message; what follows it in the start never reached the machine.
    spec = following(again)
    assert codec.unpack(spec.args) == [2, "x"]
    assert spec.memo == {"old": 1, "k": "v"}
    assert spec.attempt == 1
    assert spec.run_timeout_ns == SECOND_NS
    assert spec.chain_started_ns == T0_NS
    assert spec.since == RUN


@pytest.mark.parametrize("how", ["continued", "retried"])
def test_message_that_comes_again_is_not_taken_by_the_run_that_follows(how: str) -> None:
    """Somebody who got no answer says it again, and meanwhile the workflow has gone on as a new run."""
    ends = "process.upgrade()" if how == "continued" else "error('no')"
    source = f"return function() process.inbox():receive() process.inbox():receive() {ends} end"
    flow = Flow(source, spec=replace(SPEC, retry_policy={"maximum_attempts": 2}))
    flow.start()
    flow.signal("t", 1, once="q/w/1/1")
    assert flow.signal("t", 2, once="q/w/1/2")[-1] == f"end {how}"
    spec = following(flow)
    assert spec.heard == ("q/w/1/1", "q/w/1/2")

    after = Flow("return function() local i = process.inbox() return {i:receive():payload():data()} end", spec=spec)
    after.start()
    if how == "retried":
        after.tick("delay")
    assert after.signal("t", 2, once="q/w/1/2") == []
    assert after.signal("t", 3, once="q/w/1/3") == ["end completed [3]"]


def test_run_is_told_the_newest_messages_that_those_before_it_have_heard() -> None:
    flow = Flow(
        "return function() for i = 1, 2 do process.inbox():receive() end process.upgrade() end",
        spec=replace(SPEC, heard=tuple(f"q/w/1/{n}" for n in range(HEARD_MAX))),
    )
    flow.start()
    flow.signal("t", 1, once="q/w/2/1")
    flow.signal("t", 1)
    heard = following(flow).heard
    assert (len(heard), heard[0], heard[-1]) == (HEARD_MAX, "q/w/1/1", "q/w/2/1")


def test_messages_that_wait_anywhere_go_over_to_the_next_run_in_order() -> None:
    flow = Flow(
        "return function() local a, m = process.listen('a'), process.listen('m', {message = true}) local i = process.inbox() "
        "local ch = channel.new() subscribe('s', ch) funcs.call('a:b') process.upgrade('app:next') end"
    )
    flow.start()
    for topic, body in (("i", 1), ("a", 2), ("m", 3), ("a", None), ("s", 4), ("s", 5), ("i", 6)):
        flow.signal(topic, body, sender="{c@w|me}")
    flow.ok(1)
    spec = following(flow)
    assert spec.workflow == "app:next"
    assert [(m["topic"], codec.decode(m["body"])) for m in spec.messages] == [
        ("i", 1),
        ("a", 2),
        ("m", 3),
        ("a", None),
        ("s", 4),
        ("s", 5),
        ("i", 6),
    ]
    assert {m["from"] for m in spec.messages} == {"{c@w|me}"}
    assert flow.replay().run.finished == flow.run.finished


def test_messages_nobody_listened_for_go_over_too_with_topics_of_any_bytes() -> None:
    flow = Flow("return function() funcs.call('a:b') process.upgrade(nil) end")
    flow.start()
    flow.event("signal", "%FF%00", data=codec.encode(1))
    flow.ok(1)
    (message,) = following(flow).messages
    assert message["topic"].encode("utf-8", "surrogateescape") == b"\xff\x00"
    successor = Flow("return function() return process.inbox():receive():topic() end", spec=following(flow))
    assert successor.start() == ["end completed b'\\xff\\x00'"]


def test_children_stay_when_the_parent_goes_on_as_a_new_run() -> None:
    flow = Flow("return function() process.spawn('a:1', 'w') process.upgrade(nil) end")
    flow.start()
    assert flow.ok(1, {"pid": "{c@w|1}"}) == ["end continued"]


@pytest.mark.parametrize(
    ("policy", "failure", "delay_ns"),
    [
        ({"maximum_attempts": 3}, "errors.new('x')", SECOND_NS),
        ({"initial_interval": "5s"}, "'text'", None),  # a second value that is a text is not retryable (contract 3.3)
        ({"initial_interval": "5s"}, "errors.new{message='x', retryable=true}", 5 * SECOND_NS),
        ({"maximum_attempts": 3}, "errors.new{message='x', retryable=false}", None),
        ({"maximum_attempts": 1}, "errors.new('x')", None),
        (
            {"maximum_attempts": 3, "non_retryable_error_types": ["Conflict"]},
            "errors.new{message='x', kind='Conflict'}",
            None,
        ),
        ({"maximum_attempts": -1}, "errors.new('x')", None),
        (None, "errors.new('x')", None),
    ],
)
def test_a_failed_run_is_retried_by_its_policy(
    policy: dict[str, Any] | None, failure: str, delay_ns: int | None
) -> None:
    flow = Flow(f"return function() return nil, {failure} end", spec=replace(SPEC, retry_policy=policy))
    (told,) = flow.start()
    if delay_ns is None:
        assert told.startswith("end failed")
    else:
        assert told == "end retried"
        spec = following(flow)
        assert (spec.attempt, spec.start_delay_ns, spec.chain_started_ns, spec.since) == (2, delay_ns, T0_NS, RUN)


def test_a_run_is_not_retried_past_the_limit_of_its_chain() -> None:
    def first_step(limit_ns: int) -> list[str]:
        return Flow(
            "return function() error('x') end",
            spec=replace(SPEC, retry_policy={"initial_interval": 1000}, execution_timeout_ns=limit_ns),
        ).start()

    assert first_step(SECOND_NS)[-1].startswith("end failed")
    assert first_step(SECOND_NS + 1)[-1] == "end retried"


# -- versions ----------------------------------------------------------------------------------------------------

VERSIONED = "return function() local v = workflow.version('fix', 1, 2) if v == 2 then funcs.call('a:new') end funcs.call('a:old') return v end"
UNVERSIONED = "return function() funcs.call('a:old') end"


def test_a_new_run_takes_the_newest_version_and_records_it_first() -> None:
    flow = Flow(VERSIONED)
    assert flow.start() == ["mark version:fix 2", "call 1 a:new"]
    assert not flow.run.quiet()
    assert flow.outstanding() == ["mark version:fix 2", "call 1 a:new"]
    flow.run.mark_recorded("version:fix")
    assert flow.outstanding() == ["call 1 a:new"]


def test_a_run_left_between_two_marks_of_its_first_step_is_still_new() -> None:
    flow = Flow(
        "return function() local a, b = workflow.version('a', 1, 2), workflow.version('b', 1, 2) funcs.call('a:b') return {a, b} end"
    )
    assert flow.start() == ["mark version:a 2", "mark version:b 2", "call 1 a:b"]
    flow.event("mark", str(RUN), "version%3Aa", data=codec.encode(2))
    assert flow.replay().steps == [["mark version:b 2", "call 1 a:b"], []]
    flow.fails(1, "an event that follows")
    assert flow.replay().steps[0] == ["mark version:b 1", "call 1 a:b"]


def test_a_recorded_version_is_taken_wherever_its_mark_stands() -> None:
    flow = Flow(VERSIONED)
    flow.start()
    flow.ok(1)
    flow.event("mark", str(RUN), "version%3Afix", data=codec.encode(2))
    again = flow.replay()
    assert again.steps == [["call 1 a:new"], ["call 2 a:old"], []]
    assert again.run.quiet() is False
    assert flow.replay(marks={"version:fix": 1}).run.suspended != ""


def test_a_run_from_before_the_change_keeps_the_oldest_version() -> None:
    flow = Flow(UNVERSIONED)
    flow.start()
    flow.ok(1)
    old = flow.replay(source=VERSIONED)
    assert old.steps == [["mark version:fix 1", "call 1 a:old"], ["end completed 1"]]
    assert old.run.suspended == ""


def test_a_recorded_version_that_the_code_no_longer_supports_is_an_error() -> None:
    flow = Flow(
        "return function() local v, err = workflow.version('fix', 3, 4) return {v or 'none', err:kind()} end",
        marks={"version:fix": 2},
    )
    assert flow.start() == ["end completed ['none', 'Invalid']"]


@pytest.mark.parametrize("mark", ["text", None, [1], {"a": 1}, 1.5])
def test_a_mark_that_somebody_else_wrote_harms_nothing_but_the_run(mark: Any) -> None:
    flow = Flow(VERSIONED, marks={"version:fix": mark})
    flow.start()
    assert flow.run.finished is not None or flow.run.open


# -- quiet and outstanding ---------------------------------------------------------------------------------------


def test_a_run_is_quiet_only_while_the_server_wakes_it_by_itself() -> None:
    flow = Flow(
        "return function() process.inbox():receive() time.sleep('1h') funcs.call('a:b') process.spawn('a:c', 'w') process.inbox():receive() end"
    )
    flow.start()
    assert flow.run.quiet()
    flow.signal("x")
    assert flow.run.quiet()
    flow.tick(1)
    assert not flow.run.quiet()
    flow.ok(2)
    assert not flow.run.quiet()
    flow.ok(3, {"pid": "{c@w|1}"})
    assert flow.run.quiet()
    flow.signal("x")
    assert not flow.run.quiet()


def test_what_is_outstanding_after_replay_is_what_is_open_live() -> None:
    flow = Flow(
        "return function() funcs.async('a:1') funcs.async('a:2') time.after('1h') local t = time.timer('2h') t:stop() "
        "coroutine.spawn(function() process.spawn('a:c', 'w') end) coroutine.spawn(function() process.send('{c@w|o}', 't') end) "
        "workflow.version('v', 1, 2) process.inbox():receive() end",
        spec=replace(SPEC, run_timeout_ns=3600 * SECOND_NS),
    )
    flow.start()
    flow.fails(1, "later")
    flow.event("mark", str(RUN), "version%3Av", data=codec.encode(2))
    flow.run.mark_recorded("version:v")
    expected = [
        "timer timeout +3.6e+06ms",
        "retry 1 a:1 attempt 2 at +1000ms",
        "call 2 a:2",
        "timer 3 +3.6e+06ms",
        "spawn 5 a:c",
        "send 6 {c@w|o}",
    ]
    assert flow.outstanding() == expected
    again = flow.replay()
    assert again.outstanding() == expected
    assert again.run.open == flow.run.open


# -- what the code sees ------------------------------------------------------------------------------------------


def test_the_code_sees_its_identity_and_the_clock_of_its_events() -> None:
    flow = Flow(
        "return function() local a = workflow.info() process.inbox():receive() "
        "return {process.pid(), process.id(), a.workflow_id, a.run_id, a.history_length, workflow.history_length(), workflow.history_size() > 0, os.time(), ctx.get('who')} end",
        spec=replace(SPEC, context={"who": "ann", "why": Failure("nested", Kind.CONFLICT)}),
    )
    flow.start()
    flow.signal("x", "body", after_ms=2000)
    assert flow.result == [PID, "app:flow", "w-1", str(RUN), 1, 2, True, (T0_NS + 2 * SECOND_NS) // SECOND_NS, "ann"]


def test_time_never_runs_backwards() -> None:
    """A cluster's next leader may have a slower clock."""
    flow = Flow(
        "return function() local t = time.now() process.inbox():receive() return time.now():sub(t):nanoseconds() end"
    )
    flow.start()
    assert flow.signal("x", after_ms=-5000) == ["end completed 0"]


def test_a_refused_value_is_an_error_of_the_code_and_nothing_is_sent() -> None:
    for value in (
        "(function() local t = {} t.t = t return t end)()",
        "(function() local t = {} for i = 1, 200 do t = {t} end return t end)()",
        "{[{}] = 1}",
    ):
        flow = Flow(f"return function() local v, err = funcs.call('a:b', {value}) return err:kind() end")
        assert flow.start() == ["end completed Invalid"]


def test_a_result_that_cannot_be_sent_fails_the_run() -> None:
    for value in (
        "(function() local t = {} t.t = t return t end)()",
        "(function() local t = {} for i = 1, 100000 do t = {t} end return t end)()",
    ):
        failure = run_lua(f"return function() return {value} end")
        assert failure.kind == "Internal"
        assert failure.message.startswith("the result cannot be sent: ")


def test_many_runs_share_a_vm_without_seeing_each_other() -> None:
    vm = LuaVM()
    source = "return function(n) mine = n local f = funcs.async('a:b', n) process.inbox():receive() return {mine, f:channel():receive():data()} end"
    flows = [Flow(source, args=[n], vm=vm, workflow_id=f"w-{n}") for n in range(20)]
    for flow in flows:
        assert flow.start() == ["call 1 a:b"]
    for n, flow in enumerate(flows):
        flow.ok(1, n * n)
    for n, flow in reversed(list(enumerate(flows))):
        assert flow.signal("go") == [f"end completed [{n}, {n * n}]"]
    assert vm.machines == 0


@pytest.mark.parametrize(
    "work",
    ["for i = 1, 460000 do x = i end", "local t = {} for i = 1, 220000 do t[i] = {} end"],
    ids=["instructions", "memory"],
)
def test_a_step_that_was_just_within_its_budget_is_not_beyond_it_in_a_replay(work: str) -> None:
    """What a step takes is not quite the same in every process; a replay that ends where the run went on would be another run."""
    source = f"return function() {work} process.inbox():receive() return 'went on' end"

    def vm(share: float) -> LuaVM:
        return LuaVM(instructions_max=round(1_000_000 * share), step_memory_bytes_max=round(16 * 1024 * 1024 * share))

    flow = Flow(source, vm=vm(1))
    assert flow.start() == []
    assert flow.signal("go") == ["end completed went on"]
    assert "end failed Internal" in Flow(source, vm=vm(0.83)).start()[-1]
    assert flow.replay(vm=vm(0.83)).steps[-1] == ["end completed went on"]
