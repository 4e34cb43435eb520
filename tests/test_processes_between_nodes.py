"""Processes and their names, monitors and links between nodes, and what is left when a node dies."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import mesh.client
from node.node import NodeIdInUse
from node.offers import Offers
from tests.apps import a_mesh, write_app
from tests.cluster import a_node
from tests.conftest import ServerFactory
from tests.test_processes import PRELUDE, PROCESSES
from tests.waiting import wait_until

WATCHER = (
    PRELUDE
    + """
return { main = function(name)
  process.set_options{ trap_links = true }
  local pid = process.spawn_linked_monitored("app:echo", HOST)
  process.registry.register(name, pid, process.registry.CONSISTENT)
  process.registry.register(name .. "-local", pid)
  process.send(pid, "x", "here")
  receive(process.inbox(), "answer")
  local funcs = require("funcs")
  funcs.call("app:report", { pid = pid, found = process.registry.lookup(name) })
  local one, two = receive(process.events(), "event"), receive(process.events(), "event")
  local left, err = process.registry.lookup(name)
  local alias = process.registry.lookup(name .. "-local")
  local ok, gone = process.send(pid, "x")
  return { one.kind, two.kind, one.result.error:kind(), left == nil, alias == nil, gone:kind(), one.from == pid }
end }"""
)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(
            """local pid = process.spawn("app:echo", HOST)
            for i = 1, 20 do process.send(pid, "x", i) end
            local got = {}
            for i = 1, 20 do got[i] = receive(process.inbox(), "answer"):payload():data() end
            return { pid:match("^{(%w+)@"), table.concat(got, " ") }""",
            ["b", " ".join(str(i) for i in range(1, 21))],
            id="messages come in order",
        ),
        pytest.param(
            """process.set_options{ trap_links = true }
            local pid = process.spawn_linked_monitored("app:echo", HOST)
            process.registry.register("n", pid, process.registry.STRONG)
            local taken, err = process.registry.register("n", nil, process.registry.STRONG)
            process.send("n", "fail", "oops")
            local one, two = receive(process.events(), "event"), receive(process.events(), "event")
            local left = process.registry.lookup("n")
            return { err:kind(), one.kind, two.kind, tostring(two.result.error), left == nil }""",
            ["AlreadyExists", "pid.exit", "pid.link.down", "echo.lua:7: oops", True],
            id="names go before EXIT, EXIT before LINK_DOWN",
        ),
        pytest.param(
            """local s = process.with_options({}):with_name("me"):with_message("x", 1)
            local pid = s:spawn_monitored("app:echo", HOST)
            local found = process.registry.lookup("me")
            local again = s:spawn("app:adder", HOST)
            process.send("me", "stop", 9)
            local ev = receive(process.events(), "event")
            return { found == pid, again == pid, ev.result.value, process.registry.lookup("me") == nil }""",
            [True, True, 9, True],
            id="a name given at the spawn is known to the spawner",
        ),
        pytest.param(
            """local pid = process.spawn("app:echo", HOST)
            local first, again = process.monitor(pid), { process.monitor(pid) }
            process.terminate(pid)
            local ev = receive(process.events(), "event")
            local late = { process.monitor(pid) }
            local send = { process.send(pid, "x") }
            return { first, tostring(again[2]):match("^already monitoring pid"), tostring(ev.result.error),
              tostring(late[2]):match("^pid not registered"), send[2]:kind() }""",
            [True, "already monitoring pid", "process terminated", "pid not registered", "NotFound"],
            id="monitors and terminate",
        ),
        pytest.param("return process.exec('app:adder', HOST, 2, 3)", 5, id="exec"),
        pytest.param(
            """local pid = process.spawn("app:echo", HOST)
            process.registry.register("n", pid, process.registry.CONSISTENT)
            process.send("n", "stop", 1) -- not watched from here
            local deadline = time.now():add("5s")
            while process.registry.lookup("n") and time.now():before(deadline) do time.sleep("5ms") end
            return { process.registry.lookup("n") == nil }""",
            [True],
            id="a name that another node gave goes with the process",
        ),
    ],
)
async def test_callers_and_hosts_on_different_nodes(
    tmp_path: Path, nats_server: ServerFactory, body: str, expected: Any
) -> None:
    app = write_app(
        tmp_path, processes=PROCESSES, functions={"t": f"{PRELUDE} return {{ main = function() {body} end }}"}
    )
    url = nats_server().url
    async with (
        a_mesh(url, app, node_id="b", offers=Offers(without=("app:t",))),
        a_mesh(url, app, node_id="a", settled=False, offers=Offers(only=("app:t",)), workflows=False) as a,
    ):
        await wait_until(lambda: len(a.node.roster.members()) == 2)
        assert await a.client.call("app:t") == expected


async def test_a_node_does_not_start_under_the_id_of_one_that_runs(tmp_path: Path, nats_server: ServerFactory) -> None:
    app = write_app(tmp_path, processes=PROCESSES)
    url = nats_server().url
    async with a_mesh(url, app, node_id="a"):
        with pytest.raises(NodeIdInUse, match="a node 'a' runs on this mesh already"):
            async with a_mesh(url, app, node_id="a", settled=False):
                pass
    async with a_mesh(url, app, node_id="a"):
        pass


async def test_the_death_of_a_node_is_told_within_a_second(tmp_path: Path, nats_server: ServerFactory) -> None:
    """Monitors get EXIT with an error, links LINK_DOWN, names are free."""
    report = {"kind": "function.nats", "subject": "test.report", "source": ""}
    app = write_app(
        tmp_path, processes=PROCESSES, functions={"t": WATCHER, "report": {k: v for k, v in report.items() if v}}
    )
    took_s: list[float] = []
    # The best of three: a machine that has other things to do when it counts tells nothing of us.
    while not took_s or (took_s[-1] >= 1.0 and len(took_s) < 3):
        took_s.append(await until_a_death_is_told(app, nats_server().url))
    assert took_s[-1] < 1.0, took_s


async def until_a_death_is_told(app: Path, url: str) -> float:
    """Kill the node of a process that is watched; how many seconds later all was told."""
    async with (
        a_node(app, url, node_id="b", arguments=("--without", "app:t")) as b,
        a_node(app, url, node_id="a", arguments=("--only", "app:t", "--only", "app:report")),
        mesh.client.connect(url) as client,
    ):
        died: list[float] = []

        def on_report(_subject: str, reply: str, _data: bytes, _headers: bytes | None) -> None:
            b.kill()
            died.append(time.monotonic())
            client.conn.publish_nowait(reply, b"1")

        client.conn.subscribe_direct("test.report", on_report)
        result = await client.call("app:t", "n", timeout_s=20)
        told = time.monotonic()
        assert result == ["pid.exit", "pid.link.down", "Unavailable", True, True, "NotFound", True]
        return told - died[0]
