"""Restate: a workflow service with durable steps (`run_typed`) and a durable promise, as its documentation shows.

The address of a worker is the number of a listening socket that it inherits; workers share it, as replicas behind one
address do. The address of the client is that of the ingress.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import hypercorn
import hypercorn.asyncio
import restate

from bench.peers.workload import log_step, main

# What the documentation's file for production says; None of the defaults would last for the run.
UNLIMITED = 2147483647

steps = restate.Workflow("steps")
waiter = restate.Workflow("waiter")
paced = restate.Workflow("paced")


async def step(number: int) -> int:
    return number


async def paced_step(workflow_id: str, number: int, pace_ms: int) -> int:
    log_step(workflow_id, number)
    await asyncio.sleep(pace_ms / 1e3)
    return number


@steps.main("run")
async def run_steps(ctx: restate.WorkflowContext, args: list[int]) -> int:
    for i in range(args[0]):
        await ctx.run_typed(f"step {i}", step, number=i)
    return args[0]


@waiter.main("run")
async def run_waiter(ctx: restate.WorkflowContext, _args: list[int]) -> str:
    return await ctx.promise("go", type_hint=str).value()


@waiter.handler("go")
async def go(ctx: restate.WorkflowSharedContext, value: str) -> None:
    await ctx.promise("go", type_hint=str).resolve(value)


@paced.main("run")
async def run_paced(ctx: restate.WorkflowContext, args: list[int]) -> int:
    for i in range(args[0]):
        await ctx.run_typed(f"step {i}", paced_step, workflow_id=ctx.key(), number=i, pace_ms=args[1])
    return args[0]


class RestateDriver:
    """Speaks to the ingress over HTTP/2, as the client of the SDK does."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._kinds: dict[str, str] = {}

    async def run(self, workflow_id: str, kind: str, *args: int) -> Any:
        return await self._ask("POST", f"/{kind}/{workflow_id}/run", list(args))

    async def begin(self, workflow_id: str, kind: str, *args: int) -> None:
        self._kinds[workflow_id] = kind
        await self._ask("POST", f"/{kind}/{workflow_id}/run/send", list(args))

    async def signal(self, workflow_id: str, value: str) -> None:
        await self._ask("POST", f"/waiter/{workflow_id}/go", value)

    async def result(self, workflow_id: str) -> Any:
        return await self._ask("GET", f"/restate/workflow/{self._kinds[workflow_id]}/{workflow_id}/attach")

    async def _ask(self, verb: str, path: str, body: Any = None) -> Any:
        response = await self._client.request(verb, path, json=body if verb == "POST" else None)
        response.raise_for_status()
        return response.json() if response.content else None


async def serve(address: str) -> None:
    app = restate.app(services=[steps, waiter, paced])
    config = hypercorn.Config()
    config.bind = [f"fd://{address}"]
    config.h2_max_concurrent_streams = UNLIMITED
    config.keep_alive_max_requests = UNLIMITED
    config.keep_alive_timeout = UNLIMITED
    await hypercorn.asyncio.serve(app, config)


@asynccontextmanager
async def connect(address: str) -> AsyncIterator[RestateDriver]:
    async with httpx.AsyncClient(base_url=address, http2=True, timeout=120) as client:
        yield RestateDriver(client)


if __name__ == "__main__":
    main(serve, connect)
