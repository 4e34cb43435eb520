"""Processes on one node and between two: how many there can be, and how quickly they talk.

Each figure is the median of some repetitions after a warm-up, as a client sees them: from the call of a function that
runs a process to its answer. That process, the pinger, does what is measured `count` times and checks each answer.
Client, server and nodes share the machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import anyio

from bench.processes import READY_S, BenchFailed, Mesh, NodeProcess, running_mesh, used
from bench.results import Results, Setup
from mesh.client import FunctionFailed

Part = Literal["crowd", "one", "two"]
PARTS: Final[tuple[Part, ...]] = ("crowd", "one", "two")
TIMEOUT_S: Final = 300.0
NEAR: Final = "bench:near"
FAR: Final = "bench:far"
TABLE_BYTES: Final = 1024


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    crowd: int = 10_000
    round_trips: int = 200_000
    round_trips_between: int = 10_000
    lives: int = 20_000
    calls: int = 10_000
    repetitions: int = 3
    warm_up: int = 1000


class ActorBench:
    """Measures one part after another."""

    def __init__(self, sizes: Sizes, results: Results, progress: Callable[[str], None]) -> None:
        self._sizes = sizes
        self._results = results
        self._progress = progress

    async def measure(self, parts: frozenset[Part]) -> None:
        """Measure the parts, all on one server."""
        async with running_mesh(Setup()) as mesh:
            if "crowd" in parts:
                await self._crowd(mesh)
            if "one" in parts:
                await self._one_node(mesh)
            if "two" in parts:
                await self._two_nodes(mesh)

    async def _crowd(self, mesh: Mesh) -> None:
        """Many processes that are there at the same time, in a node that has just been started."""
        count = self._sizes.crowd
        for name, target in (("crowd", "bench:run"), ("crowd_of_function", "bench:crowd_call")):
            taken_s, rss_mb, before_mb = [], [], []
            for i in range(self._sizes.repetitions):
                self._progress(f"{name}: {count} processes, {i + 1} of {self._sizes.repetitions}")
                node = await mesh.start_node(f"{name}-{i}")
                await _until_runs(mesh, NEAR)
                before_mb.append(node.rss_mb())
                arguments = ("bench:crowd", NEAR, count) if target == "bench:run" else (NEAR, count)
                taken_s.append(await self._taken_s(mesh, count, target, *arguments))
                rss_mb.append(node.rss_mb())
                await mesh.end_node(node.id)
            self._results.add(f"{name}_s", taken_s, Setup(), 3)
            self._results.add(f"{name}_rss_mb", rss_mb, Setup())
            self._results.add(f"{name}_rss_before_mb", before_mb, Setup())

    async def _one_node(self, mesh: Mesh) -> None:
        sizes = self._sizes
        node = await mesh.start_node("one")
        await _until_runs(mesh, NEAR)
        await self._rate(mesh, [node], "round_trips_per_s", "bench:pair", sizes.round_trips)
        await self._rate(mesh, [node], "named_round_trips_per_s", "bench:pair_by_name", sizes.round_trips)
        await self._rate(mesh, [node], "table_round_trips_per_s", "bench:pair_with_table", sizes.lives, TABLE_BYTES)
        await self._rate(mesh, [node], "lives_per_s", "bench:short_lives", sizes.lives)
        await self._rate(mesh, [node], "watched_lives_per_s", "bench:watched_lives", sizes.lives)
        await self._rate(mesh, [node], "process_calls_per_s", "bench:calls", sizes.calls)
        await mesh.end_node(node.id)

    async def _two_nodes(self, mesh: Mesh) -> None:
        sizes = self._sizes
        near = await mesh.start_node("near", "--without", FAR)
        far = await mesh.start_node("far", "--without", NEAR, "--without", "bench:run")
        nodes = [near, far]
        await _until_runs(mesh, FAR)
        count = sizes.round_trips_between
        await self._rate(mesh, nodes, "round_trips_between_per_s", "bench:pair", count, host=FAR)
        await self._rate(
            mesh, nodes, "table_round_trips_between_per_s", "bench:pair_with_table", count, TABLE_BYTES, host=FAR
        )
        await self._rate(mesh, nodes, "watched_lives_between_per_s", "bench:watched_lives", count, host=FAR)
        for node in nodes:
            await mesh.end_node(node.id)

    async def _rate(
        self, mesh: Mesh, nodes: list[NodeProcess], name: str, process: str, count: int, *args: int, host: str = NEAR
    ) -> None:
        """How often a second a process of this kind does what it does `count` times."""
        sizes = self._sizes
        await self._taken_s(mesh, sizes.warm_up, "bench:run", process, host, sizes.warm_up, *args)
        before = mesh.cpu()
        values = []
        for i in range(sizes.repetitions):
            self._progress(f"{name}, {i + 1} of {sizes.repetitions}")
            values.append(count / await self._taken_s(mesh, count, "bench:run", process, host, count, *args))
        self._results.add(name, values, Setup(len(nodes)), 0, cpu=used(before, mesh.cpu()))

    async def _taken_s(self, mesh: Mesh, expected: int, function: str, *args: str | int) -> float:
        begun = time.perf_counter()
        result = await mesh.client.call(function, *args, timeout_s=TIMEOUT_S)
        taken_s = time.perf_counter() - begun
        if result != expected:
            raise BenchFailed(f"{args} returned {result} instead of {expected}")
        return taken_s


async def _until_runs(mesh: Mesh, host: str) -> None:
    """Wait until processes can be spawned on a host: a node answers before it runs anything, or knows of others."""
    error: FunctionFailed | None = None
    with anyio.move_on_after(READY_S):
        while True:
            try:
                await mesh.client.call("bench:run", "bench:pair", host, 1, timeout_s=READY_S)
            except FunctionFailed as failed:
                error = failed
                await anyio.sleep(0.05)
            else:
                return
    raise BenchFailed(f"no process was spawned on {host} within {READY_S:g} s: {error}")
