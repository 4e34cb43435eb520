"""Services on real nodes: started at boot, started again, on every node or on exactly one of the mesh."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import mesh.client
from mesh.client import Client
from mesh.errors import RequestTimeout
from node.services.services import BootFailed
from node.services.supervision import State
from tests.apps import a_mesh, write_app
from tests.cluster import NodeProcess, a_node
from tests.conftest import ServerFactory
from tests.waiting import wait_until, wait_until_async

LIFECYCLE = {"auto_start": True, "stop_timeout": "2s", "restart": {"initial_delay": "10ms", "max_delay": "20ms"}}

SINGLE = """
return { main = function(name)
  process.registry.register(name, process.registry.CONSISTENT)
  local inbox, events = process.inbox(), process.events()
  while true do
    local r = channel.select{ inbox:case_receive(), events:case_receive() }
    if r.channel == events then return end
    if r.value:topic() == "fail" then error("told to") end
    process.send(r.value:from(), "pid", process.pid())
  end
end }
"""

FUNCTIONS = {
    "whois": "return { main = function(name) return (process.registry.lookup(name)) end }",
    "tell": "return { main = function(name, topic) return process.send(name, topic) end }",
}


def service(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "name": name, "kind": "process.service", "process": "app:single", "host": "app:processes", "input": [name],
        "lifecycle": LIFECYCLE, **fields,
    }  # fmt: skip


@asynccontextmanager
async def two_nodes(app: Path, url: str) -> AsyncIterator[tuple[Client, dict[str, NodeProcess]]]:
    async with (
        a_node(app, url, node_id="a") as a,
        a_node(app, url, node_id="b") as b,
        mesh.client.connect(url) as client,
    ):
        yield client, {"a": a, "b": b}


async def runs_on(client: Client, node_id: str) -> bool:
    """Whether the service `s` is found on a node. A question that went to a node just before it died is never answered."""
    try:
        found = await client.call("app:whois", "s", timeout_s=0.5)
    except RequestTimeout:
        return False
    return found is not None and found.startswith("{" + node_id + "@")


async def test_a_service_that_fails_is_started_again_and_one_that_returns_is_not(
    tmp_path: Path, nats_server: ServerFactory
) -> None:
    app = write_app(tmp_path, processes={"single": SINGLE}, functions=FUNCTIONS, entries=[service("s")])
    async with a_mesh(nats_server().url, app) as mesh:
        first = await mesh.client.call("app:whois", "s")
        await mesh.client.call("app:tell", "s", "fail")
        (found,) = mesh.node.services.statistics()
        await wait_until(lambda: mesh.node.services.statistics()[0].starts == 2)
        await wait_until(lambda: mesh.node.services.statistics()[0].state is State.RUNNING)
        second = await mesh.client.call("app:whois", "s")
        assert second not in (None, first)
        assert found.id == "app:s"
        await mesh.node.services.stop("app:s")
        (found,) = mesh.node.services.statistics()
        assert (found.state, found.starts) == (State.STOPPED, 2)
        assert await mesh.client.call("app:whois", "s") is None


@pytest.mark.parametrize(
    "once",
    [
        pytest.param("while true do end", id="an endless loop"),
        pytest.param("local t = {} for i = 1, 1e9 do t[i] = { i } end", id="too much memory in one step"),
        pytest.param("for i = 1, 1e9 do time.after('1h') end", id="too much asked for without waiting"),
        pytest.param(
            "kept = {} for i = 1, 40 do kept[i] = ('x'):rep(10000000 + i) time.sleep('1ms') end inbox:receive()",
            id="too much memory held",
        ),
    ],
)
async def test_a_service_that_was_stopped_by_its_limits_is_started_again(
    tmp_path: Path, nats_server: ServerFactory, once: str
) -> None:
    """What runs away once need not do so the next time: the limits say nothing of `retryable`, so the restart rules decide."""
    runs_away_when_told = SINGLE.replace(
        'if r.value:topic() == "fail" then error("told to") end', f'if r.value:topic() == "fail" then {once} end'
    ).replace("return {", "local time = require('time') return {", 1)
    app = write_app(tmp_path, processes={"single": runs_away_when_told}, functions=FUNCTIONS, entries=[service("s")])
    async with a_mesh(nats_server().url, app) as mesh:
        first = await mesh.client.call("app:whois", "s")
        await mesh.client.call("app:tell", "s", "fail")
        await wait_until(lambda: mesh.node.services.statistics()[0].starts == 2, 30)
        await wait_until(lambda: mesh.node.services.statistics()[0].state is State.RUNNING)
        assert await mesh.client.call("app:whois", "s") not in (None, first)
        await mesh.node.services.stop("app:s")


async def test_a_required_service_that_does_not_start_fails_the_boot(
    tmp_path: Path, nats_server: ServerFactory
) -> None:
    broken = service("s", lifecycle={**LIFECYCLE, "restart": {"max_attempts": 1}})
    app = write_app(tmp_path, processes={"single": "error('no luck')"}, entries=[broken])
    with pytest.raises(BootFailed, match=r"app:s.*single.lua:1: no luck"):
        async with a_mesh(nats_server().url, app):
            pass


@pytest.mark.parametrize("how", ["dies", "leaves"])
async def test_a_service_with_placement_one_runs_once_and_moves_when_its_node_is_gone(
    tmp_path: Path, nats_server: ServerFactory, how: str
) -> None:
    app = write_app(
        tmp_path, processes={"single": SINGLE}, functions=FUNCTIONS, entries=[service("s", placement="one")]
    )
    async with two_nodes(app, nats_server().url) as (client, nodes):
        pid = ""

        async def is_there() -> bool:
            nonlocal pid
            pid = await client.call("app:whois", "s") or ""
            return pid != ""

        await wait_until_async(is_there)
        holder = pid[1:].partition("@")[0]
        if how == "dies":
            nodes[holder].kill()
        else:
            assert await nodes[holder].terminate() == 0

        await wait_until_async(lambda: runs_on(client, "b" if holder == "a" else "a"))


async def test_a_service_with_placement_each_runs_on_both_nodes(tmp_path: Path, nats_server: ServerFactory) -> None:
    local = SINGLE.replace(
        "name, process.registry.CONSISTENT", "name .. process.pid():sub(2, 2), process.registry.CONSISTENT"
    )
    app = write_app(tmp_path, processes={"single": local}, functions=FUNCTIONS, entries=[service("s")])
    async with two_nodes(app, nats_server().url) as (client, _):

        async def run_on_both() -> bool:
            return [str(await client.call("app:whois", name))[:3] for name in ("sa", "sb")] == ["{a@", "{b@"]

        await wait_until_async(run_on_both)
