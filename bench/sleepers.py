"""Very many workflows asleep: what nodes and server hold in memory, how soon one wakes, how soon all are taken over.

One mesh grows from one number of sleepers to the next and is looked at each time, so that a million have to be started
only once.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, Final

import anyio

from bench.load import ends, mark, messages_of, run_many, start_many, stored_since
from bench.processes import QUEUE, BenchFailed, Mesh, NodeProcess, rss_mb, running_mesh
from bench.results import Results, Setup, gaps_ms
from mesh import codec
from mesh.subjects import WorkflowKey
from store.streams import PARTITIONS_DEFAULT

NAP: Final = "24h"
BATCH: Final = 5000
# A sleeping workflow is two messages: its start and the timer that the server has for it.
MESSAGES_EACH: Final = 2
PER_WORKFLOW_S: Final = 0.005
IDLE_S: Final = 15.0  # a quiet run stays in memory for five seconds
WAKE_S: Final = 30.0
# A fresh node has loaded by then what it has to look at.
SETTLE_S: Final = 2.0
SEED: Final = 1
WARM_UP: Final = 200
# Below them a node throws nothing out of memory.
RESIDENTS: Final = 1500


@dataclass(frozen=True, slots=True)
class Looks:
    """How much is looked at each time. woken: one after the other; struck: woken at once when their node is killed.

    idle_s: at most, until all that nothing happens to have left memory; settle_s: after partitions have moved.
    rest_s: how long the last of them sleep until the server is looked at once more. It forgets the indexes of its
    blocks after two minutes, and gives memory back some time later.
    """

    woken: int = 50
    steps: int = 300
    struck: int = 64
    idle_s: float = IDLE_S
    settle_s: float = SETTLE_S
    rest_s: float = 0.0


class SleepersBench:
    """Puts workflows to sleep on one node, and looks."""

    def __init__(self, mesh: Mesh, setup: Setup, results: Results, progress: Callable[[str], None]) -> None:
        self._mesh = mesh
        self._setup = setup
        self._results = results
        self._progress = progress
        self._choice = random.Random(SEED)
        self._names = count(1)
        self._asleep = 0
        self._woken: set[int] = set()
        self._node_mb = self._server_mb = 0.0
        self._replays = 0

    async def begin(self) -> None:
        """Start the node, warm it up and see what it takes with nothing to do."""
        node = await self._fresh_node()
        await run_many(self._mesh.client, "bench:steps", [5], [f"warm-{i}" for i in range(WARM_UP)], WAKE_S)
        self._node_mb, self._server_mb = node.rss_mb(), self._servers_mb()

    async def residents(self, number: int) -> None:
        """What a workflow takes that waits for something and has not left memory yet."""
        self._progress(f"{number} workflows in memory")
        ids = [f"resident-{i}" for i in range(number)]
        before = await self._left_memory(IDLE_S)
        before_mb = self._node().rss_mb()
        await start_many(self._mesh.client, "bench:waiter", [], ids)
        loaded = 0
        with anyio.move_on_after(WAKE_S):
            while loaded < number:
                now = await self._status()
                # Those that came first may have left again.
                loaded = sum(now[name] - before[name] for name in ("resident", "evictions"))
        if loaded < number:
            raise BenchFailed(f"{loaded} workflows have come into memory instead of {number}")
        self._add("resident_kb", (self._node().rss_mb() - before_mb) * 1e3 / number)
        async with ends(self._mesh.client) as heard:
            for workflow_id in ids:
                self._mesh.client.conn.publish_nowait(WorkflowKey(QUEUE, workflow_id).signal("go"), codec.encode(1))
            await heard.wait(ids, WAKE_S)

    async def grow_to(self, number: int) -> None:
        """Put more to sleep, until there are so many."""
        first, self._asleep = self._asleep, number
        self._replays = (await self._status())["replays"]
        begun = time.perf_counter()
        before = await mark(self._mesh.client)
        for at in range(first, number, BATCH):
            ids = [_name(i) for i in range(at, min(at + BATCH, number))]
            await start_many(self._mesh.client, "bench:sleeper", [NAP], ids)
            if (at - first) % (8 * BATCH) == 0:
                self._progress(f"{at + len(ids)} of {number} started")
        more = number - first
        with anyio.move_on_after(30 + more * PER_WORKFLOW_S):
            while True:
                if await messages_of(self._mesh.client, before) >= more * MESSAGES_EACH:
                    self._add("asleep_per_s", more / (time.perf_counter() - begun), 0)
                    return
                await anyio.sleep(0.05)
        raise BenchFailed(f"not all of {more} workflows have fallen asleep: {await self._status()}")

    async def look(self, looks: Looks) -> None:
        """Memory, waking, and the steps of a workflow beside them."""
        self._progress("waiting until those that nothing happens to have left memory")
        node, number = self._node(), self._asleep
        status = await self._left_memory(looks.idle_s)
        self._add("resident", status["resident"])
        self._add("replays", status["replays"] - self._replays)
        self._add("node_rss_mb", node.rss_mb())
        self._add("server_rss_mb", self._servers_mb())
        self._add("sleeping_node_bytes", (node.rss_mb() - self._node_mb) * 1e6 / number, 0)
        self._add("sleeping_server_bytes", (self._servers_mb() - self._server_mb) * 1e6 / number, 0)
        self._add("store_mb", await anyio.to_thread.run_sync(_size_mb, self._mesh.directory))
        if looks.rest_s:
            self._progress(f"letting them sleep for {looks.rest_s:g} s")
            await anyio.sleep(looks.rest_s)
            self._add("server_rested_rss_mb", self._servers_mb())
        self._progress("waking some")
        wakes_ms = [await self._wake_ms([i]) for i in self._draw(looks.woken)]
        self._add_percentiles("sleeper_wake", wakes_ms)
        begun = await mark(self._mesh.client)
        await run_many(self._mesh.client, "bench:steps", [looks.steps], [f"beside-{next(self._names)}"], WAKE_S)
        outcomes = await stored_since(self._mesh.client, begun, "ret.>")
        self._add_percentiles("step_beside", gaps_ms([message.timestamp_ns for message in outcomes]))

    async def hand_over(self, looks: Looks) -> None:
        """A fresh node takes them over from one that leaves politely."""
        self._progress("handing all of them over to a fresh node")
        for node_id in list(self._mesh.nodes):
            await self._mesh.end_node(node_id)
        begun = time.perf_counter()
        node = await self._fresh_node()
        self._add("fresh_node_s", time.perf_counter() - begun, 2)
        await anyio.sleep(looks.settle_s)
        self._add("fresh_node_resident", (await self._status())["resident"])
        self._add("fresh_node_rss_mb", node.rss_mb())
        self._add_percentiles("fresh_node_wake", [await self._wake_ms([i]) for i in self._draw(looks.woken)])

    async def take_over(self, looks: Looks) -> None:
        """One of two nodes is killed; how long until the last of some sleepers has woken whom signals reach just then.

        The killed node had about half of them.
        """
        old = self._node()
        fresh = await self._fresh_node(wait=False)
        self._progress("killing one of two nodes")
        with anyio.fail_after(WAKE_S):
            while True:
                if (await self._mesh.status(old.id) or {}).get("partitions") == PARTITIONS_DEFAULT // 2:
                    break
                await anyio.sleep(0.1)
        await anyio.sleep(looks.settle_s)
        old.send(signal.SIGKILL)
        del self._mesh.nodes[old.id]
        self._add("takeover_ms", await self._wake_ms(self._draw(looks.struck)))
        await old.wait()
        # Those that were woken are at home again; the other partitions of the killed node may still be on their way.
        status: dict[str, Any] | None = None
        with anyio.move_on_after(WAKE_S):
            while status is None or status["partitions"] != PARTITIONS_DEFAULT:
                status = await self._mesh.status(fresh.id)
                await anyio.sleep(0.1)
            return
        raise BenchFailed(f"node {fresh.id} has not taken everything over: {status}")

    async def _fresh_node(self, *, wait: bool = True) -> NodeProcess:
        node_id = f"sleep-{next(self._names)}"
        return await self._mesh.start_node(node_id, partitions=PARTITIONS_DEFAULT if wait else None)

    def _node(self) -> NodeProcess:
        return next(reversed(self._mesh.nodes.values()))

    def _draw(self, number: int) -> list[int]:
        """Some that are still asleep."""
        drawn = self._choice.sample(range(self._asleep), min(self._asleep, number + len(self._woken)))
        left = [i for i in drawn if i not in self._woken][:number]
        self._woken.update(left)
        return left

    async def _wake_ms(self, sleepers: Sequence[int]) -> float:
        """From publishing signals until the last end is heard, as any client would; the ends must be good ones."""
        ids = [_name(i) for i in sleepers]
        async with ends(self._mesh.client) as heard:
            begun = time.perf_counter()
            for workflow_id in ids:
                subject = WorkflowKey(QUEUE, workflow_id).signal("wake")
                self._mesh.client.conn.publish_nowait(subject, codec.encode("good morning"))
            await heard.wait(ids, WAKE_S)
            taken_ms = (time.perf_counter() - begun) * 1e3
        for workflow_id in ids:
            result = await self._mesh.client.get(workflow_id, queue=QUEUE).result(timeout_s=10)
            if result != {"woken": True}:
                raise BenchFailed(f"workflow {workflow_id} returned {result}")
        return taken_ms

    async def _left_memory(self, at_most_s: float) -> dict[str, Any]:
        """The node's status once all workflows have left its memory, or when they are still there after that time."""
        status = await self._status()
        with anyio.move_on_after(at_most_s):
            while status["resident"]:
                await anyio.sleep(0.2)
                status = await self._status()
        return status

    async def _status(self) -> dict[str, Any]:
        status = await self._mesh.status(self._node().id)
        if status is None:
            raise BenchFailed(f"node {self._node().id} does not answer")
        return status

    def _servers_mb(self) -> float:
        return sum(rss_mb(pid) for pid in self._mesh.servers.pids)

    def _add(self, name: str, value: float, digits: int = 1) -> None:
        self._results.add(name, [value], self._setup, digits, at=self._at())

    def _add_percentiles(self, name: str, values: Sequence[float]) -> None:
        if values:
            self._results.add_percentiles(name, values, self._setup, 2, at=self._at())

    def _at(self) -> dict[str, float]:
        return {"open": self._asleep} if self._asleep else {}


async def measure(
    setup: Setup,
    counts: Sequence[int],
    looks: Looks,
    results: Results,
    progress: Callable[[str], None],
    *,
    residents: int = 0,
) -> None:
    """Look at a mesh with each of these numbers of sleepers."""
    async with running_mesh(setup) as mesh:
        bench = SleepersBench(mesh, setup, results, progress)
        await bench.begin()
        if residents:
            await bench.residents(residents)
        for number in counts:
            await bench.grow_to(number)
            await bench.look(looks if number == counts[-1] else replace(looks, rest_s=0.0))
            await bench.hand_over(looks)
            await bench.take_over(looks)


def _name(i: int) -> str:
    return f"s-{i}"


def _size_mb(directory: Path) -> float:
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file()) / 1e6
