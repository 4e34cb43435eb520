"""What there is on the mesh: nodes, functions, services and processes, as records and as people see them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from mesh import codec
from mesh.client import Client
from mesh.connection import connect
from mesh.errors import NotFound
from mesh.subjects import node_request
from node.api import directory
from node.inventory import PROCESSES_SHOWN_MAX
from node.micro import MicroService
from tests.apps import Mesh, a_mesh, write_app
from tests.commands import typed
from tests.conftest import ServerFactory
from tests.waiting import wait_until_async

ACTOR = """
return function(name)
  local process, time = require("process"), require("time")
  if name then process.registry.register(name) end
  if name == "parent" then
    process.with_options({}):spawn_linked_monitored("app:actor", "app:processes")
  end
  process.listen("stop"):receive()
end
"""
PYTHON = """
import threading
gate = threading.Event()
def hold(n):
    gate.wait(30)
    return n
"""
ORDER = "return function(n) return funcs.call('app:hold', n) end"
BROKEN = "return function() error('the till is stuck') end"


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    directory_ = write_app(
        tmp_path / "app",
        workflows={"order": ORDER},
        functions={
            "double": "return function(n) return 2 * n end",
            "broken": BROKEN,
            "hold": {"kind": "function.python", "source": "directory_functions:hold"},
            "pay": {"kind": "function.nats", "subject": "payments.pay"},
        },
        processes={
            "actor": {"source": ACTOR, "modules": ["process", "time"]},
            "keeper": {"source": "return function() require('process').events():receive() end", "modules": ["process"]},
        },
        entries=[
            {
                "name": "kept", "kind": "process.service", "process": "app:keeper", "host": "app:processes",
                "lifecycle": {"auto_start": True},
            }
        ],
    )  # fmt: skip
    (directory_ / "directory_functions.py").write_text(PYTHON)
    monkeypatch.syspath_prepend(str(directory_))
    yield directory_
    sys.modules.pop("directory_functions", None)


def let_go() -> None:
    """Let the calls of `hold` return."""
    importlib.import_module("directory_functions").gate.set()


async def spawned(mesh: Mesh, *args: Any) -> str:
    """Spawn the actor on the node and return its PID."""
    from node.units.spawn_request import SpawnRequest

    wish = SpawnRequest("app:actor", "app:processes", codec.encode([list(args), None]))
    ok, pid = codec.decode_outcome(mesh.node.spawning.spawn_here("", wish))
    assert ok, pid
    return str(pid)


async def test_functions_services_processes_and_nodes(
    nats_server: ServerFactory, app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One mesh, looked at from all sides: by the records and by the commands that print them."""
    # For so long services that are not ours are listened to: a busy machine leaves out what comes later.
    monkeypatch.setattr(directory, "FOREIGN_S", 1.0)
    url = nats_server().url
    async with a_mesh(url, app) as mesh, connect(url, name="payments") as foreign:
        payments = MicroService(foreign, name="payments", version="1.0.0", description="Payments", metadata={})
        paid = payments.add("pay", "payments.pay", "q")
        paid.note(0.5, failed=False, outcome=b"")
        payments.add("refund", "payments.refund", "q")
        payments.start()
        await foreign.flush()
        for n in range(3):
            assert await mesh.client.call("app:double", n) == 2 * n
        with pytest.raises(Exception, match="the till is stuck"):
            await mesh.client.call("app:broken")
        await mesh.start("order", 1, id="o-1")
        parent = await spawned(mesh, "parent")
        listener = mesh.node.units.get(parent)
        assert listener is not None
        for n in range(5):
            mesh.node.units.deliver(parent, "unread", n)

        async def all_is_under_way() -> bool:
            found = await directory.processes(mesh.client)
            running = [record["state"] for record in await directory.services(mesh.client)] == ["Running"]
            return running and len(found) == 4 and any(record["workflow"] for record in found)

        await wait_until_async(all_is_under_way)

        functions = {record["function"]: record for record in await directory.functions(mesh.client)}
        assert list(functions) == ["app:broken", "app:double", "app:hold", "app:pay", "payments:refund"]
        double = functions["app:double"]
        assert double | {"average_s": 0.0} == {
            "function": "app:double", "kind": "lua", "nodes": ["a"], "instances": 1, "calls": 3, "errors": 0,
            "average_s": 0.0, "in_flight": 0, "waiting": 0, "last_error": None, "subject": None, "service": None,
        }  # fmt: skip
        assert 0.0 < double["average_s"] < 1.0
        assert (functions["app:broken"]["calls"], functions["app:broken"]["errors"]) == (1, 1)
        assert "the till is stuck" in functions["app:broken"]["last_error"]
        assert (functions["app:hold"]["kind"], functions["app:hold"]["in_flight"]) == ("python", 1)
        pay = functions["app:pay"]
        assert (pay["kind"], pay["nodes"], pay["service"], pay["calls"], pay["average_s"]) == (
            "nats", [], "payments", 1, 0.5,
        )  # fmt: skip

        found = await directory.processes(mesh.client)
        by_entry = {record["entry"]: record for record in found if record["pid"] != parent}
        call = by_entry["app:hold"]
        assert (call["kind"], call["pid"], call["state"]) == ("call", None, "running")
        assert call["workflow"] | {"run": 0} == {"queue": "orders", "id": "o-1", "run": 0, "op": 1, "attempt": 1}
        [its] = [record for record in found if record["pid"] == parent]
        assert (its["names"], its["mailbox"], its["parent"], its["monitors"], its["links"]) == (
            ["parent"],
            5,
            None,
            1,
            1,
        )
        child = by_entry["app:actor"]
        assert (child["parent"], child["monitored_by"], child["links"], child["mailbox"]) == (parent, 1, 1, 0)
        assert by_entry["app:keeper"]["service"] == "app:kept"
        assert its["started"] <= child["started"]
        assert found == sorted(found, key=lambda record: str(record["started"]))

        [longest, *_] = await directory.processes(mesh.client, order="mailbox")
        assert longest["pid"] == parent
        newest = await directory.processes(mesh.client, order="newest", entry="app:a*")
        assert [record["pid"] for record in newest] == [child["pid"], parent]
        page = await directory.process_page(mesh.client, limit=1)
        assert (len(page.records), page.total, page.silent) == (1, 4, [])
        with pytest.raises(NotFound, match="no node 'b' is up; there are: a"):
            await directory.processes(mesh.client, node="b")

        [service] = await directory.services(mesh.client)
        assert (service["service"], service["node"], service["state"], service["starts"]) == (
            "app:kept", "a", "Running", 1,
        )  # fmt: skip
        assert service["pid"] == by_entry["app:keeper"]["pid"]
        [node] = await directory.nodes(mesh.client)
        assert (node["node"], node["state"], node["queues"], node["calls"], node["processes"]) == (
            "a", "up", {"orders": 4}, 1, 3,
        )  # fmt: skip
        assert node["memory_bytes"] > 10_000_000
        assert node["uptime_s"] > 0

        printed = await typed("functions", url=url)
        rows = {line.split()[0]: line.split() for line in printed.out.splitlines()}
        assert rows["FUNCTION"] == ["FUNCTION", "KIND", "NODES", "CALLS", "ERRORS", "AVERAGE", "IN", "FLIGHT", "WAITING",
                                    "LAST", "ERROR"]  # fmt: skip
        assert rows["app:double"][:5] == ["app:double", "lua", "a", "3", "0"]
        assert rows["app:pay"][2:4] == ["service", "payments"]
        done = await typed("ps", "--entry", "app:hold", "--json", url=url)
        [record] = done.records()
        assert record | {"age_s": 0.0, "started": ""} == call | {"age_s": 0.0, "started": ""}
        limited = await typed("ps", "-n", "2", url=url)
        assert len(limited.out.splitlines()) == 3
        assert limited.err == "2 of 4 are shown; --limit shows more\n"
        assert "workflow o-1 op 1" in (await typed("ps", url=url)).out
        typo = await typed("ps", "--node", "aa", url=url)
        assert (typo.status, typo.err) == (1, "mesh: no node 'aa' is up; did you mean a?\n")
        assert (await typed("services", url=url)).out.splitlines()[1].split()[:4] == [
            "app:kept",
            "a",
            "Running",
            "1",
        ]
        let_go()


async def test_a_node_with_ten_thousand_processes_answers_some_and_says_how_many(
    nats_server: ServerFactory, app: Path
) -> None:
    """And its event loop goes on meanwhile: calls are given up, and nodes taken for gone, that are silent for a second."""
    async with a_mesh(nats_server().url, app) as mesh:
        first = await spawned(mesh)
        for n in range(9_999):
            await spawned(mesh)
            if n % 50 == 0:
                await anyio.lowlevel.checkpoint()  # the node has its lease to renew
        page = await directory.process_page(mesh.client, limit=100_000)
        assert page.total == 10_001, "with that of the service"
        assert len(page.records) == PROCESSES_SHOWN_MAX
        assert first in [record["pid"] for record in page.records]
        # The best of three: what the machine does to all of us comes and goes, what the node does to itself is in each.
        slowest_s = [await _slowest_ping(mesh.client) for _ in range(3)]
        assert min(slowest_s) < 1.0, f"pings took up to {slowest_s} s"


async def _slowest_ping(client: Client) -> float:
    """The longest that a ping takes while all processes are asked for."""
    slowest_s = 0.0
    done = anyio.Event()

    async def ask() -> None:
        await directory.process_page(client, order="started")
        await directory.process_page(client, order="mailbox")
        done.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        while not done.is_set():
            before = anyio.current_time()
            await client.conn.request(node_request("a", "ping"), b"", timeout_s=5)
            slowest_s = max(slowest_s, anyio.current_time() - before)
    return slowest_s


def test_functions_of_several_nodes_are_added_up() -> None:
    """Calls, errors and time of all nodes; a function in somebody's app that nobody offers has no node."""

    def offered(calls: int, busy_s: float) -> dict[str, Any]:
        return {
            "id": "app:f",
            "kind": "lua",
            "offered": True,
            "calls": calls,
            "errors": 1,
            "busy_s": busy_s,
            "in_flight": 2,
        }

    left_out = {"id": "app:g", "kind": "python", "offered": False}
    [f, g] = directory.function_records({"a": [offered(1, 1.0), left_out], "b": [offered(3, 2.0)]}, [])
    assert (f["nodes"], f["instances"], f["calls"], f["errors"], f["in_flight"]) == (["a", "b"], 2, 4, 2, 4)
    assert f["average_s"] == 0.75
    assert (g["function"], g["nodes"], g["instances"], g["average_s"]) == ("app:g", [], 0, None)


async def test_who_may_not_ask_nodes_gets_the_same_from_the_control_api(nats_server: ServerFactory, app: Path) -> None:
    """A client of few rights: only mesh.api and its own inbox."""
    config = """
    accounts { A { jetstream: enabled, users: [
      {user: node, password: p},
      {user: few, password: p, permissions: {publish: "mesh.api.>", subscribe: "_INBOX.>"}}
    ] } }
    """
    url = nats_server(config=config).url
    async with a_mesh(url.replace("//", "//node:p@"), app) as mesh:
        await mesh.client.call("app:double", 1)
        few = url.replace("//", "//few:p@")
        for command, key, names in (
            ("nodes", "node", {"a"}),
            ("functions", "function", {"app:broken", "app:double", "app:hold", "app:pay"}),
            ("services", "service", {"app:kept"}),
            ("ps", "entry", {"app:keeper"}),
        ):
            done = await typed(command, "--json", url=few)
            assert done.status == 0, done.err
            assert {record[key] for record in done.records()} == names, command
        let_go()
