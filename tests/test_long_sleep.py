"""Sleeping for a day: replayed from a history whose timer fired a day later, and for real, but short, across a kill.

The clock of a workflow is the stream's: `time.now()` after a sleep is when the server stored the tick, to the
nanosecond, on whichever node and however much later the code goes on.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from mesh import codec
from mesh.buckets import Bucket
from mesh.client import WorkflowFailed
from mesh.errors import Disconnected, MeshError, NotReady
from mesh.events import EndRecord
from mesh.failure import Failure
from mesh.jetstream import JetStream
from mesh.outbox import Ack, Outbox
from mesh.roster import BUCKET
from mesh.subjects import stream_name
from tests.apps import QUEUE as ORDERS
from tests.apps import TIMEOUT_S, Mesh, a_mesh, write_app
from tests.conftest import ServerFactory
from tests.flows import T0_NS, Flow
from tests.recovery import APP, QUEUE, a_fleet, checked_history
from tests.waiting import wait_until, wait_until_async

DAY_MS = 24 * 3600 * 1000
LATE_MS = 1234.5
SLEEPER = (APP / "sleeper.lua").read_text()


class Gate:
    """Holds back the look-ups that a node makes before it sets timers again. Knows what is written after them."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.waiting = 0
        self.opened = anyio.Event()
        self.written: list[str] = []
        look_up, write = JetStream.get_last, Outbox.write_acked

        async def get_last(js: JetStream, stream: str, subject: str, **options: Any) -> Any:
            if is_timer(subject):
                self.waiting += 1
                await self.opened.wait()
            return await look_up(js, stream, subject, **options)

        async def write_acked(outbox: Outbox, subject: str, *args: Any) -> Any:
            ack = await write(outbox, subject, *args)
            self.written.append(subject)
            return ack

        patch.setattr(JetStream, "get_last", get_last)
        patch.setattr(Outbox, "write_acked", write_acked)

    def has_set_a_timer(self) -> bool:
        return any(map(is_timer, self.written))


def is_timer(subject: str) -> bool:
    """Whether this is the subject of a run's timer, not of a schedule."""
    return subject.startswith("mesh.at.") and subject.split(".")[3].isdecimal()


def test_sleep_of_a_day_is_a_timer_that_is_due_a_day_after_the_step_that_asked_for_it() -> None:
    flow = Flow(SLEEPER, args=["24h"])

    assert flow.start() == [f"timer 1 +{DAY_MS:g}ms"]
    assert flow.outstanding() == [f"timer 1 +{DAY_MS:g}ms"]


def test_clock_after_a_sleep_is_when_the_tick_was_stored() -> None:
    """Not when it was due and not what any node's clock says: a tick that came late came late in every replay."""
    flow = Flow(SLEEPER, args=["24h"])
    flow.start()

    flow.tick(1, after_ms=DAY_MS + LATE_MS)

    assert flow.result == {"before_ns": T0_NS, "after_ns": T0_NS + round((DAY_MS + LATE_MS) * 1e6)}


def test_history_whose_timer_fired_a_day_later_replays_to_the_same_end() -> None:
    flow = Flow(SLEEPER, args=["24h"])
    flow.start()
    flow.signal("nothing", "that anybody waits for", after_ms=DAY_MS / 2)
    flow.tick(1, after_ms=DAY_MS / 2)

    again = flow.replay()

    assert again.result == flow.result
    assert again.result["after_ns"] - again.result["before_ns"] == DAY_MS * 1_000_000
    assert again.steps[-1] == flow.steps[-1]


def test_owner_that_takes_over_in_the_middle_of_the_day_waits_for_the_same_moment() -> None:
    """A replay that stops before the tick asks for the timer that was asked for first, not for another 24 hours."""
    flow = Flow(SLEEPER, args=["24h"])
    flow.start()
    flow.signal("nothing", "that anybody waits for", after_ms=DAY_MS / 2)

    again = flow.replay()

    assert again.outstanding() == [f"timer 1 +{DAY_MS:g}ms"]
    again.now_ns = flow.now_ns
    again.tick(1, after_ms=DAY_MS / 2)
    assert again.result == {"before_ns": T0_NS, "after_ns": T0_NS + DAY_MS * 1_000_000}


@pytest.mark.slow
async def test_sleep_goes_on_across_the_death_of_its_owner(nats_server: ServerFactory, tmp_path: Path) -> None:
    """The timer is the server's; the node that takes over neither shortens nor repeats it."""
    async with a_fleet(nats_server().url, tmp_path, nodes=2) as fleet:
        handle = await fleet.start("sleeper", "1500ms", id="asleep")
        await wait_until(lambda: fleet.watch.of("asleep"))
        partition = fleet.watch.of("asleep")[0].partition
        owner = fleet.watch.owners[partition]
        await anyio.sleep(0.7)  # into its sleep
        fleet.kill(owner)

        result = await handle.result(timeout_s=20)

        await wait_until(lambda: len(fleet.watch.of("asleep")) == 3)
        await wait_until(lambda: fleet.watch.owners[partition] not in ("", owner))
        start, tick, end = fleet.watch.of("asleep")
        assert [start.label, tick.label, end.label] == ["start", "tick 1", "end"]
        assert result == {"before_ns": start.event.at_ns, "after_ns": tick.event.at_ns}
        slept_s = (tick.event.at_ns - start.event.at_ns) / 1e9
        # Had its next owner begun to sleep anew when it claimed the partition, it would have woken up later than this.
        claimed_ns = max(claim.at_ns for claim in fleet.watch.claims if claim.partition == partition)
        assert 1.5 <= slept_s < (claimed_ns - start.event.at_ns) / 1e9 + 1.5
        await checked_history(fleet.client, handle.key, handle.run)


@pytest.mark.slow
@pytest.mark.timeout(180)  # nodes start twice, one after the other
async def test_timer_that_fired_while_no_node_was_up_is_taken_with_the_time_it_fired(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    async with a_fleet(nats_server().url, tmp_path, nodes=1) as fleet:
        handle = await fleet.start("sleeper", "1500ms", id="alone")
        # The start alone would say nothing: the timer is what has to be there.
        await wait_until_async(lambda: fleet.client.js.subject_counts(stream_name(QUEUE), "mesh.at.>"))
        fleet.kill(next(iter(fleet.nodes)))
        await wait_until(lambda: len(fleet.watch.of("alone")) == 2)
        await fleet.add()

        result = await handle.result(timeout_s=20)

        await wait_until(lambda: len(fleet.watch.of("alone")) == 3)
        start, tick, _end = fleet.watch.of("alone")
        assert tick.label == "tick 1"
        assert result == {"before_ns": start.event.at_ns, "after_ns": tick.event.at_ns}
        await checked_history(fleet.client, handle.key, handle.run)


SLEEPS = "return function() time.sleep('1h') end"


async def schedules(mesh: Mesh) -> int:
    return len(await mesh.client.js.subject_counts(stream_name(ORDERS), "mesh.at.>"))


async def left_asleep_without_a_timer(url: str, app: Path, workflow_id: str) -> None:
    """As if the write of its timer had come to nothing, and then its node had gone."""
    async with a_mesh(url, app) as mesh:
        await mesh.start("sleeps", id=workflow_id)
        await wait_until_async(lambda: schedules(mesh))
        await mesh.client.js.purge(stream_name(ORDERS), subject="mesh.at.>")


async def test_no_timer_outlives_its_run_though_it_was_being_set_again_at_the_end(
    nats_server: ServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end takes back what there is; what arrives after that would stand on the server until it is due."""
    app, url = write_app(tmp_path, workflows={"sleeps": SLEEPS}), nats_server().url
    await left_asleep_without_a_timer(url, app, "w-1")
    gate = Gate(monkeypatch)
    async with a_mesh(url, app, node_id="b") as mesh:
        handle = mesh.get("w-1")
        await handle.signal("wake", "up")  # so that it is read from its history
        await wait_until(lambda: gate.waiting)
        await handle.terminate()
        with pytest.raises(WorkflowFailed):
            await handle.result(timeout_s=TIMEOUT_S)
        await wait_until(lambda: not mesh.node.engines[ORDERS]._instances.chains)
        gate.opened.set()
        await wait_until(gate.has_set_a_timer)
        await wait_until_async(lambda: _is_zero(schedules(mesh)))


async def _is_zero(count: Awaitable[int]) -> bool:
    return await count == 0


async def test_a_timer_that_a_node_sets_after_it_has_lost_the_run_does_not_outlive_it(
    nats_server: ServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stood still, or its server did; meanwhile another owner has ended the run and taken its timers back."""
    app, url = write_app(tmp_path, workflows={"sleeps": SLEEPS}), nats_server().url
    await left_asleep_without_a_timer(url, app, "w-1")
    gate = Gate(monkeypatch)
    async with a_mesh(url, app, node_id="b") as mesh:
        handle = mesh.get("w-1")
        await handle.signal("wake", "up")
        await wait_until(lambda: gate.waiting)
        engine, run = mesh.node.engines[ORDERS], (await handle.history())[0].seq
        for number in list(engine.partitions):
            engine.drop(number)
        ended = EndRecord("terminated", codec.encode_failure(Failure("ended elsewhere", "Canceled", False)))
        await mesh.client.js.publish(handle.key.end(run), ended.encode())
        gate.opened.set()
        await wait_until(gate.has_set_a_timer)
        await wait_until_async(lambda: _is_zero(schedules(mesh)))


async def test_a_checkpoint_says_when_the_last_busy_run_has_become_quiet(
    nats_server: ServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not every event that makes it so is one of the stream: whoever takes over reads what is named there."""
    app = write_app(tmp_path, workflows={"sleeps": SLEEPS})
    answers: list[Callable[[], None]] = []
    write = Outbox.write

    def answered_later(
        outbox: Outbox, subject: str, payload: bytes, headers: Any, on_ack: Callable[[Ack], None]
    ) -> None:
        def later(ack: Ack) -> None:
            answers.append(lambda: on_ack(ack))

        write(outbox, subject, payload, headers, later if is_timer(subject) else on_ack)

    monkeypatch.setattr(Outbox, "write", answered_later)
    async with a_mesh(nats_server().url, app) as mesh:

        async def busy() -> list[str]:
            entries = await Bucket(mesh.client.js, BUCKET).entries("claim.>")
            return [name for entry in entries for name in json.loads(entry.value).get("busy") or ()]

        async def nobody_is_busy() -> bool:
            return not await busy()

        await mesh.start("sleeps", id="w-1")
        await wait_until_async(busy)
        await wait_until(lambda: answers)
        answers.pop()()
        await wait_until_async(nobody_is_busy)


async def test_the_end_of_a_run_takes_its_timers_back_though_the_server_goes_away(
    nats_server: ServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And before the end is written: nobody looks after a run that has ended, so nobody would come back to them."""
    app = write_app(tmp_path, workflows={"sleeps": SLEEPS})
    purge = JetStream.purge
    refusals: list[MeshError] = [Disconnected("the server hung up"), NotReady("PURGE", 10008, "no leader")]

    async def refused_first(js: JetStream, stream: str, **options: Any) -> int:
        if is_timer(options["subject"]) and refusals:
            raise refusals.pop()
        return await purge(js, stream, **options)

    monkeypatch.setattr(JetStream, "purge", refused_first)
    async with a_mesh(nats_server().url, app) as mesh:
        handle = await mesh.start("sleeps", id="w-1")
        await wait_until_async(lambda: schedules(mesh))
        await handle.terminate()
        with pytest.raises(WorkflowFailed):
            await handle.result(timeout_s=TIMEOUT_S)
        assert refusals == []
        assert await schedules(mesh) == 0
