"""Temporal: workflows and async activities of `temporalio`, as its developer's guide shows them.

Environment: TUNED=1 uses poller autoscaling, which the worker performance guide recommends, instead of the defaults.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import PollerBehaviorAutoscaling, Worker

with workflow.unsafe.imports_passed_through():
    from bench.peers.workload import log_step, main

TASK_QUEUE = "bench"
# As in the guide's examples; an activity whose worker has died is tried again after it.
LIMIT = timedelta(seconds=10)


@activity.defn
async def step(number: int) -> int:
    return number


@activity.defn
async def paced_step(workflow_id: str, number: int, pace_ms: int) -> int:
    log_step(workflow_id, number)
    await asyncio.sleep(pace_ms / 1e3)
    return number


@workflow.defn(name="steps")
class Steps:
    @workflow.run
    async def run(self, count: int) -> int:
        for i in range(count):
            await workflow.execute_activity(step, i, start_to_close_timeout=LIMIT)
        return count


@workflow.defn(name="waiter")
class Waiter:
    def __init__(self) -> None:
        self._value: str | None = None

    @workflow.run
    async def run(self) -> str:
        await workflow.wait_condition(lambda: self._value is not None)
        return self._value or ""

    @workflow.signal
    def go(self, value: str) -> None:
        self._value = value


@workflow.defn(name="paced")
class Paced:
    @workflow.run
    async def run(self, count: int, pace_ms: int) -> int:
        for i in range(count):
            arguments = [workflow.info().workflow_id, i, pace_ms]
            await workflow.execute_activity(paced_step, args=arguments, start_to_close_timeout=LIMIT)
        return count


class TemporalDriver:
    def __init__(self, client: Client) -> None:
        self._client = client

    async def run(self, workflow_id: str, kind: str, *args: int) -> Any:
        return await self._client.execute_workflow(kind, args=list(args), id=workflow_id, task_queue=TASK_QUEUE)

    async def begin(self, workflow_id: str, kind: str, *args: int) -> None:
        await self._client.start_workflow(kind, args=list(args), id=workflow_id, task_queue=TASK_QUEUE)

    async def signal(self, workflow_id: str, value: str) -> None:
        await self._client.get_workflow_handle(workflow_id).signal("go", value)

    async def result(self, workflow_id: str) -> Any:
        return await self._client.get_workflow_handle(workflow_id).result()


async def serve(address: str) -> None:
    client = await Client.connect(address)
    tuned: dict[str, Any] = {}
    if os.environ.get("TUNED"):
        tuned = {
            "workflow_task_poller_behavior": PollerBehaviorAutoscaling(),
            "activity_task_poller_behavior": PollerBehaviorAutoscaling(),
        }
    workflows = [Steps, Waiter, Paced]
    await Worker(client, task_queue=TASK_QUEUE, workflows=workflows, activities=[step, paced_step], **tuned).run()


@asynccontextmanager
async def connect(address: str) -> AsyncIterator[TemporalDriver]:
    yield TemporalDriver(await Client.connect(address))


if __name__ == "__main__":
    main(serve, connect)
