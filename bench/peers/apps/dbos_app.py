"""DBOS: async workflows and steps, started in the process that runs them, as its tutorial shows.

There is no other server than the database, so client and worker are one process. Without its Conductor, workflows of a
process that died are recovered when a process with the same executor id is started.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from dbos import DBOS, DBOSConfig, SetWorkflowID

from bench.peers.workload import log_step, main


@DBOS.step()
async def step(number: int) -> int:
    return number


@DBOS.step()
async def paced_step(workflow_id: str, number: int, pace_ms: int) -> int:
    log_step(workflow_id, number)
    await asyncio.sleep(pace_ms / 1e3)
    return number


@DBOS.workflow()
async def steps(count: int) -> int:
    for i in range(count):
        await step(i)
    return count


@DBOS.workflow()
async def waiter() -> Any:
    return await DBOS.recv_async("go", timeout_seconds=600)


@DBOS.workflow()
async def paced(count: int, pace_ms: int) -> int:
    for i in range(count):
        await paced_step(DBOS.workflow_id or "", i, pace_ms)
    return count


WORKFLOWS: dict[str, Any] = {"steps": steps, "waiter": waiter, "paced": paced}


class DbosDriver:
    def __init__(self) -> None:
        self._handles: dict[str, Any] = {}

    async def run(self, workflow_id: str, kind: str, *args: int) -> Any:
        await self.begin(workflow_id, kind, *args)
        return await self.result(workflow_id)

    async def begin(self, workflow_id: str, kind: str, *args: int) -> None:
        with SetWorkflowID(workflow_id):
            self._handles[workflow_id] = await DBOS.start_workflow_async(WORKFLOWS[kind], *args)

    async def signal(self, workflow_id: str, value: str) -> None:
        await DBOS.send_async(workflow_id, value, topic="go")

    async def result(self, workflow_id: str) -> Any:
        handle = self._handles.pop(workflow_id, None) or await DBOS.retrieve_workflow_async(workflow_id)
        return await handle.get_result()


def _launch(address: str) -> None:
    config: DBOSConfig = {
        "name": "bench", "system_database_url": address, "executor_id": "bench-1", "application_version": "1",
        "log_level": "WARNING",
    }  # fmt: skip
    DBOS(config=config)
    DBOS.launch()


async def serve(address: str) -> None:
    """A process that recovers what another one has left, and goes on with it."""
    _launch(address)
    await asyncio.Event().wait()


@asynccontextmanager
async def connect(address: str) -> AsyncIterator[DbosDriver]:
    _launch(address)
    try:
        yield DbosDriver()
    finally:
        DBOS.destroy()


if __name__ == "__main__":
    main(serve, connect)
