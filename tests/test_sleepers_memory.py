"""What a node keeps of workflows that sleep: nothing, neither in Python nor in Lua."""

from __future__ import annotations

import gc
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from mesh import codec, events
from mesh.connection import connect
from mesh.events import StartSpec
from mesh.outbox import Outbox
from mesh.starting import new_entropy
from mesh.subjects import stream_name, token, untoken
from tests.apps import QUEUE, TIMEOUT_S, WORKER, Mesh, a_mesh, key, write_app
from tests.conftest import ServerFactory
from tests.waiting import wait_until_async

SLEEPERS = 1000
# A workflow in memory is 20 objects and 50 blocks, and 6,600 bytes in Lua. Python's own spare blocks come and go.
GROWTH_MAX = {"objects": SLEEPERS / 2, "blocks": 2 * SLEEPERS, "lua_bytes": 30 * SLEEPERS}
LEAVE_AT_ONCE = {"sticky_schedule_to_start_timeout": "1ms"}
SLEEPER = 'return function() time.sleep("24h") end'


@contextmanager
def without_collector() -> Iterator[None]:
    """A node's garbage collector hardly ever looks at what has lived for a while; here it never does."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.timeout(150)
async def test_nothing_is_kept_of_workflows_that_have_left_memory(nats_server: ServerFactory, tmp_path: Path) -> None:
    app = write_app(tmp_path, workflows={"sleeper": SLEEPER}, worker_options=LEAVE_AT_ONCE)
    server = nats_server()
    async with a_mesh(server.url, app, resident_max=50) as mesh, an_outbox(server.url) as outbox:
        with without_collector():
            await put_to_sleep(mesh, outbox, 0)
            before = kept(mesh)
            # What is kept of workflows is so each time; what a busy machine leaves, a lease that was lost say, is not.
            for number in range(1, 4):
                await put_to_sleep(mesh, outbox, number * SLEEPERS)
                after = kept(mesh)
                growth = {what: after[what] - before[what] for what in after}
                before = after
                if all(growth[what] < GROWTH_MAX[what] for what in GROWTH_MAX):
                    break
    assert {what: growth[what] < GROWTH_MAX[what] for what in GROWTH_MAX} == dict.fromkeys(GROWTH_MAX, True), growth


@asynccontextmanager
async def an_outbox(url: str) -> AsyncIterator[Outbox]:
    async with connect(url, name="starter") as conn, Outbox(conn) as outbox:
        yield outbox


async def put_to_sleep(mesh: Mesh, outbox: Outbox, first: int) -> None:
    """Start some more; returns when their timers are stored and they have left memory."""
    for i in range(first, first + SLEEPERS):
        spec = StartSpec(workflow="app:sleeper", args=codec.pack([]), host=WORKER, entropy=new_entropy())
        outbox.write(key(f"s-{i}").start(), spec.encode(), {"Nats-Expected-Last-Subject-Sequence": "0"})
        if i % 100 == 99:
            await outbox.room()
    await outbox.flush(2 * TIMEOUT_S)

    async def all_asleep() -> bool:
        stored = (await mesh.client.js.stream_info(stream_name(QUEUE))).messages
        return stored >= (first + SLEEPERS) * len(("start", "timer")) and mesh.statistics()["resident"] == 0

    await wait_until_async(all_asleep, timeout_s=2 * TIMEOUT_S)


def kept(mesh: Mesh) -> dict[str, int]:
    """What there is in this process; without the names that are remembered, which are a limited number."""
    for cached in (token, untoken, events._is_canonical):
        cached.cache_clear()
    vm = mesh.node.engines[QUEUE]._vms._shared
    vm._lua.gccollect()
    return {
        "objects": len(gc.get_objects()), "blocks": sys.getallocatedblocks(), "lua_bytes": vm._memory_used()
    }  # fmt: skip
