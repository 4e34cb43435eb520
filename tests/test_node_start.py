"""Nodes that cannot start: what they have done up to then is written, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import anyio.abc
import pytest

import mesh.roster
import node.node
import node.units.names
from mesh.client import connect
from mesh.errors import RequestTimeout
from node.node import Node, NodeConfig, running_node
from node.registry import load_registry
from store.streams import ensure_queue
from tests.apps import QUEUE, WORKER, a_mesh, key, write_app
from tests.conftest import ServerFactory
from tests.waiting import wait_until

begun: list[int] = []
CALLS_ONCE = """
return function()
  local value, err = funcs.new():with_options{retry_policy = {maximum_attempts = 1}}:call("app:hold", 1)
  return err and err:kind() or value
end
"""


async def hold(number: int) -> None:
    """Begin, and never end."""
    begun.append(number)
    await anyio.sleep_forever()


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


@pytest.mark.slow
async def test_what_a_node_that_cannot_start_was_doing_has_no_outcome(
    nats_server: ServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes calls before all is up, and ends with them under way: whether they have done anything nobody knows."""
    url = nats_server().url
    hold_entry = {"kind": "function.python", "source": "tests.test_node_start:hold"}
    app = write_app(tmp_path, workflows={"order": CALLS_ONCE}, functions={"hold": hold_entry})
    begun.clear()

    async def run_consumers(*_: Any, **__: Any) -> None:
        await client.start("app:order", host=WORKER, id="order-1")
        await wait_until(lambda: begun == [1])
        raise RequestTimeout("a consumer", 5.0)

    async with connect(url) as client:
        monkeypatch.setattr(node.node, "run_consumers", run_consumers)
        with pytest.raises(RequestTimeout, match="a consumer"):
            async with running_node(NodeConfig(url, node_id="a", partitions=1), load_registry(app, environ={})):
                pass
        monkeypatch.undo()
        history = await client.get("order-1", queue=QUEUE).history()
        assert [event.kind for event in history] == ["start", "claim"]
        async with a_mesh(url, app) as mesh:
            assert await mesh.get("order-1").result(timeout_s=20) == "UnknownOutcome"
    assert begun == [1]


@pytest.mark.parametrize("followed_by", [mesh.roster, node.units.names], ids=["roster", "names"])
async def test_a_node_whose_server_falls_silent_while_it_starts_says_so_as_of_any_other_silence(
    nats_server: ServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, followed_by: ModuleType
) -> None:
    """That is waited for, and not taken for an error of the node's own."""
    monkeypatch.setattr(followed_by, "READY_S", 0.0)
    app = write_app(tmp_path, workflows={"order": "return function() end"})
    with pytest.raises(RequestTimeout, match=r"no answer to KV_mesh_(roster|names)"):
        async with a_mesh(nats_server().url, app):
            pass


def test_what_most_nodes_do_not_need_is_not_imported_by_their_start() -> None:
    """Importing is most of a start, and with it of what a takeover by a new node waits for."""
    code = "import sys, node.cli.nodes, node.logs, node.node, node.process_settings; print(*sorted(sys.modules.keys() & set(sys.argv)))"
    needless = (
        "cryptography", "http.cookiejar", "http.server", "httpx2", "jsonschema", "opentelemetry", "prometheus_client",
        "sqlite_utils",
    )  # fmt: skip
    said = subprocess.run(
        [sys.executable, "-c", code, *needless], capture_output=True, text=True, check=True, timeout=50
    )
    assert said.stdout.split() == []
