"""What a run takes over from others, and how a reset run is decided: events in, effects out, no mesh."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from mesh import codec
from mesh.errors import NotFound
from mesh.event_numbers import event_index
from mesh.events import Base, EndRecord, Event, StartSpec, decode_end, decode_start, reset_of
from mesh.failure import Failure
from mesh.lineage import arranged, reads_from, taken_over
from mesh.resetting import (
    CannotReset,
    Child,
    ChildrenRun,
    NoSuchEvent,
    children_at,
    chosen_event,
    left_out_signal,
    reset_start,
)
from mesh.subjects import token
from node.workflows.ops import RetryLater, WriteMark
from node.workflows.replaying import recorded_marks, replay_steps
from tests.flows import RUN, T0_NS, Flow

NEW = 1000  # the sequence of the reset run's start


def reset(
    old: Flow,
    number: int,
    *,
    source: str | None = None,
    after: Sequence[Event] = (),
    signals: bool = True,
    new: int = NEW,
) -> tuple[Flow, list[Event]]:
    """Reset a flow to one of its events, and replay what the new run has then. after: its own events."""
    events = arranged(old.run.run, old.events, {old.run.run: old.spec})
    spec = reset_start(old.spec, old.run.run, events, number - 1, signals=signals)
    flow = Flow(source or old.source, spec=spec, workflow_id=old.key.id, run=new, defaults=old.defaults)
    start = Event("start", old.events[0].id_token, new, T0_NS + 10**12, [], spec.encode(), None)
    history = arranged(new, [*old.events, start, *after], {old.run.run: old.spec, new: spec})
    flow.run.marks.update(recorded_marks(new, history))
    steps = list(replay_steps(flow.run, history))
    flow.steps = [[str(type(effect).__name__) for effect in step.effects] for step in steps]
    return flow, history


def own(flow: Flow, kind: str, *args: str, data: bytes = b"", seq: int = NEW + 1) -> Event:
    return Event(kind, "flow-1", seq, T0_NS + 10**12 + seq, list(args), data, None)


TWO_CALLS = "return function() local a = funcs.call('a:one') local b = funcs.call('a:two') return {a, b} end"


def started(source: str = TWO_CALLS, **options: Any) -> Flow:
    flow = Flow(source, **options)
    flow.start()
    return flow


def test_the_events_up_to_the_chosen_one_are_the_new_runs_own_and_the_rest_is_not() -> None:
    old = started()
    old.ok(1, "A")
    old.ok(2, "B")
    assert old.result == ["A", "B"]
    flow, history = reset(old, 2)
    assert [(e.kind, e.seq, e.args[:2]) for e in history] == [("start", NEW, []), ("ret", RUN + 1, [str(NEW), "1"])]
    assert taken_over(NEW, flow.spec, history) == 2
    assert flow.spec.base is not None
    assert (flow.spec.base.run, old.spec.base, reads_from(NEW, flow.spec)) == (RUN, None, NEW)
    assert flow.outstanding() == ["call 2 a:two"]
    assert flow.run.ret_subject(flow.run.open[2]).split(".")[-5] == str(NEW)
    # The clock of the code is the old one, and that of limits the new one.
    assert (flow.run.started_ns, flow.run.now_ns) == (T0_NS, old.events[1].at_ns)
    assert flow.run.open[2].issued_ns == T0_NS + 10**12
    assert (flow.run.length, flow.run.size) == (2, len(old.events[0].data) + len(old.events[1].data))
    assert flow.run.last_seq == NEW


def test_to_the_start_alone_everything_is_done_again() -> None:
    old = started()
    old.ok(1, "A")
    flow, history = reset(old, 1)
    assert flow.spec.base == Base(RUN, 0, RUN, T0_NS, len(old.events[0].data))
    assert ([e.kind for e in history], flow.outstanding()) == (["start"], ["call 1 a:one"])


def test_a_reset_of_a_reset_is_one_history_and_rests_on_the_first_run_for_randomness_and_time() -> None:
    old = started()
    old.ok(1, "A")
    first, history = reset(old, 2)
    fp = first.run.open[2].fp
    first.events = history[:1]
    events = [*old.events, history[0], own(first, "ret", str(NEW), "2", "1", fp, data=codec.encode_success("B"))]
    starts = {RUN: old.spec, NEW: first.spec}
    seen = arranged(NEW, events, starts)
    spec = reset_start(first.spec, NEW, seen, 1)
    assert spec.base == replace(first.spec.base or Base(0, 0, 0, 0, 0), run=NEW)
    again = arranged(2 * NEW, [*events, Event("start", "x", 2 * NEW, 0, [], b"", None)], starts | {2 * NEW: spec})
    assert [(e.seq, e.args[:1]) for e in again] == [(2 * NEW, []), (RUN + 1, [str(2 * NEW)])]
    with pytest.raises(NotFound, match=f"run {NEW} rests on the history of run {RUN}, which is not there"):
        arranged(NEW, events, {NEW: first.spec})


def test_signals_after_the_event_are_given_to_the_new_run_and_what_was_asked_is_not() -> None:
    source = "return function() local s, got = process.listen('s'), {} while #got < 3 do got[#got + 1] = s:receive() end return got end"
    old = started(source)
    old.signal("s", 1)
    old.event("cancel")
    old.signal("s", 2)
    assert [e.kind for e in reset(old, 2)[1]] == ["start", "signal", "signal"]
    assert [e.kind for e in reset(old, 2, signals=False)[1]] == ["start", "signal"]
    assert [e.kind for e in reset(old, 3)[1]] == ["start", "signal", "cancel", "signal"]


def test_signals_that_a_reset_has_left_out_are_given_to_no_run_that_follows_from_it() -> None:
    source = "return function() local s = process.listen('s') return { (s:receive()), (s:receive()) } end"
    old = started(source)
    for value in ("one", "bad", "two"):
        old.signal("s", value)
    bad = old.events[2].seq
    spec = reset_start(old.spec, RUN, old.events, 0, without=[bad])
    start = Event("start", "flow-1", NEW, T0_NS, [], spec.encode(), None)
    assert [e.seq - RUN for e in arranged(NEW, [*old.events, start], {RUN: old.spec, NEW: spec})[1:]] == [1, 3]
    follows = replace(spec, base=None, since=RUN + 1)  # the run that a reset one has gone on as
    later = start._replace(seq=NEW + 9, data=follows.encode())
    found = arranged(NEW + 9, [*old.events, start, later], {NEW + 9: follows})
    assert [e.seq - RUN for e in found[1:]] == [3]
    again = reset_start(spec, NEW, old.events, 0, without=[bad + 1])
    assert again.without == (bad, bad + 1)
    for index, number in ((0, 1), (2, 3), (0, 99)):
        with pytest.raises(CannotReset, match=f"event {number} .* cannot be left out"):
            left_out_signal("flow-1", old.events, index, number)


def test_what_comes_after_an_end_that_goes_on_is_the_new_runs_whatever_it_is() -> None:
    old = started()
    old.ok(1, "A")
    old.event("end", str(RUN), data=EndRecord("terminated", next_start=b"x").encode())
    old.event("signal", "s")
    old.event("cancel")
    assert [e.kind for e in reset(old, 2, signals=False)[1]] == ["start", "ret", "signal", "cancel"]
    ended = started()
    ended.ok(1, "A")
    ended.event("end", str(RUN), data=EndRecord("failed").encode())
    ended.event("cancel")
    assert [e.kind for e in reset(ended, 2)[1]] == ["start", "ret"]


def test_the_step_upon_the_event_is_new_and_takes_the_newest_version() -> None:
    """Also when signals follow that the new run takes over; the steps before it keep the decisions in the history."""
    source = """
    return function()
      local v = workflow.version("fix", 0, 1)
      local a = funcs.call("a:one")
      local w = workflow.version("other", 0, 1)
      process.listen("s"):receive()
      return {v, w}
    end
    """
    old = started(source.replace("workflow.version('other', 0, 1)", "0"))
    old.event("mark", str(RUN), "version:fix", data=codec.encode(1))
    old.ok(1, "A")
    old.signal("s")
    flow, _ = reset(old, 3, source=source)
    assert flow.result == [1, 1]
    # Once something has happened to it of its own, what is not recorded was not decided.
    signal = own(flow, "signal", "s")
    later, _ = reset(old, 3, source=source, after=[signal])
    assert later.result == [1, 0]
    marked = own(flow, "mark", str(NEW), "version:other", data=codec.encode(1))
    kept, _ = reset(old, 3, source=source, after=[marked, own(flow, "signal", "s", seq=NEW + 2)])
    assert kept.result == [1, 1]
    # What comes late for the old run is nothing that happened to the new one.
    late = own(flow, "ret", str(RUN), "9", "1", "0000000000")
    assert reset(old, 3, source=source, after=[late])[0].result == [1, 1]


def test_a_claim_of_the_old_run_does_not_keep_the_new_one_from_calling() -> None:
    old = started()
    old.event("claim", str(RUN), "1", "1")
    assert old.run.open[1].claimed
    flow, history = reset(old, 2)
    assert ([e.kind for e in history], flow.run.open[1].claimed) == (["start", "claim"], False)
    flow.run.apply(own(flow, "claim", str(NEW), "1", "1"))
    assert flow.run.open[1].claimed


def test_failed_attempts_of_the_old_run_are_never_dropped_from_its_history() -> None:
    policy = {"initial_interval": 100, "maximum_attempts": 9}
    old = started(defaults={"a:one": {"retry_policy": policy}})
    old.fails(1, "no")
    assert "dropping" not in old.steps[-1][0]
    flow, _ = reset(old, 2)
    fp = flow.run.open[1].fp
    effects = flow.run.apply(own(flow, "ret", str(NEW), "1", "2", fp, data=_failure()))
    assert [effect.drop for effect in effects if isinstance(effect, RetryLater)] == [()]
    effects = flow.run.apply(own(flow, "ret", str(NEW), "1", "3", fp, data=_failure(), seq=NEW + 2))
    assert [effect.drop for effect in effects if isinstance(effect, RetryLater)] == [(NEW + 1,)]


def test_what_was_decided_about_a_failed_attempt_of_the_old_run_is_kept_like_the_attempt() -> None:
    """The attempt stays in the older history: without what was decided about it, the options of now would decide."""
    old = started(defaults={"a:one": {"retry_policy": {"initial_interval": 100}}})
    old.fails(1, "no")
    flow, _ = reset(old, 2)
    after: list[Event] = []
    effects = flow.run.outstanding()
    for seq in (NEW + 1, NEW + 3):
        (mark,) = [effect for effect in effects if isinstance(effect, WriteMark)]
        after.append(own(flow, "mark", str(NEW), token(mark.name), data=mark.payload, seq=seq))
        assert flow.run.apply(after[-1]) == []
        flow.run.mark_recorded(mark.name)
        if seq == NEW + 1:
            fp = flow.run.open[1].fp
            after.append(own(flow, "ret", str(NEW), "1", "2", fp, data=_failure(), seq=NEW + 2))
            effects = flow.run.apply(after[-1])
    (dropped,) = [effect.drop for effect in effects if isinstance(effect, RetryLater)]
    left = [event for event in after if event.seq not in dropped]
    old.defaults = {"a:one": {"retry_policy": {"maximum_attempts": 1}}}
    again, _ = reset(old, 2, after=left)
    assert (again.run.suspended, again.run.open[1].attempt) == ("", 3)


def _failure() -> bytes:
    return codec.encode_failure(Failure("no"))


def test_the_limit_of_a_call_counts_from_the_reset_for_what_is_called_anew_and_as_it_was_in_the_history() -> None:
    limit = {
        "schedule_to_close_timeout": 1000,
        "retry_policy": {"initial_interval": 1, "maximum_attempts": 9},
    }
    old = started(defaults={"a:one": limit, "a:two": limit})
    old.fails(1, "no", after_ms=2000)  # too late for another attempt
    assert old.outstanding() == ["call 2 a:two"]
    flow, _ = reset(old, 2)
    assert flow.outstanding() == ["call 2 a:two"]
    fp = flow.run.open[2].fp
    in_time = Event("ret", "flow-1", NEW + 1, T0_NS + 10**12 + 10**8, [str(NEW), "2", "1", fp], _failure(), None)
    assert [type(effect).__name__ for effect in flow.run.apply(in_time)] == ["WriteMark", "RetryLater"]


def test_limits_of_the_run_count_from_the_reset() -> None:
    spec = StartSpec("app:flow", entropy=b"e", run_timeout_ns=10**9, execution_timeout_ns=2 * 10**9, chain_started_ns=5)
    old = started(spec=spec)
    flow, _ = reset(old, 1)
    assert (flow.run.deadline_ns, flow.spec.chain_started_ns) == (T0_NS + 10**12 + 10**9, 0)


def test_a_kill_that_asks_for_a_reset_ends_the_run_it_means_and_no_other() -> None:
    old = started()
    spec = reset_start(old.spec, RUN, old.events, 0)
    kill = Event("kill", "flow-1", RUN + 5, T0_NS, [], spec.encode(), None)
    assert reset_of(kill) == spec
    assert reset_of(kill._replace(data=b"no reset")) is None
    other = kill._replace(data=replace(spec, base=replace(spec.base or Base(0, 0, 0, 0, 0), run=RUN + 1)).encode())
    assert old.run.apply(other) == []
    old.run.apply(kill)
    assert old.run.finished is not None
    record = old.run.finished.record
    assert (record.status, record.next_start) == ("terminated", spec.encode())
    assert decode_end(record.encode()).next_start == spec.encode()


def test_a_reset_run_that_ends_before_the_event_hands_its_messages_on_from_there() -> None:
    """A continued run takes them over; what was asked of the runs before the reset was not asked of it."""
    source = "return function() local s = process.listen('s') s:receive() s:receive() end"
    goes_on = "return function() process.listen('s'):receive() process.upgrade(nil) end"
    old = started(source)
    old.signal("s", 1)
    old.event("cancel")
    old.signal("s", 2)
    flow, history = reset(old, 4, source=goes_on)
    assert flow.run.finished is not None
    ended = EndRecord(flow.run.finished.record.status, next_start=flow.run.finished.record.next_start)
    spec = decode_start(ended.next_start, {})
    assert (spec.since, spec.base, spec.reason) == (RUN + 1, None, "")
    events = [
        *old.events, history[0], own(flow, "end", str(NEW), data=ended.encode(), seq=NEW + 1),
        Event("start", "flow-1", NEW + 9, T0_NS, [], ended.next_start, None),
    ]  # fmt: skip
    found = arranged(NEW + 9, events, {NEW + 9: spec})
    assert [(e.kind, e.seq) for e in found] == [("start", NEW + 9), ("signal", RUN + 3)]
    # Asked after the reset, it is.
    asked = own(flow, "cancel", seq=NEW + 2)
    found = arranged(NEW + 9, sorted([*events, asked], key=lambda e: e.seq), {NEW + 9: spec})
    assert [e.kind for e in found] == ["start", "signal", "cancel"]
    # Told to give it no signals, it leaves none.
    silent, _ = reset(old, 4, source=goes_on, signals=False)
    assert silent.run.finished is not None
    assert decode_start(silent.run.finished.record.next_start, {}).since == NEW


def test_an_event_is_named_by_its_number_or_its_sequence() -> None:
    old = started()
    old.ok(1, "A")
    assert [event_index(old.events, n) for n in (0, 1, 2, 3, RUN, RUN + 1, -1)] == [None, 0, 1, None, 0, 1, None]
    old.event("end", str(RUN), data=EndRecord("failed").encode())
    assert chosen_event("w", RUN, old.events, 2) == 1
    for number in (0, 3, 99):
        with pytest.raises(
            NoSuchEvent, match=rf"to event {number}: choose one from 1 to 2; event 3 has ended the run \(end\)"
        ):
            chosen_event("w", RUN, old.events, number)


@pytest.mark.parametrize(
    ("kind", "args", "ender"),
    [("kill", [], "kill"), ("tick", [str(RUN), "timeout"], "timeout"), ("tick", ["1", "timeout"], "")],
)
def test_what_ends_a_run_is_no_event_to_reset_to(kind: str, args: list[str], ender: str) -> None:
    old = started()
    old.event(kind, *args)
    if not ender:
        assert chosen_event("w", RUN, old.events, 2) == 1
        return
    with pytest.raises(NoSuchEvent, match=rf"choose one from 1 to 1; event 2 has ended the run \({ender}\)"):
        chosen_event("w", RUN, old.events, 2)


def test_children_that_run_at_an_event_are_told_with_where_one_can_go() -> None:
    old = Flow("return function() end")
    child = {"pid": "{c@w|k}", "queue": "orders", "id": "k"}
    old.event("start", data=old.spec.encode())
    old.ret(1, codec.encode_success(child))
    old.ret(2, codec.encode_success({**child, "id": "l"}))
    old.exit(1)
    assert children_at(old.events, 0) == []
    assert children_at(old.events, 1) == [Child("orders", "k", 1, 2, 4)]
    assert children_at(old.events, 2) == [Child("orders", "k", 1, 2, 4), Child("orders", "l", 2, 3, 0)]
    assert children_at(old.events, 3) == [Child("orders", "l", 2, 3, 0)]
    text = str(ChildrenRun("w", 2, children_at(old.events, 1)))
    assert text.endswith(
        "choose an event before they were started (up to 1), or one from event 4 on, when they have ended"
    )
    assert str(ChildrenRun("w", 3, children_at(old.events, 2))).endswith("before they were started (up to 1)")


def test_what_a_continued_run_has_taken_over_is_part_of_what_a_reset_takes_over() -> None:
    """It comes right behind the start, in whichever run the history is read."""
    source = "return function() local s, got = process.listen('s'), {} while #got < 3 do got[#got + 1] = s:receive() end return got end"
    before = Flow(source, run=10)
    before.signal("s", "early")
    before.event("cancel")
    first = Flow(source, spec=replace(before.spec, since=9), run=20)
    first.start()
    first.signal("s", "own")
    events = [*before.events, *first.events]
    assert reads_from(20, first.spec) == 10
    history = arranged(20, events, {20: first.spec})
    assert [(e.kind, e.seq) for e in history] == [("start", 20), ("signal", 10), ("cancel", 11), ("signal", 21)]
    # To the early signal: the cancellation was asked of the old run, the other signal is taken along.
    spec = reset_start(first.spec, 20, history, 1)
    start = Event("start", "flow-1", NEW, T0_NS, [], spec.encode(), None)
    again = arranged(NEW, [*events, start], {20: first.spec, NEW: spec})
    assert [(e.kind, e.seq) for e in again] == [("start", NEW), ("signal", 10), ("signal", 21)]
    assert (taken_over(NEW, spec, again), spec.since) == (2, 9)
    # To the start alone: everything comes after it.
    spec = reset_start(first.spec, 20, history, 0)
    again = arranged(NEW, [*events, start._replace(data=spec.encode())], {20: first.spec, NEW: spec})
    assert ([(e.kind, e.seq) for e in again][1:], taken_over(NEW, spec, again)) == ([("signal", 10), ("signal", 21)], 1)
