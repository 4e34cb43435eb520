"""A node is lost that tens of thousands of workflows are open on: how soon another one has attended to all of them.

Each has done two steps; a third of them wait for a call, which is under way on the lost node, a third sleep, a third
wait for a signal. New workflows are started meanwhile, one after the other, as clients do not wait for a recovery.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, Literal

import anyio

from bench.load import Mark, ends, mark, messages_of, start_many
from bench.processes import QUEUE, BenchFailed, Mesh, NodeProcess, cpu_s, running_mesh
from bench.results import Results, Setup
from mesh import codec
from mesh.subjects import WorkflowKey
from store.streams import PARTITIONS_DEFAULT

How = Literal["settled", "burst", "paused"]
HOWS: Final[tuple[How, ...]] = ("settled", "burst", "paused")
WAITS_FOR: Final = ("call", "sleep", "signal")
# What is stored at least of one that waits: its start and two outcomes.
MESSAGES_EACH: Final = 3
BATCH: Final = 5000
SETTLE_S: Final = 3.0  # checkpoints are saved every second
LOOK_S: Final = 0.2
PER_WORKFLOW_S: Final = 0.02
NEW_EVERY_S: Final = 0.05
# A new workflow that takes longer counts as that long: its calls went to the node that is paused.
NEW_AT_MOST_S: Final = 3.0
TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class RecoveryPlan:
    """How many workflows are open, and how their node is lost.

    settled: killed when nothing happens any more. burst: killed while most of them have only just been started.
    paused: stopped for longer than its lease while another node takes over, then it goes on.
    """

    open: int = 24_000
    hows: Sequence[How] = HOWS


@dataclass(slots=True)
class Recovery:
    """What was seen of one. Times are since the new owner answered; cpu: of it and of the server, until the end."""

    owned_s: float = 0.0
    first_new_s: float = 0.0
    attended_s: float = 0.0
    node_cpu_s: float = 0.0
    server_cpu_s: float = 0.0
    rss_mb: float = 0.0
    loaded: int = 0
    new_ms: list[float] = field(default_factory=list)


async def measure(setup: Setup, plan: RecoveryPlan, results: Results, progress: Callable[[str], None]) -> None:
    """Measure a recovery of each kind, each in a mesh of its own."""
    for how in plan.hows:
        async with running_mesh(setup) as mesh:
            one = _Round(mesh, plan.open, how, progress)
            seen = await one.run()
        node_us, server_us = (cpu / seen.loaded * 1e6 for cpu in (seen.node_cpu_s, seen.server_cpu_s))
        figures = {
            "owned_s": (seen.owned_s, 2), "first_new_s": (seen.first_new_s, 2), "attended_s": (seen.attended_s, 1),
            "loaded": (seen.loaded, 0), "loaded_per_s": (seen.loaded / seen.attended_s, 0),
            "node_us": (node_us, 0), "server_us": (server_us, 0), "rss_mb": (seen.rss_mb, 0),
        }  # fmt: skip
        if one.back_s is not None:
            figures["back_s"] = (one.back_s, 1)
        at = {"open": plan.open}
        for name, (value, digits) in figures.items():
            results.add(f"{how}_{name}", [value], setup, digits, at=at)
        results.add_percentiles(f"{how}_new", seen.new_ms, setup, 1, at=at)


class _Round:
    """One node lost. back_s: how long after the paused one went on both had attended to all that was theirs."""

    def __init__(self, mesh: Mesh, open_count: int, how: How, progress: Callable[[str], None]) -> None:
        self._mesh = mesh
        self._how = how
        self._progress = progress
        each = max(1, open_count // len(WAITS_FOR))
        self._ids = {waits_for: [f"{waits_for}-{i}" for i in range(each)] for waits_for in WAITS_FOR}
        self._patience_s = TIMEOUT_S + open_count * PER_WORKFLOW_S
        self._is_over = False
        self.back_s: float | None = None

    async def run(self) -> Recovery:
        mesh = self._mesh
        lost = await mesh.start_node("lost", partitions=PARTITIONS_DEFAULT)
        begun = await mark(mesh.client)
        self._progress(f"{self._how}: starting {sum(map(len, self._ids.values()))} workflows")
        for waits_for, ids in self._ids.items():
            for at in range(0, len(ids), BATCH):
                await start_many(mesh.client, "bench:begun", [waits_for], ids[at : at + BATCH])
        if self._how != "burst":
            await self._wait_settled(begun)
        self._progress(f"{self._how}: losing their node")
        lost.send(signal.SIGSTOP if self._how == "paused" else signal.SIGKILL)
        if self._how != "paused":
            await lost.wait()
            del mesh.nodes[lost.id]
        heir = await mesh.start_node("heir")
        seen = await self._watch(heir)
        if self._how == "paused":
            await self._go_on(lost, heir)
        await self._check()
        for node in mesh.nodes.values():
            node.send(signal.SIGKILL)  # one that leaves waits for its calls, and these are never over
        return seen

    async def _wait_settled(self, begun: Mark) -> None:
        """Wait until all of them wait, and the checkpoint of their node says so."""
        wanted, before = MESSAGES_EACH * sum(map(len, self._ids.values())), -1
        with anyio.move_on_after(self._patience_s):
            while True:
                stored = await messages_of(self._mesh.client, begun)
                if stored >= wanted and stored == before:
                    await anyio.sleep(SETTLE_S)
                    return
                before = stored
                await anyio.sleep(0.5)
        raise BenchFailed(f"the workflows do not all wait after {self._patience_s:g} s: {before} messages are stored")

    async def _watch(self, heir: NodeProcess) -> Recovery:
        """Look at the new owner until it has attended to all, while new workflows come."""
        seen, since = Recovery(), time.perf_counter()
        node_s, server_s = cpu_s(heir.pid), self._server_cpu_s()
        replays = (await self._status(heir))["replays"]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._start_new, seen, since)
            with anyio.move_on_after(self._patience_s):
                while not self._is_over:
                    status, now_s = await self._status(heir), time.perf_counter() - since
                    seen.rss_mb = max(seen.rss_mb, heir.rss_mb())
                    if not seen.owned_s and status["partitions"] == PARTITIONS_DEFAULT:
                        seen.owned_s = now_s
                    if seen.owned_s and not status["catching_up"] and not status["attention"] and seen.first_new_s:
                        seen.attended_s, seen.loaded = now_s, status["replays"] - replays
                        self._is_over = True
                    await anyio.sleep(LOOK_S)
            tasks.cancel_scope.cancel()
        if not self._is_over or not seen.loaded:
            raise BenchFailed(f"not all is attended to after {self._patience_s:g} s: {await self._status(heir)}")
        seen.node_cpu_s, seen.server_cpu_s = cpu_s(heir.pid) - node_s, self._server_cpu_s() - server_s
        return seen

    async def _start_new(self, seen: Recovery, since: float) -> None:
        async with ends(self._mesh.client) as heard:
            for i in count():
                begun = time.perf_counter()
                await start_many(self._mesh.client, "bench:steps", [1], [f"new-{i}"])
                with anyio.move_on_after(NEW_AT_MOST_S) as limit:
                    await heard.wait([f"new-{i}"], self._patience_s)
                seen.new_ms.append((time.perf_counter() - begun) * 1e3)
                if not limit.cancelled_caught:
                    seen.first_new_s = seen.first_new_s or time.perf_counter() - since
                await anyio.sleep(NEW_EVERY_S)

    async def _go_on(self, lost: NodeProcess, heir: NodeProcess) -> None:
        self._progress(f"{self._how}: it goes on")
        lost.send(signal.SIGCONT)
        since = time.perf_counter()
        both: list[dict[str, Any]] = []
        with anyio.move_on_after(self._patience_s):
            while True:
                both = [await self._status(node) for node in (lost, heir)]
                owned = [status["partitions"] for status in both]
                if all(owned) and sum(owned) == PARTITIONS_DEFAULT and not any(map(_is_recovering, both)):
                    self.back_s = time.perf_counter() - since
                    return
                await anyio.sleep(LOOK_S)
        raise BenchFailed(f"the node that was paused has not taken its part back: {both}")

    async def _check(self) -> None:
        """All that wait for something that can be given them end with it, and every call is under way."""
        await self._wait_for_calls()
        ids = self._ids["sleep"] + self._ids["signal"]
        self._progress(f"{self._how}: waking {len(ids)}")
        async with ends(self._mesh.client) as heard:
            for i, workflow_id in enumerate(ids):
                subject = WorkflowKey(QUEUE, workflow_id).signal("wake")
                self._mesh.client.conn.publish_nowait(subject, codec.encode("good morning"))
                if i % 100 == 99:
                    await self._mesh.client.conn.drain_writes()
                    await anyio.sleep(0.01)
            await heard.wait(ids, self._patience_s)

    async def _wait_for_calls(self) -> None:
        """Some may be between two attempts: a node that is paused is sent calls, which are lost."""
        wanted, calls = len(self._ids["call"]), 0
        with anyio.move_on_after(self._patience_s):
            while True:
                calls = sum([(await self._status(node))["calls_in_flight"] for node in self._mesh.nodes.values()])
                if calls >= wanted:
                    return
                await anyio.sleep(LOOK_S)
        raise BenchFailed(f"{calls} of {wanted} calls are under way")

    async def _status(self, node: NodeProcess) -> dict[str, Any]:
        with anyio.move_on_after(TIMEOUT_S):
            while True:
                status = await self._mesh.status(node.id)
                if status is not None:
                    return status
        raise BenchFailed(f"node {node.id} does not answer")

    def _server_cpu_s(self) -> float:
        return sum(cpu_s(pid) for pid in self._mesh.servers.pids)


def _is_recovering(status: dict[str, Any]) -> bool:
    return bool(status["catching_up"] or status["attention"])
