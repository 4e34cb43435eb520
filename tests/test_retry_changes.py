"""Retry options that change while workflows are open: what was decided about a failed attempt stands.

A story is told with the options of before. Then its owner dies after every single event, and the next one has other
options: it must come to the same ops, and take every event that was recorded from there on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mesh import codec
from mesh.events import Event
from mesh.failure import Failure, Kind
from mesh.history_files import fetch_history
from mesh.subjects import token
from node.checking import AppChecker
from node.machine.vm import LuaVM
from node.workflows.instances import Instance
from node.workflows.ops import WriteMark
from node.workflows.run import Run
from tests.apps import QUEUE, a_mesh, write_app
from tests.conftest import ServerFactory
from tests.flows import RUN, Flow
from tests.waiting import wait_until, wait_until_async

FLAKY = "a:flaky"
# What fails is called beside others, so that outcomes are recorded that were asked for after its failures.
SOURCE = """
return function()
    coroutine.spawn(function()
        while true do
            local message = process.inbox():receive()
            funcs.call('a:beside', message:topic())
        end
    end)
    local value, err = funcs.call('a:flaky')
    if err then
        local details = err:details()
        funcs.call('a:undo', err:kind(), err:message(), details._retry_state, details._attempt)
    end
    return funcs.call('a:last', value)
end
"""

POLICIES: dict[str, dict[str, Any] | None] = {
    "none": None,
    "one attempt": {"maximum_attempts": 1},
    "two attempts": {"maximum_attempts": 2},
    "three attempts": {"maximum_attempts": 3},
    "nine attempts": {"maximum_attempts": 9},
    "short pauses": {"initial_interval": "1ms", "maximum_interval": "1ms"},
    "long pauses": {"initial_interval": "1h"},
    "no conflicts": {"non_retryable_error_types": ["Conflict"]},
    "nothing but conflicts": {"non_retryable_error_types": ["Internal", "Timeout", "HostLost"]},
}


def options(policy: Mapping[str, Any] | None, **others: Any) -> dict[str, dict[str, Any]]:
    return {FLAKY: {**others, **({"retry_policy": policy} if policy is not None else {})}}


@dataclass
class Told:
    """A story and where its run stood after each of its events. marks: at each, those that were recorded then."""

    flow: Flow
    stood: list[list[str]] = field(default_factory=list)

    def did(self) -> None:
        self.stood += [_stands(self.flow)] * (len(self.flow.events) - len(self.stood))
        self.flow.record_marks()
        self.stood += [_stands(self.flow)] * (len(self.flow.events) - len(self.stood))


def _stands(flow: Flow) -> list[str]:
    return [
        f"{op.n} {op.target} attempt {op.attempt} due {op.due_ns} {'durably ' if op.durable else ''}{op.payload!r}"
        for op in flow.run.open.values()
    ] + [flow.run.suspended, repr(flow.run.finished)]


def story(defaults: dict[str, dict[str, Any]], failure: Failure) -> Told:
    """Failed attempts of one call, others beside it, until it is given up or comes to something."""
    flow = Flow(SOURCE, defaults=defaults)
    told = Told(flow)
    flow.start()
    told.did()
    for attempt in (1, 2, 3):
        flow.fails(1, failure, attempt=attempt, after_ms=500)
        told.did()
        flow.signal(f"after {attempt}", after_ms=1)
        told.did()
        beside = flow.run.ops.next_n - 1
        flow.ok(beside, after_ms=1)
        told.did()
        call = flow.run.open.get(1)
        if call is not None and call.durable and attempt != 2:
            flow.tick(f"retry-1-{call.attempt}", after_ms=5_000)
            told.did()
    for n in sorted(flow.run.open):
        if flow.run.finished is None:
            flow.ok(n, attempt=flow.run.open[n].attempt)
            told.did()
    for n in sorted(flow.run.open):
        if flow.run.finished is None:
            flow.ok(n)
            told.did()
    return told


FAILURES = {
    "a conflict": Failure("taken", Kind.CONFLICT),
    "a lost host": Failure("gone", "HostLost", retryable=True),
    "a timeout": Failure("late", Kind.TIMEOUT, False, {"timeout_type": "start_to_close"}),
}


@pytest.mark.parametrize(
    ("before", "failure"),
    [
        *((before, "a conflict") for before in POLICIES),
        *(("none", failure) for failure in FAILURES),
        *(("nothing but conflicts", failure) for failure in FAILURES),
    ],
)
def test_a_run_goes_on_with_other_retry_options_wherever_its_owner_dies(before: str, failure: str) -> None:
    told = story(options(POLICIES[before]), FAILURES[failure])
    events, vm = told.flow.events, LuaVM()
    assert told.flow.run.suspended == ""
    for after in POLICIES:
        for crash in range(1, len(events) + 1):
            if events[crash - 1].kind == "ret" and crash < len(events) and events[crash].kind == "mark":
                continue  # the verdict that follows is not recorded yet: it is the new owner's
            again = told.flow.replay(events=events[:crash], defaults=options(POLICIES[after]), vm=vm)
            where = f"{before} -> {after}, died after event {crash} ({events[crash - 1].kind})"
            assert _stands(again) == told.stood[crash - 1], where
            assert again.verdicts == [], where
            again.run.close()
        # All of it, as somebody reads it who was away.
        again = told.flow.replay(defaults=options(POLICIES[after]), vm=vm)
        assert (again.run.suspended, repr(again.run.finished)) == ("", repr(told.flow.run.finished)), after


def replayed_with(flow: Flow, events: list[Event], policy: Mapping[str, Any] | None, **others: Any) -> Flow:
    return flow.replay(events=events, defaults=options(policy, **others))


def test_what_nobody_has_decided_yet_is_decided_by_the_options_of_now() -> None:
    flow = Flow(SOURCE, defaults=options({"maximum_attempts": 9}))
    flow.start()
    flow.fails(1, "no")
    assert flow.verdicts == ["mark failed-1-1 1000000000"]
    # It was stored and its owner died before it has recorded anything, while something else came in.
    flow.signal("later")
    again = replayed_with(flow, flow.events, {"maximum_attempts": 1})
    assert again.steps[1] == ["call 2 a:undo"]
    assert [text for text in map(str, again.run.outstanding()) if "failed-1-1" in text]
    assert codec.decode(again.run.open[2].payload)[0] == ["", "no", "MaximumAttemptsReached", 1]


def test_a_call_between_two_attempts_is_made_once_more_with_less_attempts_and_then_given_up() -> None:
    flow = Flow(SOURCE, defaults=options(None))
    flow.start()
    for attempt in (1, 2, 3):
        flow.fails(1, "no", attempt=attempt)
        flow.record_marks()
    again = replayed_with(flow, flow.events, {"maximum_attempts": 2})
    assert again.outstanding() == ["retry 1 a:flaky attempt 4 at +4000ms"]
    assert again.fails(1, "again", attempt=4) == ["call 2 a:undo"]
    assert again.verdicts == ["mark failed-1-4 MaximumAttemptsReached"]
    assert codec.decode(again.run.open[2].payload)[0] == ["", "again", "MaximumAttemptsReached", 4]


def test_a_call_that_was_given_up_stays_given_up_with_the_reason_that_it_had() -> None:
    for policy, state in (
        ({"maximum_attempts": 1}, "MaximumAttemptsReached"),
        ({"non_retryable_error_types": ["Conflict"]}, "NonRetryableFailure"),
    ):
        flow = Flow(SOURCE, defaults=options(policy))
        flow.start()
        assert flow.fails(1, Failure("taken", Kind.CONFLICT)) == ["call 2 a:undo"]
        flow.record_marks()
        again = replayed_with(flow, flow.events, None)
        assert again.outstanding() == ["call 2 a:undo"]
        assert codec.decode(again.run.open[2].payload)[0] == ["Conflict", "taken", state, 1]


@pytest.mark.parametrize("limit_before", [0, 1200])
@pytest.mark.parametrize("limit_after", [0, 1200])
def test_the_limit_for_all_attempts_may_be_set_and_removed(limit_before: int, limit_after: int) -> None:
    def limited(limit: int) -> dict[str, Any]:
        return {"schedule_to_close_timeout": limit} if limit else {}

    told = story(options(None, **limited(limit_before)), FAILURES["a conflict"])
    again = replayed_with(told.flow, told.flow.events, None, **limited(limit_after))
    assert repr(again.run.finished) == repr(told.flow.run.finished)
    assert any("a:undo" in text for step in again.steps for text in step) == bool(limit_before)


def test_a_pause_that_has_begun_ends_as_it_began() -> None:
    """Its timer is the server's, or the owner's: with the other options of now it would be looked for in vain."""
    for before, after in (("long pauses", "short pauses"), ("short pauses", "long pauses")):
        flow = Flow(SOURCE, defaults=options(POLICIES[before]))
        flow.start()
        flow.fails(1, "no")
        flow.record_marks()
        again = replayed_with(flow, flow.events, POLICIES[after])
        assert again.outstanding() == flow.outstanding()
        assert again.run.open[1].durable == flow.run.open[1].durable
        if flow.run.open[1].durable:
            assert again.tick("retry-1-2", after_ms=3_600_000) == ["call 1 a:flaky attempt 2"]


def test_only_what_options_decide_is_recorded() -> None:
    for failure in (
        Failure("no", retryable=False),
        Failure("no", Kind.CANCELED),
        Failure("no", "UnknownOutcome", True),
        Failure("no", Kind.TIMEOUT, False, {"timeout_type": "schedule_to_start"}),
    ):
        flow = Flow(SOURCE, defaults=options({"maximum_attempts": 1, "non_retryable_error_types": ["Timeout"]}))
        flow.start()
        assert flow.fails(1, failure) == ["call 2 a:undo"]
        assert flow.verdicts == []
        again = replayed_with(flow, flow.events, None)
        assert again.run.open[2].payload == flow.run.open[2].payload


def test_of_failed_attempts_only_the_latest_and_what_was_decided_about_it_is_kept() -> None:
    flow = Flow(SOURCE, defaults=options(None))
    flow.start()
    dropped: list[str] = []
    for attempt in (1, 2, 3):
        dropped += flow.fails(1, "no", attempt=attempt)
        flow.record_marks()
    assert [text.partition(" dropping ")[2] for text in dropped] == ["", "101 and 102", "103 and 104"]
    kept = [event for event in flow.events if not 101 <= event.seq <= 104]
    assert replayed_with(flow, kept, {"maximum_attempts": 1}).outstanding() == flow.outstanding()
    # The owner dies between the two: the failure is deleted before what was decided about it.
    kept = [event for event in flow.events if not 101 <= event.seq <= 103]
    assert replayed_with(flow, kept, {"maximum_attempts": 1}).outstanding() == flow.outstanding()


FAILS = "return { main = function() return nil, require('errors').new{message = 'no', kind = 'Conflict'} end }"
ECHO = "return { main = function(...) return {...} end }"


async def test_a_workflow_outlives_a_change_of_retry_options_on_nodes(
    tmp_path: Path, nats_server: ServerFactory
) -> None:
    def app(name: str, policy: dict[str, Any]) -> Path:
        return write_app(
            tmp_path / name,
            workflows={"order": SOURCE.replace("'a:", "'app:")},
            functions={
                "flaky": {"source": FAILS, "meta": {"options": {"retry_policy": policy}}},
                **dict.fromkeys(("beside", "undo", "last"), ECHO),
            },
        )

    def verdicts(events: Iterable[Event]) -> list[tuple[str, Any]]:
        return [(event.args[1], codec.decode(event.data)) for event in events if event.kind == "mark"]

    url = nats_server().url
    patient = app("patient", {"initial_interval": "20ms", "backoff_coefficient": 1})
    strict = app("strict", {"maximum_attempts": 1})
    async with a_mesh(url, patient) as mesh:
        order = await mesh.start("order", id="order-1")

        async def has_failed_often() -> bool:
            return any(int(name.rpartition("-")[2]) >= 6 for name, _ in verdicts(await mesh.events("order-1")))

        await order.signal("go")
        await wait_until_async(has_failed_often)

        # Of the failed attempts the latest is kept, and what is about it; the one before is on its way out.
        async def is_short() -> bool:
            return len(await mesh.events("order-1")) <= 7

        await wait_until_async(is_short)
    async with a_mesh(url, strict) as mesh:
        await mesh.client.get("order-1", queue=QUEUE).result(timeout_s=20)
        events = await mesh.events("order-1")
        name, verdict = verdicts(events)[-1]
        assert (name.rpartition("-")[0], verdict) == ("failed-1", "MaximumAttemptsReached")
        assert int(name.rpartition("-")[2]) > 6
        recorded = await fetch_history(mesh.client.history(QUEUE), order.key)
    for checked in (patient, strict):
        assert AppChecker(checked, environ={}).check(recorded).fits


ONCE = {"options": {"retry_policy": {"maximum_attempts": 1}}}
TWO_AT_ONCE = """
return function(directory)
    coroutine.spawn(function() funcs.call('app:fails', directory) end)
    return funcs.call('app:charge', directory)
end
"""


async def charge(directory: str) -> str:
    """Goes on until it is told to end."""
    await _is_there(Path(directory, "charged"))
    return "charged"


async def fails(directory: str) -> None:
    """Goes on until it is told to fail."""
    await _is_there(Path(directory, "failed"))
    raise RuntimeError("no")


async def _is_there(file: Path) -> None:
    await wait_until(file.exists, timeout_s=60)


async def test_what_is_under_way_is_asked_after_though_a_verdict_has_to_be_recorded_first(
    tmp_path: Path, nats_server: ServerFactory
) -> None:
    """The owner dies after a call has failed and before it has recorded what becomes of that.

    Another call, which may run only once, is under way meanwhile.
    """
    python = {"kind": "function.python"}
    app = write_app(
        tmp_path / "app",
        workflows={"order": TWO_AT_ONCE},
        functions={
            "charge": {**python, "source": f"{__name__}:charge", "meta": ONCE},
            "fails": {**python, "source": f"{__name__}:fails"},
        },
    )
    url = nats_server().url
    requests: list[str] = []
    async with a_mesh(url, app, node_id="host", workflows=False, settled=False) as host:
        host.client.conn.subscribe_direct("mesh.fn.app.charge", lambda _, reply, *__: requests.append(reply))
        await host.client.conn.flush()

        async def has(*kinds: str) -> bool:
            return [kind for kind in await host.kinds("order-1") if kind in ("claim", "ret", "mark")] == [*kinds]

        async with a_mesh(url, app, node_id="first", functions=False):
            order = await host.start("order", str(tmp_path), id="order-1")
            await wait_until_async(lambda: has("claim"))
        (tmp_path / "failed").touch()
        await wait_until_async(lambda: has("claim", "ret"))
        async with a_mesh(url, app, node_id="second", functions=False):
            await wait_until_async(lambda: has("claim", "ret", "mark"))
            (tmp_path / "charged").touch()
            assert await order.result(timeout_s=20) == "charged"
        assert len(requests) == 1


async def test_nothing_follows_from_a_verdict_that_was_recorded_when_the_lease_was_over(
    tmp_path: Path, nats_server: ServerFactory
) -> None:
    """Another owner may have decided otherwise long ago: its mark goes with the attempt once the next one has failed."""
    app = write_app(
        tmp_path,
        workflows={"order": "return function() funcs.call('app:flaky'); return (funcs.call('app:undo')) end"},
        functions={
            "flaky": {"source": FAILS, "meta": ONCE},
            "undo": "return { main = function() return 'undone' end }",
        },
    )
    async with a_mesh(nats_server().url, app) as mesh:
        effects = mesh.node.engines[QUEUE]._effects
        write, may_act = effects._write_mark, effects._may_act
        over, looks, requests = False, 0, []

        async def recorded_too_late(instance: Instance, run: Run, mark: WriteMark) -> bool:
            nonlocal over
            fits = await write(instance, run, mark)
            over = True
            return fits

        def has_lease() -> bool:
            nonlocal looks
            looks += over
            return not over and may_act()

        effects._write_mark = recorded_too_late  # type: ignore[method-assign]  # this is what is forced
        effects._may_act = has_lease
        mesh.client.conn.subscribe_direct("mesh.fn.app.undo", lambda _, reply, *__: requests.append(reply))
        await mesh.client.conn.flush()
        order = await mesh.start("order", id="order-1")
        await wait_until(lambda: looks > 1 or requests)
        assert requests == []
        over = False
        assert await order.result(timeout_s=20) == "undone"


@pytest.mark.parametrize("value", ["text", -1, True, 1.5, [1], {"a": 1}, b"", "InProgress"])
def test_a_verdict_that_is_none_suspends_the_run(value: Any) -> None:
    flow = Flow(SOURCE, defaults=options(None))
    flow.start()
    flow.fails(1, "no")
    flow.event("mark", str(RUN), token("failed-1-1"), data=codec.encode(value))
    assert "what was decided about failed attempt 1" in flow.replay().run.suspended


@pytest.mark.parametrize("name", ["failed-", "failed-x", "failed-1", "failed-1-9", "failed-9-1", "failed-1-1-1"])
def test_a_mark_with_an_odd_name_is_nothing(name: str) -> None:
    flow = Flow(SOURCE, defaults=options(None))
    flow.start()
    flow.fails(1, "no")
    flow.record_marks()
    assert flow.event("mark", str(RUN), token(name), data=codec.encode(1)) == []
    assert flow.fails(1, "no", attempt=2) == ["retry 1 a:flaky attempt 3 at +2000ms dropping 101 and 102"]
