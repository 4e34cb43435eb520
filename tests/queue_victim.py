"""A node with one consumer whose handler never ends, as a process to be killed: `python -m tests.queue_victim URL APP`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio

from mesh.connection import connect
from mesh.jetstream import JetStream
from node.modules.queue import QueueModule
from node.registry import load_registry


async def call(_function: str, args: list[Any], _context: Mapping[str, Any]) -> bytes:
    print("got", args[0], flush=True)
    await anyio.sleep_forever()
    return b""


async def main(url: str, app: str) -> None:
    async with connect(url, name="victim") as conn:
        queues = QueueModule(load_registry(Path(app), environ={}), JetStream(conn), node_id="victim", call=call)
        await queues.consume("app:worker")


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2])
