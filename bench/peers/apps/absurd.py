"""Absurd: tasks with checkpointed steps and events, as its README shows; the client is the async one.

Environment: CONCURRENCY, POLL_S and CLAIM_S are the worker's options; the SDK's defaults are 1, 0.25 and 120. THREADS=1
takes its synchronous worker, which runs so many tasks in threads and claims the next one as soon as one has ended; the
async one claims again only when all that it has claimed have ended.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import cycle
from typing import Any

from absurd_sdk import Absurd, AsyncAbsurd

from bench.peers.workload import log_step, main

QUEUE = "bench"
# A client has one connection, and serves one request at a time on it.
CLIENTS = 10


async def step(number: int) -> int:
    return number


async def paced_step(workflow_id: str, number: int, pace_ms: int) -> int:
    log_step(workflow_id, number)
    await asyncio.sleep(pace_ms / 1e3)
    return number


async def steps(params: Any, ctx: Any) -> int:
    count = params["args"][0]
    for i in range(count):
        await ctx.step(f"step {i}", partial(step, i))
    return int(count)


async def waiter(params: Any, ctx: Any) -> Any:
    return await ctx.await_event(f"go:{params['id']}")


async def paced(params: Any, ctx: Any) -> int:
    count, pace_ms = params["args"]
    for i in range(count):
        await ctx.step(f"step {i}", partial(paced_step, params["id"], i, pace_ms))
    return int(count)


def steps_in_thread(params: Any, ctx: Any) -> int:
    count = params["args"][0]
    for i in range(count):
        ctx.step(f"step {i}", lambda i=i: i)
    return int(count)


def waiter_in_thread(params: Any, ctx: Any) -> Any:
    return ctx.await_event(f"go:{params['id']}")


def paced_in_thread(params: Any, ctx: Any) -> int:
    count, pace_ms = params["args"]

    def paced_step(number: int) -> int:
        log_step(params["id"], number)
        time.sleep(pace_ms / 1e3)
        return number

    for i in range(count):
        ctx.step(f"step {i}", partial(paced_step, i))
    return int(count)


class AbsurdDriver:
    def __init__(self, clients: list[AsyncAbsurd]) -> None:
        self._clients = cycle(clients)
        self._tasks: dict[str, str] = {}

    async def run(self, workflow_id: str, kind: str, *args: int) -> Any:
        await self.begin(workflow_id, kind, *args)
        return await self.result(workflow_id)

    async def begin(self, workflow_id: str, kind: str, *args: int) -> None:
        params: Any = {"id": workflow_id, "args": list(args)}
        spawned = await next(self._clients).spawn(kind, params, queue=QUEUE)
        self._tasks[workflow_id] = spawned["task_id"]

    async def signal(self, workflow_id: str, value: str) -> None:
        await next(self._clients).emit_event(f"go:{workflow_id}", value)

    async def result(self, workflow_id: str) -> Any:
        ended = await next(self._clients).await_task_result(self._tasks.pop(workflow_id), timeout=120)
        if ended.state != "completed":
            raise RuntimeError(f"task {workflow_id} is {ended.state}: {ended.failure}")
        return ended.result


async def serve(address: str) -> None:
    options: dict[str, Any] = {
        "concurrency": int(os.environ.get("CONCURRENCY", "1")),
        "poll_interval": float(os.environ.get("POLL_S", "0.25")),
        "claim_timeout": int(os.environ.get("CLAIM_S", "120")),
    }
    if os.environ.get("THREADS"):
        threaded = Absurd(address, queue_name=QUEUE)
        for name, task in (("steps", steps_in_thread), ("waiter", waiter_in_thread), ("paced", paced_in_thread)):
            threaded.register_task(name)(task)
        threaded.start_worker(**options)
        return
    app = AsyncAbsurd(address, queue_name=QUEUE)
    for name, coroutine in (("steps", steps), ("waiter", waiter), ("paced", paced)):
        app.register_task(name)(coroutine)
    await app.start_worker(**options)


@asynccontextmanager
async def connect(address: str) -> AsyncIterator[AbsurdDriver]:
    async with AsyncExitStack() as stack:
        clients = [AsyncAbsurd(address, queue_name=QUEUE) for _ in range(CLIENTS)]
        for client in clients:
            stack.push_async_callback(client.close)
        await clients[0].create_queue(QUEUE)
        yield AbsurdDriver(clients)


if __name__ == "__main__":
    main(serve, connect)
