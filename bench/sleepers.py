"""Very many workflows asleep: what a node and the server hold in memory, and how quickly one of them wakes."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Final

import anyio

from bench.load import STREAM, ends, start_many
from bench.processes import QUEUE, BenchFailed, Mesh, rss_mb, running_mesh
from mesh import codec
from mesh.server import Sync
from mesh.subjects import WorkflowKey
from store.streams import PARTITIONS_DEFAULT

NAP: Final = "24h"
BATCH: Final = 5000
# A sleeping workflow is two messages: its start and the timer that the server has for it.
MESSAGES_EACH: Final = 2
PER_WORKFLOW_S: Final = 0.005
IDLE_S: Final = 8.0  # a quiet run stays in memory for five seconds
SEED: Final = 1


async def measure(sync: Sync, count: int, wakes: int, progress: Callable[[str], None]) -> dict[str, float]:
    """Put `count` workflows to sleep, look at the memory, wake some; then the same with a node that takes them over."""
    choice = random.Random(SEED)
    async with running_mesh(sync) as mesh:
        first = await mesh.start_node("sleep-1", partitions=PARTITIONS_DEFAULT)
        begun = time.perf_counter()
        await _put_to_sleep(mesh, count, progress)
        asleep_s = time.perf_counter() - begun
        progress("waiting until those that nothing happens to have left memory")
        await anyio.sleep(IDLE_S)
        before = await _status(mesh, first.id)
        progress("waking some")
        woken = choice.sample(range(count), min(2 * wakes, count))
        half = len(woken) // 2 or 1
        figures = {
            "asleep_per_s": round(count / asleep_s, 0),
            "resident": before["resident"],
            "evictions": before["evictions"],
            "replays": before["replays"],
            "node_rss_mb": round(first.rss_mb(), 1),
            "server_rss_mb": round(rss_mb(mesh.server.pid), 1),
            "store_mb": round(await anyio.to_thread.run_sync(_size_mb, mesh.directory / "store"), 1),
        }
        wakes_ms = [await _wake_ms(mesh, _name(i)) for i in woken[:half]]
        figures |= {"wake_p50_ms": round(median(wakes_ms), 2), "wake_max_ms": round(max(wakes_ms), 2)}

        progress("handing all of them over to a fresh node")
        await mesh.end_node(first.id)
        begun = time.perf_counter()
        second = await mesh.start_node("sleep-2", partitions=PARTITIONS_DEFAULT)
        figures["fresh_node_s"] = round(time.perf_counter() - begun, 2)
        # What it has to look at after a takeover is loaded by then.
        await anyio.sleep(2)
        figures["fresh_node_resident"] = (await _status(mesh, second.id))["resident"]
        figures["fresh_node_rss_mb"] = round(second.rss_mb(), 1)
        wakes_ms = [await _wake_ms(mesh, _name(i)) for i in woken[half:] or woken[:0]]
        if wakes_ms:
            figures["fresh_node_wake_p50_ms"] = round(median(wakes_ms), 2)
    return figures


async def _put_to_sleep(mesh: Mesh, count: int, progress: Callable[[str], None]) -> None:
    before = (await mesh.client.js.stream_info(STREAM)).messages
    for at in range(0, count, BATCH):
        await start_many(mesh.client, "bench:sleeper", [NAP], [_name(i) for i in range(at, min(at + BATCH, count))])
        if at % (4 * BATCH) == 0:
            progress(f"{min(at + BATCH, count)} started")
    with anyio.move_on_after(30 + count * PER_WORKFLOW_S):
        while True:
            if (await mesh.client.js.stream_info(STREAM)).messages - before >= count * MESSAGES_EACH:
                return
            await anyio.sleep(0.05)
    raise BenchFailed(f"not all of {count} workflows have fallen asleep: {await mesh.status('sleep-1')}")


async def _wake_ms(mesh: Mesh, workflow_id: str) -> float:
    """From publishing a signal until its end is heard, as any client would; the end must be a good one."""
    key = WorkflowKey(QUEUE, workflow_id)
    async with ends(mesh.client) as heard:
        begun = time.perf_counter()
        mesh.client.conn.publish_nowait(key.signal("wake"), codec.encode("good morning"))
        await heard.wait([workflow_id], 30)
        taken_ms = (time.perf_counter() - begun) * 1e3
    result = await mesh.client.get(workflow_id, queue=QUEUE).result(timeout_s=10)
    if result != {"woken": True}:
        raise BenchFailed(f"workflow {workflow_id} returned {result}")
    return taken_ms


async def _status(mesh: Mesh, node_id: str) -> dict[str, float]:
    status = await mesh.status(node_id)
    if status is None:
        raise BenchFailed(f"node {node_id} does not answer")
    return status


def _name(i: int) -> str:
    return f"s-{i}"


def _size_mb(directory: Path) -> float:
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file()) / 1e6
