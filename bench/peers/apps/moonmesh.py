"""The client of moonmesh; its workers are nodes, `python -m node node bench/peers/apps/mesh_app`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import mesh.client
from bench.peers.workload import main

QUEUE = "peers"


class MeshDriver:
    """Starts workflows by the library, as any client would."""

    def __init__(self, client: mesh.client.Client) -> None:
        self._client = client

    async def run(self, workflow_id: str, kind: str, *args: int) -> Any:
        handle = await self._start(workflow_id, kind, *args)
        return await handle.result()

    async def begin(self, workflow_id: str, kind: str, *args: int) -> None:
        await self._start(workflow_id, kind, *args)

    async def signal(self, workflow_id: str, value: str) -> None:
        await self._client.get(workflow_id, queue=QUEUE).signal("go", value)

    async def result(self, workflow_id: str) -> Any:
        return await self._client.get(workflow_id, queue=QUEUE).result()

    async def _start(self, workflow_id: str, kind: str, *args: int) -> mesh.client.WorkflowHandle:
        more = (workflow_id,) if kind == "paced" else ()
        return await self._client.start(f"peers:{kind}", *args, *more, host="peers:worker", id=workflow_id)


@asynccontextmanager
async def connect(address: str) -> AsyncIterator[MeshDriver]:
    """Connect to the server at this address."""
    async with mesh.client.connect(address, name="bench-peers") as client:
        yield MeshDriver(client)


async def serve(_address: str) -> None:
    """Nodes are started by their own command."""
    raise NotImplementedError("start a node instead: python -m node node bench/peers/apps/mesh_app")


if __name__ == "__main__":
    main(serve, connect)
