"""How figures change with size: the length of a history, the number of open workflows, the number of nodes."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from bench import sleepers
from bench.engine import LongHistory, SetupBench, Sizes
from bench.failover import FailoverPlan
from bench.load import mark, stored_since
from bench.processes import Mesh, running_mesh
from bench.results import Results, Setup, gaps_ms
from bench.suite import attempt, attempt_failover
from store.streams import PARTITIONS_DEFAULT

Curve = Literal["history", "nodes", "open"]
CURVES: Final[tuple[Curve, ...]] = ("history", "nodes", "open")
EVENTS: Final = (10, 100, 1000, 5000, 10_000, 20_000, 50_000)
NODES: Final = (1, 2, 3, 4, 6, 8)
OPEN: Final = (1000, 10_000, 100_000, 300_000, 1_000_000)
# Of each history the last ones are looked at: they are the steps at that length.
LAST_STEPS: Final = 100
# A million take some minutes to be started.
OPEN_S: Final = 1200.0
# So many are left to sleep for a while before the server is looked at again.
MANY: Final = 1_000_000
REST_S: Final = 240.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Where on each curve something is measured, and how much."""

    events: Sequence[int]
    nodes: Sequence[int]
    open: Sequence[int]
    sizes: Sizes
    kills: int = 2
    looks: sleepers.Looks = field(default_factory=sleepers.Looks)


def plan(upto: int) -> Plan:
    """All points up to a number of open workflows; the other curves end where they are as long to measure."""
    return Plan(
        [n for n in EVENTS if n <= max(upto // 20, EVENTS[0])],
        [n for n in NODES if n <= max(upto // 5000, 2)],
        [n for n in OPEN if n <= upto] or [upto],
        Sizes(workflows=1000, sequential_steps=500, starts=200, repetitions=2, warm_up=100),
        looks=sleepers.Looks(rest_s=REST_S if upto >= MANY else 0.0),
    )


async def measure(plan: Plan, curves: frozenset[Curve], results: Results, progress: Callable[[str], None]) -> None:
    """Measure these curves into the results."""
    if "history" in curves:
        await attempt(results, "history", lambda: _histories(plan.events, results, progress))
    if "nodes" in curves:
        for number in plan.nodes:
            setup = Setup(number)
            bench = SetupBench(setup, plan.sizes, results, progress)
            await attempt(results, str(setup), lambda bench=bench: bench.measure(frozenset({"steps", "latency"})))
            if number > 1:
                how = FailoverPlan(plan.kills, open=50, under_way_s=1.0, observe_s=2.0)
                await attempt_failover(results, setup, how, progress)
    if "open" in curves:
        await attempt(
            results, "open workflows",
            lambda: sleepers.measure(Setup(), plan.open, plan.looks, results, progress), OPEN_S,
        )  # fmt: skip


async def _histories(lengths: Sequence[int], results: Results, progress: Callable[[str], None]) -> None:
    """A step at each length, and what it takes to load a history of that length in a fresh node."""
    setup = Setup()
    async with running_mesh(setup) as mesh:
        await mesh.start_node("first", partitions=PARTITIONS_DEFAULT)
        warm = await LongHistory.make(mesh, 2000, progress, "warm")
        await warm.end()
        for events in lengths:
            at = {"events": events}
            begun = await mark(mesh.client)
            history = await LongHistory.make(mesh, events, progress)
            outcomes = await stored_since(mesh.client, begun, "ret.>")
            last_ms = gaps_ms([message.timestamp_ns for message in outcomes[-LAST_STEPS:]])
            if last_ms:
                results.add_percentiles("step_at_length", last_ms, setup, at=at)
            progress(f"replay of {events} events, after a handover and after a crash")
            replay_ms = await history.replay_s(mesh, f"fresh-{events}") * 1e3
            results.add("replay_ms", [replay_ms], setup, 2, at=at)
            results.add("crash_load_ms", [await _crash_load_s(mesh, history) * 1e3], setup, 2, at=at)
            await history.end()


async def _crash_load_s(mesh: Mesh, history: LongHistory) -> float:
    """Kill the only node; from when a new one owns its partitions until it answers for the workflow."""
    (victim,) = mesh.nodes.values()
    victim.send(signal.SIGKILL)
    await victim.wait()
    del mesh.nodes[victim.id]
    await mesh.start_node(f"{victim.id}-again", partitions=PARTITIONS_DEFAULT)
    return await history.answer_s()
