"""Nodes that cannot start: what they have done up to then is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

from mesh.client import connect
from mesh.errors import RequestTimeout
from node.node import Node, NodeConfig, running_node
from node.registry import load_registry
from store.streams import ensure_queue
from tests.apps import QUEUE, key, write_app
from tests.conftest import ServerFactory


async def test_a_node_that_cannot_start_writes_what_it_has_done_first(
    nats_server: ServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes calls before all is up; an outcome that is not written has its call made again."""
    url = nats_server().url
    app = write_app(tmp_path, workflows={"order": "return function() end"})

    async def run(self: Node, *, task_status: anyio.abc.TaskStatus[Any] = anyio.TASK_STATUS_IGNORED) -> None:
        self.outbox.write(key("x").signal("done"), b"1")
        raise RequestTimeout("a consumer", 5.0)

    monkeypatch.setattr(Node, "run", run)

    async def make_stream_later(client: Any) -> None:
        await anyio.sleep(0.3)  # the outbox has been told by then that there is none
        await ensure_queue(client.js, QUEUE, partitions=1)

    async with connect(url) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(make_stream_later, client)
        with pytest.raises(RequestTimeout, match="a consumer"):
            async with running_node(NodeConfig(url, node_id="a"), load_registry(app, environ={})):
                pass
        message = await client.js.get_last("WF_orders", key("x").stored(0, "signal", "done"))
        assert message is not None
