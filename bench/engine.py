"""The speed of one node that runs workflows and functions alike, with the server beside it.

Each figure is the median of some repetitions after a warm-up, on one server whose store grows meanwhile. The client is
this process, the node and the server are others: on a machine of two cores the three of them share these.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from statistics import median, quantiles
from typing import Final, Literal, NamedTuple

import anyio

from bench.load import RAW_QUEUE, Span, publish_many, run_many
from bench.processes import HOST, BenchFailed, Mesh, NodeProcess, cpu_s, own_cpu_s, running_mesh
from mesh.client import WorkflowHandle
from mesh.server import Sync
from store.streams import PARTITIONS_DEFAULT, ensure_queue

Part = Literal["steps", "sequential", "latency", "replay", "always"]
PARTS: Final[tuple[Part, ...]] = ("steps", "sequential", "latency", "replay", "always")
TIMEOUT_S: Final = 120.0
CATCH_UP_S: Final = 0.5
# About what an outcome of the step function takes.
RAW_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    workflows: int = 2000
    steps: int = 5
    sequential_steps: int = 2000
    starts: int = 500
    history_events: int = 10_000
    raw_messages: int = 4000
    repetitions: int = 3
    warm_up: int = 200


@dataclass(slots=True)
class EngineFigures:
    """The figures by their names in the JSON, and what they were made of."""

    values: dict[str, float] = field(default_factory=dict)
    repetitions: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, values: list[float], digits: int) -> None:
        """Keep the median of a figure's repetitions."""
        self.repetitions[name] = [round(value, digits) for value in values]
        self.values[name] = round(median(values), digits)


class _Cpu(NamedTuple):
    node_s: float
    server_s: float
    client_s: float


class EngineBench:
    """Measures one part after another."""

    def __init__(self, sizes: Sizes, progress: Callable[[str], None]) -> None:
        self._sizes = sizes
        self._progress = progress
        self._names = count(1)
        self.figures = EngineFigures()

    async def measure(self, sync: Sync, parts: frozenset[Part]) -> None:
        """Measure the parts, all but "always" on a server with this sync."""
        if parts - {"always"}:
            async with running_mesh(sync) as mesh:
                node = await mesh.start_node("bench-1", partitions=PARTITIONS_DEFAULT)
                await self._warm_up(mesh)
                if "steps" in parts:
                    await self._steps(mesh, node, "steps_per_s", "workflows_per_s")
                if "sequential" in parts:
                    await self._sequential(mesh, node)
                if "latency" in parts:
                    await self._latency(mesh)
                if "replay" in parts:
                    await self._replay(mesh)
        if "always" in parts:
            async with running_mesh("always") as mesh:
                node = await mesh.start_node("bench-1", partitions=PARTITIONS_DEFAULT)
                await self._warm_up(mesh)
                await self._steps(mesh, node, "steps_per_s_always", "workflows_per_s_always")

    async def _warm_up(self, mesh: Mesh) -> None:
        self._progress("warming up")
        await self._run(mesh, self._sizes.warm_up, self._sizes.steps)

    async def _run(self, mesh: Mesh, workflows: int, steps: int) -> Span:
        batch = next(self._names)
        ids = [f"b{batch}-{i}" for i in range(workflows)]
        return await run_many(mesh.client, "bench:steps", [steps], ids, TIMEOUT_S)

    async def _steps(self, mesh: Mesh, node: NodeProcess, steps_name: str, workflows_name: str) -> None:
        sizes = self._sizes
        spans = []
        await self._raw(mesh, steps_name.replace("steps", "messages"))
        before = _cpu_now(mesh, node)
        for i in range(sizes.repetitions):
            self._progress(f"{steps_name}, {i + 1} of {sizes.repetitions}")
            spans.append(await self._run(mesh, sizes.workflows, sizes.steps))
        steps = sizes.workflows * sizes.steps
        self.figures.add(steps_name, [steps / span.seconds for span in spans], 0)
        self.figures.add(workflows_name, [sizes.workflows / span.seconds for span in spans], 0)
        self._note_cpu(steps_name, before, _cpu_now(mesh, node), steps * sizes.repetitions)
        # A start, an outcome for each step, an end; what is above was done twice.
        expected = sizes.workflows * (sizes.steps + 2)
        self.figures.repetitions[f"{steps_name}_surplus_events"] = [span.events - expected for span in spans]

    async def _raw(self, mesh: Mesh, name: str) -> None:
        """What the server alone can do with that many events, on this disk and at this hour."""
        sizes = self._sizes
        await ensure_queue(mesh.client.js, RAW_QUEUE)
        values = []
        for i in range(sizes.repetitions):
            self._progress(f"{name}, {i + 1} of {sizes.repetitions}")
            values.append(await publish_many(mesh.client, sizes.raw_messages, RAW_BYTES))
        self.figures.add(name, values, 0)

    async def _sequential(self, mesh: Mesh, node: NodeProcess) -> None:
        sizes = self._sizes
        await self._run(mesh, 1, sizes.warm_up)
        values = []
        before = _cpu_now(mesh, node)
        for i in range(sizes.repetitions):
            self._progress(f"sequential steps, {i + 1} of {sizes.repetitions}")
            span = await self._run(mesh, 1, sizes.sequential_steps)
            values.append(span.seconds / sizes.sequential_steps * 1e3)
        self.figures.add("sequential_step_ms", values, 3)
        self._note_cpu("sequential", before, _cpu_now(mesh, node), sizes.sequential_steps * sizes.repetitions)

    async def _latency(self, mesh: Mesh) -> None:
        sizes = self._sizes
        p50s, p99s = [], []
        for i in range(sizes.repetitions):
            self._progress(f"start to result, {i + 1} of {sizes.repetitions}")
            batch = next(self._names)
            for k in range(min(sizes.warm_up, sizes.starts)):
                await _start_to_result_s(mesh, f"w{batch}-{k}")
            taken = [await _start_to_result_s(mesh, f"l{batch}-{k}") for k in range(sizes.starts)]
            cuts = quantiles(taken, n=100, method="inclusive")
            p50s.append(cuts[49] * 1e3)
            p99s.append(cuts[98] * 1e3)
        self.figures.add("start_to_result_p50_ms", p50s, 3)
        self.figures.add("start_to_result_p99_ms", p99s, 3)

    async def _replay(self, mesh: Mesh) -> None:
        """Load and replay one long history in a node that has just been started, each time another node.

        The history is made by running it. What is measured is the time of the request that makes the owner load it.
        """
        sizes = self._sizes
        self._progress(f"making a history of {sizes.history_events} events")
        steps = sizes.history_events - 1  # and the start
        handle = await mesh.client.start("bench:long", steps, host=HOST, id="long")
        await _wait_for_events(handle, sizes.history_events)
        values = []
        for i in range(sizes.repetitions):
            self._progress(f"replay, {i + 1} of {sizes.repetitions}")
            # Ended politely: its partitions go with a checkpoint, so that the next one loads nothing by itself.
            for node_id in list(mesh.nodes):
                await mesh.end_node(node_id)
            fresh = f"fresh-{i}"
            await mesh.start_node(fresh, partitions=PARTITIONS_DEFAULT)
            # Long enough for it to read what came after the checkpoints: that is not what is measured.
            await anyio.sleep(CATCH_UP_S)
            await _check_replays(mesh, fresh, 0, 0)
            begun = time.perf_counter()
            state = await handle.describe()
            taken_s = time.perf_counter() - begun
            if state.status != "running":
                raise BenchFailed(f"the replayed workflow is {state.status}: {state.detail}")
            await _check_replays(mesh, fresh, 1, sizes.history_events)
            values.append(sizes.history_events / taken_s)
        self.figures.add("replay_events_per_s", values, 0)
        await handle.signal("go")
        result = await handle.result(timeout_s=TIMEOUT_S)
        if result != {"steps": steps}:
            raise BenchFailed(f"the replayed workflow returned {result}")

    def _note_cpu(self, name: str, before: _Cpu, after: _Cpu, steps: int) -> None:
        for who in _Cpu._fields:
            per_step = (getattr(after, who) - getattr(before, who)) / steps * 1e6
            self.figures.cpu[f"{name}: {who.removesuffix('_s')} us per step"] = round(per_step, 1)


async def _start_to_result_s(mesh: Mesh, workflow_id: str) -> float:
    begun = time.perf_counter()
    handle = await mesh.client.start("bench:steps", 1, host=HOST, id=workflow_id)
    result = await handle.result(timeout_s=TIMEOUT_S)
    taken_s = time.perf_counter() - begun
    if result != {"steps": 1}:
        raise BenchFailed(f"workflow {workflow_id} returned {result}")
    return taken_s


async def _wait_for_events(handle: WorkflowHandle, events: int) -> None:
    """Wait until the history of a workflow has so many events, as its owner counts."""
    found: object = None
    with anyio.move_on_after(TIMEOUT_S):
        while True:
            found = (await handle.describe()).detail.get("events")
            if found == events:
                return
            await anyio.sleep(0.2)
    raise BenchFailed(f"workflow {handle.id} has {found} events instead of {events} after {TIMEOUT_S:g} s")


async def _check_replays(mesh: Mesh, node_id: str, replays: int, events: int) -> None:
    """Make sure that what was measured is what this node did."""
    status = await mesh.status(node_id)
    if status is None or (status["replays"], status["replayed_events"]) != (replays, events):
        raise BenchFailed(f"node {node_id} should have made {replays} replays of {events} events: {status}")


def _cpu_now(mesh: Mesh, node: NodeProcess) -> _Cpu:
    return _Cpu(cpu_s(node.pid), cpu_s(mesh.server.pid), own_cpu_s())
