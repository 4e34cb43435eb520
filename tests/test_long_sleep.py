"""Sleeping for a day: replayed from a history whose timer fired a day later, and for real, but short, across a kill.

The clock of a workflow is the stream's: `time.now()` after a sleep is when the server stored the tick, to the
nanosecond, on whichever node and however much later the code goes on.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from mesh.subjects import stream_name
from tests.conftest import ServerFactory
from tests.flows import T0_NS, Flow
from tests.recovery import APP, QUEUE, a_fleet, checked_history
from tests.waiting import wait_until, wait_until_async

DAY_MS = 24 * 3600 * 1000
LATE_MS = 1234.5
SLEEPER = (APP / "sleeper.lua").read_text()


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
        owner = fleet.watch.owners[fleet.watch.of("asleep")[0].partition]
        fleet.kill(owner)

        result = await handle.result(timeout_s=20)

        start, tick, end = fleet.watch.of("asleep")
        assert [start.label, tick.label, end.label] == ["start", "tick 1", "end"]
        assert result == {"before_ns": start.event.at_ns, "after_ns": tick.event.at_ns}
        assert 1.5 <= (tick.event.at_ns - start.event.at_ns) / 1e9 < 1.7
        await checked_history(fleet.client, handle.key, handle.run)


@pytest.mark.slow
async def test_timer_that_fired_while_no_node_was_up_is_taken_with_the_time_it_fired(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    async with a_fleet(nats_server().url, tmp_path, nodes=1) as fleet:
        handle = await fleet.start("sleeper", "600ms", id="alone")
        # The start alone would say nothing: the timer is what has to be there.
        await wait_until_async(lambda: fleet.client.js.subject_counts(stream_name(QUEUE), "mesh.at.>"))
        fleet.kill(next(iter(fleet.nodes)))
        await wait_until(lambda: len(fleet.watch.of("alone")) == 2, 10)
        await fleet.add()

        result = await handle.result(timeout_s=20)

        start, tick, _end = fleet.watch.of("alone")
        assert tick.label == "tick 1"
        assert result == {"before_ns": start.event.at_ns, "after_ns": tick.event.at_ns}
        await checked_history(fleet.client, handle.key, handle.run)
