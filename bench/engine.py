"""The speed of one setup: throughput, the latency of a step, of a start and of a signal, and replay.

Each part is measured after a warm-up, on servers whose store grows meanwhile. The client is this process, nodes and
servers are others: on a machine of two cores all of them share these.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Final, Literal

import anyio

from bench.load import RAW_QUEUE, Span, mark, publish_many, run_many, start_many, stored_since
from bench.processes import HOST, QUEUE, BenchFailed, Mesh, running_mesh, used
from bench.results import Results, Setup, gaps_ms
from mesh.client import WorkflowHandle
from store.streams import PARTITIONS_DEFAULT, ensure_queue

Part = Literal["raw", "steps", "latency", "wake", "replay"]
PARTS: Final[tuple[Part, ...]] = ("raw", "steps", "latency", "wake", "replay")
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
    signals: int = 300
    history_events: int = 10_000
    raw_messages: int = 4000
    repetitions: int = 3
    warm_up: int = 200


class SetupBench:
    """Measures one part after another on a mesh of a setup, into the results."""

    def __init__(self, setup: Setup, sizes: Sizes, results: Results, progress: Callable[[str], None]) -> None:
        self._setup = setup
        self._sizes = sizes
        self._results = results
        self._progress = lambda text: progress(f"{setup}: {text}")
        self._names = count(1)

    async def measure(self, parts: frozenset[Part]) -> None:
        """Start the setup, measure these parts of it, and end it."""
        async with running_mesh(self._setup) as mesh:
            await mesh.start_nodes(self._setup.nodes)
            self._progress("warming up")
            await self._run(mesh, self._sizes.warm_up, self._sizes.steps)
            for part, measure in (
                ("raw", self._raw), ("steps", self._steps), ("latency", self._sequential), ("latency", self._starts),
                ("wake", self._wakes), ("replay", self._replay),
            ):  # fmt: skip
                if part in parts:
                    await measure(mesh)

    async def _run(self, mesh: Mesh, workflows: int, steps: int) -> Span:
        return await run_many(mesh.client, "bench:steps", [steps], self._ids(workflows), TIMEOUT_S)

    def _ids(self, workflows: int) -> list[str]:
        batch = next(self._names)
        return [f"b{batch}-{i}" for i in range(workflows)]

    async def _steps(self, mesh: Mesh) -> None:
        sizes = self._sizes
        spans = []
        before = mesh.cpu()
        for i in range(sizes.repetitions):
            self._progress(f"{sizes.workflows} workflows of {sizes.steps} steps, {i + 1} of {sizes.repetitions}")
            spans.append(await self._run(mesh, sizes.workflows, sizes.steps))
        cpu = used(before, mesh.cpu())
        steps = sizes.workflows * sizes.steps
        self._results.add("steps_per_s", [steps / span.seconds for span in spans], self._setup, 0, cpu=cpu)
        self._results.add("workflows_per_s", [sizes.workflows / span.seconds for span in spans], self._setup, 0)
        for who, seconds in cpu.items():
            per_step_us = seconds / (steps * sizes.repetitions) * 1e6
            self._results.add(f"{who}_us_per_step", [per_step_us], self._setup)

    async def _raw(self, mesh: Mesh) -> None:
        """What the server alone can do with small messages, on this disk and at this hour."""
        sizes = self._sizes
        await ensure_queue(mesh.client.js, RAW_QUEUE, replicas=self._setup.replicas)
        values = []
        for i in range(sizes.repetitions):
            self._progress(f"the server alone, {i + 1} of {sizes.repetitions}")
            values.append(await publish_many(mesh.client, sizes.raw_messages, RAW_BYTES))
        self._results.add("messages_per_s", values, self._setup, 0)

    async def _sequential(self, mesh: Mesh) -> None:
        """One workflow, one step after the other: the mean of all, and how long each took as the log says."""
        sizes = self._sizes
        await self._run(mesh, 1, sizes.warm_up)
        means_ms, each_ms = [], []
        before = mesh.cpu()
        for i in range(sizes.repetitions):
            self._progress(f"{sizes.sequential_steps} sequential steps, {i + 1} of {sizes.repetitions}")
            begun = await mark(mesh.client)
            span = await self._run(mesh, 1, sizes.sequential_steps)
            means_ms.append(span.seconds / sizes.sequential_steps * 1e3)
            outcomes = await stored_since(mesh.client, begun, "ret.>")
            each_ms += gaps_ms([message.timestamp_ns for message in outcomes])
        self._results.add("step_ms", means_ms, self._setup, 3, cpu=used(before, mesh.cpu()))
        self._results.add_percentiles("step", each_ms, self._setup)

    async def _starts(self, mesh: Mesh) -> None:
        """From asking for a start to having the result, as a client of the library sees it."""
        sizes = self._sizes
        taken_ms = []
        before = mesh.cpu()
        for i in range(sizes.repetitions):
            self._progress(f"start to result, {i + 1} of {sizes.repetitions}")
            for workflow_id in self._ids(min(sizes.warm_up, sizes.starts)):
                await _start_to_result_ms(mesh, workflow_id)
            taken_ms += [await _start_to_result_ms(mesh, workflow_id) for workflow_id in self._ids(sizes.starts)]
        cpu = used(before, mesh.cpu())
        self._results.add_percentiles("start_to_result", taken_ms, self._setup, cpu=cpu)

    async def _wakes(self, mesh: Mesh) -> None:
        """From sending a signal to having the result of the workflow that waited for it and ends at once."""
        ids = self._ids(self._sizes.signals)
        self._progress(f"signal to wake, {len(ids)} workflows")
        await start_many(mesh.client, "bench:waiter", [], ids)
        for workflow_id in ids:
            await _wait_for_events(mesh.client.get(workflow_id, queue=QUEUE), 1)
        before = mesh.cpu()
        taken_ms = []
        for workflow_id in ids:
            handle = mesh.client.get(workflow_id, queue=QUEUE)
            begun = time.perf_counter()
            await handle.signal("wake", "good morning")
            result = await handle.result(timeout_s=TIMEOUT_S)
            taken_ms.append((time.perf_counter() - begun) * 1e3)
            if result != {"woken": "good morning"}:
                raise BenchFailed(f"workflow {workflow_id} returned {result}")
        self._results.add_percentiles("signal_to_wake", taken_ms, self._setup, cpu=used(before, mesh.cpu()))

    async def _replay(self, mesh: Mesh) -> None:
        """Load and replay one long history in a node that has just been started, each time another node."""
        sizes = self._sizes
        history = await LongHistory.make(mesh, sizes.history_events, self._progress)
        values = []
        for i in range(sizes.repetitions):
            self._progress(f"replay, {i + 1} of {sizes.repetitions}")
            values.append(sizes.history_events / await history.replay_s(mesh, f"fresh-{i}"))
        self._results.add("replay_events_per_s", values, self._setup, 0)
        await history.end()


class LongHistory:
    """An open workflow with many events; measures the request that makes a fresh node load and replay it."""

    def __init__(self, handle: WorkflowHandle, events: int) -> None:
        self._handle = handle
        self.events = events

    @classmethod
    async def make(cls, mesh: Mesh, events: int, progress: Callable[[str], None], name: str = "long") -> LongHistory:
        """Make it by running it: a start, and the outcomes of steps."""
        progress(f"making a history of {events} events")
        handle = await mesh.client.start("bench:long", events - 1, host=HOST, id=f"{name}-{events}")
        await _wait_for_events(handle, events)
        return cls(handle, events)

    async def replay_s(self, mesh: Mesh, node_id: str) -> float:
        """End all nodes, start this one, and have it load the history."""
        # Ended politely: the partitions go with a checkpoint, so that the next one loads nothing by itself.
        for other in list(mesh.nodes):
            await mesh.end_node(other)
        await mesh.start_node(node_id, partitions=PARTITIONS_DEFAULT)
        # Long enough for it to read what came after the checkpoints: that is not what is measured.
        await anyio.sleep(CATCH_UP_S)
        await _check_replays(mesh, node_id, 0, 0)
        taken_s = await self.answer_s()
        await _check_replays(mesh, node_id, 1, self.events)
        return taken_s

    async def answer_s(self) -> float:
        """How long it takes until its owner answers for it, which it does once it has loaded it."""
        begun = time.perf_counter()
        state = await self._handle.describe()
        taken_s = time.perf_counter() - begun
        if state.status != "running":
            raise BenchFailed(f"the replayed workflow is {state.status}: {state.detail}")
        return taken_s

    async def end(self) -> None:
        """Let it end, and see that it knows what it has done."""
        await self._handle.signal("go")
        result = await self._handle.result(timeout_s=TIMEOUT_S)
        if result != {"steps": self.events - 1}:
            raise BenchFailed(f"the replayed workflow returned {result}")


async def _start_to_result_ms(mesh: Mesh, workflow_id: str) -> float:
    begun = time.perf_counter()
    handle = await mesh.client.start("bench:steps", 1, host=HOST, id=workflow_id)
    result = await handle.result(timeout_s=TIMEOUT_S)
    taken_ms = (time.perf_counter() - begun) * 1e3
    if result != {"steps": 1}:
        raise BenchFailed(f"workflow {workflow_id} returned {result}")
    return taken_ms


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
