"""Short runs in which a planted fault must show: what load brings it up, and whom to kill when.

Each is as small as it can be; without the fault it is clean.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import anyio

from tests.chaos.checker import Finding, check
from tests.chaos.plan import Shape
from tests.chaos.record import Record
from tests.chaos.trial import Trial, a_trial
from tests.waiting import wait_until

Worst = Callable[[Trial], Awaitable[None]]
SEED: Final = 11


@dataclass(frozen=True, slots=True)
class Scenario:
    """A load, for how long it runs, on how many nodes, and what happens meanwhile. drain_s: how long all may take."""

    shape: Callable[[], Shape]
    seconds: float = 2.0
    nodes: int = 2
    worst: Worst | None = None
    drain_s: float = 30.0


def killing(step: str, count: int, *, its_host: bool = False, after_s: float = 0.0) -> Worst:
    """Kill a node once so many functions have begun a step: the one that began the last of them, or the first node."""

    async def worst(trial: Trial) -> None:
        def begun() -> list[dict[str, Any]]:
            effects = trial.record.effects()
            return [e for e in effects if e["what"] == "begin" and e["step"].startswith(step)]

        await wait_until(lambda: len(begun()) >= count, 40)
        await anyio.sleep(after_s)
        victim = str(begun()[count - 1]["node"]) if its_host else min(trial.nodes)
        trial.kill(victim)

    return worst


async def kill_in_turn(trial: Trial) -> None:
    """Kill the oldest node while others sign on, three times."""
    for _ in range(3):
        await anyio.sleep(0.6)
        await trial.add()
        trial.kill(min(trial.nodes, key=lambda name: int(name[1:])))


def _orders(**order: Any) -> Callable[[], Shape]:
    plain = {"price_flaky": 0, "retry_late": False, "decline": False, "letter": False, "stamp": False, "bulk_kb": 0}

    def shape() -> Shape:
        made = Shape(rate=30, at_most=12, sorts=("order",))
        made.overrides["order"] = {**plain, "charge_ms": 10, "settle_ms": 20, "hold_ms": 20} | order
        return made

    return shape


def _items(ms: int, count: int = 3, *, light: bool = False) -> list[dict[str, Any]]:
    return [{"name": f"item{i}", "ms": ms, "flaky": 0, "value": i, "light": light} for i in range(count)]


def _sagas() -> Shape:
    made = Shape(rate=30, at_most=40, sorts=("saga",))
    steps = [{"name": f"step{i}", "ms": 10, "flaky": 0, "decline": i == 1, "once": False} for i in range(2)]
    made.overrides["saga"] = {"steps": steps, "pace_ms": 10, "undo_ms": 2500, "raise": False}
    return made


def _long_steps() -> Shape:
    """Workflows that nothing wakes but the end of their call."""
    made = Shape(rate=30, at_most=24, sorts=("saga",))
    steps = [{"name": "step0", "ms": 5000, "flaky": 0, "decline": False, "once": False}]
    made.overrides["saga"] = {"steps": steps, "pace_ms": 10, "undo_ms": 10, "raise": False}
    return made


def _counters() -> Shape:
    made = Shape(rate=30, at_most=8, sorts=("counter",), messages=120, gap_ms=10)
    made.overrides["counter"] = {"each": 9, "sleep_ms": 20}
    return made


def _everything() -> Shape:
    made = Shape(rate=20, at_most=25)
    made.overrides["counter"] = {"each": 3, "sleep_ms": 20}
    return made


CALM: Final = Scenario(_everything)
# Held for longer than a run is kept in memory that nothing happens to: it is read again.
READ_AGAIN: Final = Scenario(_orders(items=_items(10), stamp=True, hold_ms=4500))
COUNTERS: Final = Scenario(_counters, 3.0, drain_s=10.0)

SCENARIOS: Final[dict[str, Scenario]] = {
    "ack-before-write": Scenario(_orders(items=_items(10), charge_ms=1500), worst=killing("charge", 1, its_host=True)),
    "outcome-dropped": CALM,
    "last-outcome-wins": READ_AGAIN,
    # One call of nine has its workflow on the node that is killed, its host on another one, and is made again at the
    # third. They take no thread, of which hosts have few: so all are under way.
    "no-question": Scenario(_orders(items=_items(2500, 8, light=True)), nodes=3, worst=killing("reserve:", 80)),
    "no-claim": CALM,
    # One compensation of four has its workflow and its host on the node that is killed.
    "recovered-is-done": Scenario(_sagas, 3.0, worst=killing("undo:", 30, its_host=True)),
    "late-events-dropped": Scenario(_counters, 6.0, worst=kill_in_turn, drain_s=10.0),
    "busy-forgotten": Scenario(_long_steps, 5.0, worst=killing("step0", 24, after_s=2.5), drain_s=12.0),
    "message-twice": CALM,
    "heard-forgotten": COUNTERS,
    "unread-forgotten": COUNTERS,
    "timers-forgotten": Scenario(
        _orders(items=_items(10), settle_ms=450, hold_ms=450), 3.0, worst=killing("charge", 8), drain_s=8.0
    ),
    "timers-left": CALM,
    "early-ticks": CALM,
    "true-randomness": READ_AGAIN,
    "parent-not-told": Scenario(_everything, drain_s=8.0),
    "end-before-telling": CALM,
    "child-not-stored": Scenario(_everything, drain_s=8.0),
}


@dataclass(slots=True)
class Outcome:
    """What a scenario came to."""

    findings: list[Finding]
    drained: bool = False
    rules: set[str] = field(default_factory=set)


async def carry_out(
    url: str, directory: Path, scenario: Scenario, *, fault: str = "none", seed: int = SEED, replays: bool = True
) -> Outcome:
    """Carry a scenario out on nodes with a fault, and judge its record."""
    record = Record(directory)
    async with a_trial(url, record, nodes=scenario.nodes, fault=fault) as trial:
        drained = await trial.load(
            seed=seed, shape=scenario.shape(), seconds=scenario.seconds, meanwhile=scenario.worst,
            drain_s=scenario.drain_s,
        )  # fmt: skip
    findings = await anyio.to_thread.run_sync(lambda: check(record.directory, replays=replays))
    return Outcome(findings, drained, {finding.rule for finding in findings})
