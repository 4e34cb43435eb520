"""What `python -m bench` measures: every figure that a target is named for, in every setup it is named for.

A part that fails is said to have failed, and the others are measured all the same.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import anyio

from bench import failover, sleepers, timers
from bench.engine import Part, SetupBench, Sizes
from bench.failover import FailoverPlan
from bench.machine import facts
from bench.results import Results, Setup
from mesh.errors import MeshError
from mesh.groups import unwrapped

Section = Literal["setups", "replay", "timers", "failover", "memory"]
SECTIONS: Final[tuple[Section, ...]] = ("setups", "replay", "timers", "failover", "memory")
NODES: Final = (1, 2, 4)
SERVERS: Final = (Setup(1, 1, "relaxed"), Setup(1, 1, "always"), Setup(1, 3, "relaxed"), Setup(1, 3, "always"))
ONE: Final = Setup()
THREE: Final = Setup(3)
THREE_R3: Final = Setup(3, 3, "always")


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    setups: Sequence[Setup]
    sizes: Sizes
    timers: int
    failovers: Sequence[tuple[Setup, FailoverPlan]]
    asleep: int
    residents: int
    looks: sleepers.Looks


def full(runs: int = 3) -> Plan:
    """About eight minutes."""
    setups = [Setup(nodes, server.replicas, server.sync) for server in SERVERS for nodes in NODES]
    return Plan(
        setups, Sizes(repetitions=runs), 10_000,
        [(THREE, FailoverPlan(kills=8)), (THREE_R3, FailoverPlan(kills=4))],
        100_000, sleepers.RESIDENTS, sleepers.Looks(),
    )  # fmt: skip


def quick(runs: int = 1) -> Plan:
    """About a minute: less of everything, and only the ends of the range of setups."""
    sizes = Sizes(
        workflows=1000, sequential_steps=500, starts=200, signals=50, history_events=3000, raw_messages=2000,
        repetitions=runs, warm_up=100,
    )  # fmt: skip
    setups = [Setup(1, 1, "relaxed"), Setup(2, 1, "relaxed"), Setup(1, 1, "always"), Setup(1, 3, "always")]
    return Plan(
        setups, sizes, 2000, [(THREE, FailoverPlan(kills=1))], 2000, 500, sleepers.Looks(woken=10, steps=50, struck=16)
    )


def only_one_node(plan: Plan) -> Plan:
    """The setups of a plan that are one node with one server."""
    return replace(plan, setups=[setup for setup in plan.setups if setup.nodes == setup.replicas == 1])


async def measure(plan: Plan, sections: frozenset[Section], results: Results, progress: Callable[[str], None]) -> None:
    """Measure the sections of a plan into the results."""
    if "setups" in sections:
        parts: frozenset[Part] = frozenset({"steps", "latency", "wake"})
        for setup in plan.setups:
            # The server alone has nothing to do with the number of nodes.
            more: frozenset[Part] = frozenset({"raw"}) if setup.nodes == 1 else frozenset()
            bench = SetupBench(setup, plan.sizes, results, progress)
            await attempt(results, str(setup), lambda bench=bench, more=more: bench.measure(parts | more))
    if "replay" in sections:
        replay = SetupBench(ONE, plan.sizes, results, progress)
        await attempt(results, "replay", lambda: replay.measure(frozenset({"replay"})))
    if "timers" in sections:
        await attempt(results, "timers", lambda: timers.measure(ONE, plan.timers, results, progress))
    if "failover" in sections:
        for setup, how in plan.failovers:
            await attempt_failover(results, setup, how, progress)
    if "memory" in sections:
        await attempt(
            results, "memory",
            lambda: sleepers.measure(ONE, [plan.asleep], plan.looks, results, progress, residents=plan.residents),
        )  # fmt: skip


def new_results(kind: str, **arguments: object) -> Results:
    """Results of a run that begins now."""
    return Results(kind, dict(arguments), facts())


async def attempt(
    results: Results, what: str, measure: Callable[[], Awaitable[None]], timeout_s: float = 300.0
) -> None:
    """Measure one thing; what it fails with is part of the results."""
    try:
        with unwrapped(), anyio.fail_after(timeout_s):
            await measure()
    except (MeshError, OSError, TimeoutError) as error:
        results.failures.append(f"{what}: {type(error).__name__}: {error}")


async def attempt_failover(results: Results, setup: Setup, how: FailoverPlan, progress: Callable[[str], None]) -> None:
    """Kill nodes of a setup, as part of its results."""
    await attempt(results, f"failover, {setup}", lambda: failover.measure(setup, how, results, progress))
