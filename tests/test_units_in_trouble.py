"""Live units when servers go away, nodes stand still, others talk nonsense, and values do not fit: told once, never lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

import mesh.client
from mesh import codec
from mesh.client import FunctionFailed
from mesh.failure import Failure, Kind
from mesh.subjects import node_request
from node.offers import Offers
from node.units.spawn_request import SpawnRequest
from tests.apps import Mesh, a_mesh, write_app
from tests.cluster import NodeProcess, a_node
from tests.conftest import ServerFactory
from tests.test_process_limits import MORE, functions, held
from tests.waiting import wait_until, wait_until_async

PROCESSES = {
    **MORE,
    "large": "return { main = function(n) return string.rep('x', n) end }",
    "large_error": "return { main = function(n) error(string.rep('x', n)) end }",
    "linked": """
        return { main = function(to)
          process.set_options{ trap_links = true }
          local ok, err = process.link(to)
          local ev = process.events():receive()
          return { ok, ev.kind }
        end }""",
}


@asynccontextmanager
async def caller_and_host(app: Path, url: str) -> AsyncIterator[tuple[Mesh, Mesh]]:
    """Two nodes: one that runs the function `t` only, and one that runs the processes."""
    async with (
        a_mesh(url, app, node_id="b", offers=Offers(without=("app:t", "app:u"))) as b,
        a_mesh(url, app, node_id="a", settled=False, offers=Offers(only=("app:t", "app:u")), workflows=False) as a,
    ):
        await wait_until(lambda: len(a.node.roster.members()) == 2 and len(b.node.roster.members()) == 2)
        yield a, b


@asynccontextmanager
async def a_call_from_one_node_to_another(app: Path, url: str) -> AsyncIterator[tuple[Mesh, NodeProcess, list[Any]]]:
    """A call of `t` is under way on a node that runs nothing else; all else is a process beside it. And its results."""
    async with (
        a_mesh(url, app, node_id="a", offers=Offers(only=("app:t",)), workflows=False, settled=False) as a,
        a_node(app, url, node_id="b", arguments=("--without", "app:t")) as b,
        anyio.create_task_group() as tasks,
    ):
        given: list[Any] = []

        async def ask() -> None:
            given.append(await a.client.call("app:t"))

        await wait_until(lambda: len(a.node.roster.members()) == 2)
        tasks.start_soon(ask)
        yield a, b, given


async def two_nodes_give(tmp_path: Path, url: str, body: str) -> Any:
    app = write_app(tmp_path, processes=PROCESSES, functions=functions(body))
    async with caller_and_host(app, url) as (a, _):
        with anyio.fail_after(40):
            return await a.client.call("app:t")


async def test_a_result_too_large_for_the_server_is_told_as_an_error(
    tmp_path: Path, nats_server: ServerFactory
) -> None:
    body = """
      local value, err = process.exec("app:large", HOST, 2000000)
      local pid = process.spawn_linked_monitored("app:large", HOST, 2000000)
      local ev = receive(process.events(), "end")
      process.set_options{ trap_links = true }
      process.spawn_linked_monitored("app:large_error", HOST, 2000000)
      local one, two = receive(process.events(), "exit"), receive(process.events(), "down")
      return { value == nil, err:kind(), ev.from == pid, ev.result.error:kind(), one.kind, two.kind }"""
    found = await two_nodes_give(tmp_path, nats_server().url, body)
    assert found == [True, "Invalid", True, "Invalid", "pid.exit", "pid.link.down"]


async def test_what_is_too_large_for_the_server_is_refused_between_nodes_and_not_within_one(
    tmp_path: Path, nats_server: ServerFactory
) -> None:
    body = """
      local s = string.rep("x", 2000000)
      local pid = process.spawn("app:waits", HOST)
      local _, e1 = process.send(pid, "x", s)
      local _, e2 = process.spawn("app:waits", HOST, s)
      process.send(process.pid(), "x", s)
      return { e1:kind(), e2:kind(), #process.listen("x"):receive(), e1:retryable() }"""
    assert await two_nodes_give(tmp_path, nats_server().url, body) == ["Invalid", "Invalid", 2000000, False]


async def test_many_watchers_of_one_end_are_all_told(tmp_path: Path, nats_server: ServerFactory) -> None:
    body = """
      local pid = process.spawn("app:waits", HOST)
      local n, done = 1000, 0
      local funcs = require("funcs")
      local futures = {}
      for i = 1, n do futures[i] = funcs.async("app:u", pid) end
      receive(process.listen("go"), "go")
      process.terminate(pid)
      for i = 1, n do
        local p = futures[i]:channel():receive()
        if p and p:data() == "pid.exit" then done = done + 1 end
      end
      return done"""
    watch = "return { main = function(pid) process.monitor(pid) return process.events():receive().kind end }"
    many: dict[str, Any] = {**functions(body), "u": {"source": watch, "pool": {"size": 2000}}}
    app = write_app(tmp_path, processes=PROCESSES, functions=many)
    async with caller_and_host(app, nats_server().url) as (a, b):
        links, got = b.node.switchboard.links, []

        async def ask() -> None:
            got.append(await a.client.call("app:t"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await wait_until(lambda: sum(map(len, links._monitors.values())) == 1000, 30)
            (asker,) = [pid for pid, unit in a.node.units.by_pid.items() if unit.entry_id == "app:t"]
            a.node.units.deliver(asker, "go", True)
        assert got == [1000]
        assert not links._monitors


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        pytest.param(call, expected, id=call)
        for call, expected in {
            r"process.send('\xff\xfe', 'x')": "NotFound",
            r"process.send(string.rep('x', 9000), 'x')": "NotFound",
            r"process.send('{a@\xff|0x1}', 'x')": "NotFound",
            r"process.send('{|}', 'x')": "NotFound",
            r"process.send('{zz@app:h|0x0000000000001}', 'x')": "NotFound",
            r"process.send(process.pid(), '\xff', 1)": "fine",
            r"process.send('a.b*c> d', 'x')": "NotFound",
            r"process.registry.register('\xff', process.registry.STRONG)": "fine",
            r"process.registry.register(string.rep('x', 250), process.registry.STRONG)": "fine",
            r"process.registry.register(string.rep('x', 251), process.registry.STRONG)": "Invalid",
            r"process.registry.register('a.b*c> d', process.registry.EVENTUAL)": "fine",
            r"process.registry.register('x', '{|\xff}')": "Invalid",
            r"process.registry.lookup('\xff')": "NotFound",
            r"process.registry.lookup(string.rep('\xff', 9000))": "Invalid",
            r"process.registry.unregister('\xff', process.registry.STRONG)": "fine",
            r"process.monitor('{a:b@c:d|\xff}')": "fine",
            r"process.monitor(string.rep('x', 9000))": "NotFound",
            r"process.cancel('\xff')": "NotFound",
            r"process.terminate('{b@app:processes|0x1}')": "Internal",
            r"process.spawn('\xff:x', HOST)": "NotFound",
            r"process.spawn('app:waits', '\xff')": "NotFound",
            r"process.spawn(string.rep('x', 9000), string.rep('y', 9000))": "Invalid",
            r"process.with_options({}):with_name('\xff'):spawn('app:waits', HOST)": "fine",
            r"process.with_options({}):with_name(string.rep('x', 9000)):spawn('app:waits', HOST)": "fine",
            r"require('funcs').call('app:' .. string.rep('x', 9000))": "Invalid",
            r"require('funcs').call('app:\xff')": "NotFound",
            r"require('funcs').call('a b:c d')": "NotFound",
        }.items()
    ],
)  # fmt: skip
async def test_no_text_that_units_use_as_an_address_harms_the_node(
    tmp_path: Path, nats_server: ServerFactory, call: str, expected: str
) -> None:
    body = f"local v, err = {call} return {{ err and err:kind() or 'fine', process.exec('app:adder', HOST, 1, 2) }}"
    app = write_app(tmp_path, processes=PROCESSES, functions=functions(body))
    async with a_mesh(nats_server().url, app) as mesh:
        epoch = mesh.node.conn.epoch
        with anyio.fail_after(30):
            assert await mesh.client.call("app:t") == [expected, 3]
        assert mesh.node.conn.epoch == epoch


NONSENSE: list[Any] = [
    None, 5, [], ["send"], ["send", 1, 2, 3, 4, 5], ["what"], ["send", "", "{a@app:processes|0x1}", "x", [1], ""],
    ["spawn", "", "app:waits", "app:processes", 7, "", [], False, False],
    ["spawn", "", "app:waits", "app:processes", b"\xc1\x92\x05\xc0", "", [], False, False],
    ["spawn", "", "app:waits", "app:processes", b"", "", [["x", 5]], False, False],
    ["spawn", "", 5, "app:processes", b"\xc1\x92\x90\xc0", "", [], False, False],
    ["ended", "{b@app:processes|0x1}", b"\xc1\x93", [["{a@app:processes|0x1}", True]]],
    ["ended", "{b@app:processes|0x1}", 5, [["x", True]]], ["monitor", [], {}], ["link", 5, 6], ["cancel", 1, "x", 2],
    ["deliver", "{a@app:processes|0x1}", [["x", 5]]], ["deliver", {}, 5], ["register", "n", "{a@app:processes|0x1}", 9], ["terminate", "{a:b@c:d|x}"], ["unlink", 1],
]  # fmt: skip


async def test_nonsense_from_other_nodes_is_refused(tmp_path: Path, nats_server: ServerFactory) -> None:
    app = write_app(tmp_path, processes=PROCESSES, functions=functions("return process.exec('app:adder', HOST, 1, 2)"))
    async with a_mesh(nats_server().url, app) as mesh:
        before = held(mesh.node)
        conn = mesh.client.conn
        for wire in NONSENSE:
            reply = await conn.request(node_request("a", "unit"), codec.encode(wire), timeout_s=15)
            ok, failure = codec.decode_outcome(reply.data)
            assert not ok, wire
            assert failure.kind in (Kind.INVALID, Kind.INTERNAL, Kind.NOT_FOUND), (wire, failure)
        conn.publish_nowait(node_request("a", "unit"), b"\xc1\xc1")
        assert await mesh.client.call("app:t") == 3
        await wait_until(lambda: held(mesh.node) == before)


async def test_a_process_that_fails_before_it_is_told_whom_it_has_spawned_takes_what_is_linked_with_it(
    tmp_path: Path, nats_server: ServerFactory
) -> None:
    body = """
      coroutine.spawn(function() process.spawn_linked_monitored("app:waits", HOST) end)
      coroutine.spawn(function() error("at once") end)
      process.inbox():receive()"""
    app = write_app(tmp_path, processes=PROCESSES, functions=functions(body))
    async with caller_and_host(app, nats_server().url) as (a, b):
        with pytest.raises(mesh.client.FunctionFailed, match="at once"):
            await a.client.call("app:t")
        await wait_until(lambda: b.node.units._last_unique > 0)
        await wait_until(lambda: b.node.processes.running == 0)
        assert not b.node.switchboard.links._links
        assert not b.node.switchboard.links._monitors


async def test_what_was_asked_of_a_node_that_is_lost_is_answered_and_forgotten(
    tmp_path: Path, nats_server: ServerFactory
) -> None:
    body = """
      local pid = process.spawn("app:waits", HOST)
      receive(process.listen("stopped"), "stopped")
      local _, err = process.send(pid, "x")
      return err:kind()"""
    url = nats_server().url
    app = write_app(tmp_path, processes=PROCESSES, functions=functions(body))
    async with a_call_from_one_node_to_another(app, url) as (a, b, given):
        board, units = a.node.switchboard, a.node.units
        await wait_until(lambda: units.by_pid and board._peers._waiting.get("b") == {})
        b.stop()
        units.deliver(next(iter(units.by_pid)), "stopped", True)
        await wait_until(lambda: given, 20)
        assert given == ["NotFound"]
        await wait_until(lambda: a.node.conn.statistics().requests_in_flight == 0)


async def test_a_name_whose_holder_cannot_be_reached_is_not_given_to_another_process(
    tmp_path: Path, nats_server: ServerFactory
) -> None:
    body = """
      local s = process.with_options({}):with_name("n"):with_message("x", string.rep("x", 2000000))
      local pid = process.with_options({}):with_name("n"):spawn("app:waits", HOST)
      local _, err = s:spawn("app:waits", HOST)
      return { err:kind(), process.registry.lookup("n") == pid }"""
    assert await two_nodes_give(tmp_path, nats_server().url, body) == ["Invalid", True]


async def test_exec_under_a_name_that_is_taken_waits_for_the_process_that_has_it(
    tmp_path: Path, nats_server: ServerFactory
) -> None:
    body = """
      local s = process.with_options({}):with_name("n")
      local pid = s:spawn("app:echo", HOST)
      coroutine.spawn(function() time.sleep("50ms") process.send(pid, "stop", "mine") end)
      return s:exec("app:adder", HOST, 1, 2)"""
    assert await two_nodes_give(tmp_path, nats_server().url, body) == "mine"


async def test_a_call_that_is_cancelled_before_it_begins_or_while_it_computes_is_told_so(
    tmp_path: Path, nats_server: ServerFactory
) -> None:
    slow = """return { main = function()
      local n = 0
      for i = 1, 3e7 do n = n + i % 7 end
      return process.events():receive().kind
    end }"""
    body = """
      local funcs = require("funcs")
      local first = funcs.async("app:slow")
      local second = funcs.async("app:slow")
      second:cancel()
      time.sleep("20ms")
      first:cancel()
      return "asked" """
    app = write_app(tmp_path, functions={**functions(body), "slow": {"source": slow, "pool": {"size": 1}}})
    async with a_mesh(nats_server().url, app) as mesh:
        assert await mesh.client.call("app:t") == "asked"
        assert mesh.node.functions is not None
        host = mesh.node.functions
        await wait_until(lambda: host.running == 0, 30)
        assert host._functions["app:slow"].running == 0


async def test_an_end_while_the_server_is_away_is_told_once_when_it_is_back(
    tmp_path: Path, nats_server: ServerFactory
) -> None:
    """Also to whoever comes back to the server later than the other one."""
    body = """
      process.set_options{ trap_links = true }
      local pid = process.spawn_linked_monitored("app:waits", HOST)
      process.registry.register("n", pid)
      local one = process.events():receive()
      local two = receive(process.events(), "second")
      local r = channel.select{ process.events():case_receive(), time.after("1s"):case_receive() }
      process.registry.register(one.kind .. two.kind .. (r.value.kind and "more" or ""))
      process.inbox():receive()"""
    server = nats_server()
    app = write_app(tmp_path, processes=PROCESSES, functions=functions(body))
    async with caller_and_host(app, server.url) as (a, b), anyio.create_task_group() as tasks:

        async def ask() -> None:
            await a.node.live.calls.call("app:t", codec.encode([[], None]))

        tasks.start_soon(ask)
        board = b.node.switchboard
        # The name is given when the answer to the spawn has come: without it there would be nobody to be told of.
        await wait_until(lambda: board.links._links and a.node.naming.local.get("n"))
        (unit,) = b.node.processes.units
        server.kill()
        await wait_until(lambda: not b.node.conn.is_connected and not a.node.conn.is_connected)
        unit.kill(Failure("oops", Kind.INTERNAL))
        await anyio.sleep(1.0)  # as long as it takes: the notice is repeated all the while
        assert len(board._peers._waiting.get("a", {})) <= 1
        server.start()
        await wait_until(lambda: a.node.naming.local.get("pid.exitpid.link.down"), 20)
        assert a.node.switchboard.links._links == {}
        tasks.cancel_scope.cancel()


async def test_names_are_asked_for_and_given_while_the_server_is_away_without_harm_to_the_node(
    tmp_path: Path, nats_server: ServerFactory
) -> None:
    server = nats_server()
    asks = """return { main = function(to)
      process.registry.register("asks")
      local _, err = process.registry.lookup("nobody")
      local _, gone = process.send("nobody else", "x")
      process.registry.register("was refused")
      local ok = process.registry.register("mine", process.registry.STRONG)
      local found = process.registry.lookup("mine") == process.pid()
      process.registry.unregister("mine", process.registry.STRONG)
      return { err:kind(), gone:kind(), ok, found, process.registry.lookup("mine") == nil }
    end }"""
    app = write_app(tmp_path, processes={**PROCESSES, "asks": asks})
    async with a_mesh(server.url, app) as mesh:
        server.sigstop()
        ends: list[bytes] = []
        watcher = mesh.node.units.new_watcher(ends.append)
        mesh.node.spawning.spawn(
            watcher.pid, SpawnRequest("app:asks", "app:processes", codec.encode([[], None]), monitor=True),
            lambda _outcome: None,
        )  # fmt: skip
        await wait_until(lambda: mesh.node.naming.local.get("asks"))
        await anyio.sleep(0.2)
        server.kill()
        await wait_until(lambda: mesh.node.naming.local.get("was refused"))
        server.start()
        await wait_until(lambda: ends, 20)
        assert codec.decode_outcome(ends[0]) == (True, ["Unavailable", "Unavailable", True, True, True])
        await wait_until(lambda: mesh.node.units.by_pid == {})


async def test_a_node_that_stood_still_for_longer_than_its_lease_and_the_others_agree_that_links_have_broken(
    tmp_path: Path, nats_server: ServerFactory
) -> None:
    """Both ends of a link hear of it, once; the process that lives on can be talked to afterwards."""
    body = """
      process.set_options{ trap_links = true }
      local pid = process.spawn_monitored("app:linked", HOST, process.pid())
      process.registry.register("zombie", process.registry.STRONG)
      local ev = process.events():receive()
      local kinds = { ev.kind, ev.result.error and ev.result.error:kind() }
      local second = receive(process.events(), "link")
      kinds[#kinds + 1] = second.kind
      local r = channel.select{ process.events():case_receive(), time.after("6s"):case_receive() }
      kinds[#kinds + 1] = type(r.value) == "table" and r.value.kind or "nothing more"
      local late = process.spawn("app:echo", HOST)
      kinds[#kinds + 1] = late ~= nil
      return kinds"""
    url = nats_server().url
    app = write_app(tmp_path, processes=PROCESSES, functions=functions(body))
    async with a_call_from_one_node_to_another(app, url) as (a, b, given):

        async def linked_there() -> bool:
            """The end that asked for the link has its answer: one that has not is told that the link is not made."""
            wish = codec.encode({"entry": "app:linked"})
            reply = await a.client.conn.request(node_request("b", "processes"), wish, timeout_s=15)
            return [shown["links"] for shown in codec.decode(reply.data)["shown"]] == [1]

        await wait_until_async(linked_there)
        b.stop()
        await wait_until(lambda: len(a.node.roster.members()) == 1)
        b.cont()
        await wait_until(lambda: given, 30)
        assert given[0] == ["pid.exit", "Unavailable", "pid.link.down", "nothing more", True]
        async with mesh.client.connect(url) as client:
            status = codec.decode((await client.conn.request(node_request("b", "status"), timeout_s=15)).data)
        assert status["processes"] == 1  # `linked` has been told, too, and has returned; the echo is there


@pytest.mark.parametrize("before", ["", "time.sleep('1ms')"], ids=["at once", "after a wait"])
async def test_a_call_that_the_node_fails_at_is_answered(
    tmp_path: Path, nats_server: ServerFactory, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    """An error of our own while carrying out what a call asked for must not leave its caller waiting for ever."""

    def broken(*_args: object, **_who: object) -> None:
        raise RuntimeError("no such thing")

    monkeypatch.setattr("node.units.live.log_line", broken)
    say = f"return {{ main = function() {before} print('x') return 5 end }}"
    app = write_app(tmp_path, functions={"say": say, "quiet": "return { main = function() return 5 end }"})
    async with a_mesh(nats_server().url, app) as mesh_:
        with anyio.fail_after(40):
            with pytest.raises(FunctionFailed) as caught:
                await mesh_.client.call("app:say")
            assert caught.value.failure.kind == Kind.INTERNAL
            assert caught.value.failure.message == "the node failed at this call: no such thing"
            assert await mesh_.client.call("app:quiet") == 5
