"""Calls of short functions stay on the node that makes them: nobody but the server's load can tell the difference."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, ClassVar

import pytest

import mesh.client
from mesh import codec
from mesh.events import HEADER_NODE, HEADER_TOOK
from mesh.subjects import claim_of_ret, function_request, stream_name
from node.functions.at_home import REQUEST_BYTES_MAX, SHORT_S, TRIP_S, TURN_S, AtHome
from node.functions.call_headers import HEADER_RUN_ONCE
from node.functions.job import Function, Job
from node.machine.code import CodeMissing
from tests.apps import QUEUE, WORKER, Mesh, a_mesh, key, write_app
from tests.cluster import a_node
from tests.conftest import ServerFactory
from tests.waiting import wait_until, wait_until_async

pytestmark = pytest.mark.timeout(180)  # many commands and nodes, each a process to start

WORKFLOWS = {
    "many": """return function(count)
      local sum = 0
      for i = 1, count do sum = sum + assert(funcs.call('app:short', i)) end
      return sum
    end""",
    "once": """return function(count)
      local once = funcs.new():with_options{ retry_policy = { maximum_attempts = 1 } }
      for i = 1, count do assert(once:call('app:short', i)) end
      return count
    end""",
    "wide": """return function(count)
      local futures = {}
      for i = 1, count do futures[i] = funcs.async('app:long', i) end
      for i = 1, count do assert(futures[i]:response():receive()) end
      return count
    end""",
    "measured": "return function(size) local _, err = funcs.call('app:length', string.rep('x', size)); return tostring(err) end",
    "failing": """return function(count)
      local errors = {}
      for i = 1, count do local _, err = funcs.call('app:fails', i); errors[i] = err:message() end
      return errors
    end""",
}
WARM_UP = 20  # calls, until how long they take is known well
FUNCTIONS: dict[str, Any] = {
    "short": "return { main = function(x) return x end }",
    "length": "return { main = function(text) return #text end }",
    "long": "return { main = function(x) local s = 0; for i = 1, 20000 do s = s + i end; return s end }",
    "fails": "return { main = function(x) return nil, errors.new{message = 'no ' .. x, retryable = false} end }",
}


class Requests:
    """The requests of functions that went through the server."""

    def __init__(self, mesh: Mesh) -> None:
        self.seen: list[str] = []
        mesh.client.conn.subscribe_direct("mesh.fn.>", lambda subject, *_: self.seen.append(subject))
        self._mesh = mesh

    async def count(self) -> int:
        await self._mesh.client.conn.flush()
        return len(self.seen)


async def test_the_calls_of_a_short_function_need_no_request_once_it_is_known_to_be_short(
    tmp_path: Path, nats_server: ServerFactory
) -> None:
    async with a_mesh(nats_server().url, write_app(tmp_path, workflows=WORKFLOWS, functions=FUNCTIONS)) as m:
        requests = Requests(m)
        await m.client.conn.flush()
        await m.run("many", WARM_UP)
        before = await requests.count()
        assert before > 0, "nobody knew yet"
        assert await m.run("many", 20, id="m") == 210
        assert await requests.count() == before

        # What is recorded, counted and told about them is what it always was.
        assert await m.kinds("m") == ["start", *["ret"] * 20, "end"]
        outcomes = [event for event in await m.events("m") if event.kind == "ret"]
        assert {event.headers[HEADER_NODE] for event in outcomes} == {"a"}
        assert all(float(event.headers[HEADER_TOOK]) < 1000 for event in outcomes)
        assert m.node.functions is not None
        function = m.node.functions.functions["app:short"]
        assert sum(function.counts.completed.counts) == sum(function.counts.waits.counts) == 20 + WARM_UP
        stats = json.loads((await m.client.conn.request("$SRV.STATS.moonmesh", timeout_s=5)).data)
        (endpoint,) = [e for e in stats["endpoints"] if e["subject"] == "mesh.fn.app.short"]
        assert endpoint["num_requests"] == 20 + WARM_UP
        await wait_until(lambda: m.node.functions is not None and m.node.functions.running == 0)

        # Its failures come home as well; a function that has failed is begun anew, so it is asked for by request.
        assert await m.run("failing", 3) == ["no 1", "no 2", "no 3"]


async def test_a_call_that_may_run_once_is_claimed_at_home_too(tmp_path: Path, nats_server: ServerFactory) -> None:
    async with a_mesh(nats_server().url, write_app(tmp_path, workflows=WORKFLOWS, functions=FUNCTIONS)) as m:
        requests = Requests(m)
        await m.client.conn.flush()
        await m.run("many", WARM_UP)
        before = await requests.count()
        assert await m.run("once", 4, id="o") == 4
        assert await requests.count() == before
        assert await m.kinds("o") == ["start", *["claim", "ret"] * 4, "end"]
        claims = [event for event in await m.events("o") if event.kind == "claim"]
        assert {event.data for event in claims} == {b"a"}


async def test_a_claim_whose_acknowledgement_was_lost_is_still_the_host_s_own(
    tmp_path: Path, nats_server: ServerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written again after a reconnect, and refused because of its own first copy; nothing has run by then."""
    async with a_mesh(nats_server().url, write_app(tmp_path, workflows=WORKFLOWS, functions=FUNCTIONS)) as m:
        conn = m.node.conn
        publish = conn.publish_nowait

        def publish_twice(subject: str, payload: bytes = b"", reply: str = "", *rest: Any, **options: Any) -> None:
            if ".claim." in subject:
                publish(subject, payload, "", *rest, **options)
            publish(subject, payload, reply, *rest, **options)

        monkeypatch.setattr(conn, "publish_nowait", publish_twice)
        assert await m.run("once", 1, id="o") == 1
        assert await m.kinds("o") == ["start", "claim", "ret", "end"]

        # One that somebody else was given stays that one's, whoever that is: a node of this name before it restarted.
        ret = key("other").ret(1, 1, 1, "ab")
        await m.client.js.publish(claim_of_ret(ret), b"a")
        host = m.node.functions
        assert host is not None
        counts = host.functions["app:short"].counts
        assert sum(counts.waits.counts) == sum(counts.completed.counts) == 1
        request = codec.encode([[1], None])
        m.client.conn.publish_nowait(function_request("app:short"), request, ret, {HEADER_RUN_ONCE: "1"})
        await wait_until(lambda: sum(counts.waits.counts) == 2 and not host.jobs)
        assert sum(counts.completed.counts) == 1


async def test_long_functions_are_shared_with_the_other_nodes(tmp_path: Path, nats_server: ServerFactory) -> None:
    app, url = write_app(tmp_path, workflows=WORKFLOWS, functions=FUNCTIONS), nats_server().url
    async with a_mesh(url, app) as m, a_mesh(url, app, node_id="b", settled=False) as other:
        assert other.node.functions is not None
        await m.run("wide", 200)
        await m.run("wide", 200)
        theirs = other.node.functions.functions["app:long"].counts.completed.counts
        assert 100 < sum(theirs) < 300, "about half of them"


async def test_what_is_possible_does_not_depend_on_where_a_call_runs(
    tmp_path: Path, nats_server: ServerFactory
) -> None:
    async with a_mesh(nats_server().url, write_app(tmp_path, workflows=WORKFLOWS, functions=FUNCTIONS)) as m:
        assert await m.run("measured", 10) == "nil"
        assert await m.run("measured", 2 * 1024 * 1024) == "nil", "sent as an object, or handed over"


async def test_a_host_that_leaves_passes_on_what_it_took_and_did_not_begin(
    tmp_path: Path, nats_server: ServerFactory
) -> None:
    app, url = write_app(tmp_path, workflows=WORKFLOWS, functions=FUNCTIONS), nats_server().url
    async with a_mesh(url, app) as m, a_mesh(url, app, node_id="b", settled=False) as other:
        assert m.node.functions is not None
        assert other.node.functions is not None
        function = m.node.functions.functions["app:short"]
        while sum(function.counts.completed.counts) < WARM_UP:
            await m.client.call("app:short", 1)  # on either of them
        request, ret = codec.encode([[5], None]), key("w").ret(1, 1, 1, "ab")
        assert m.node.functions.take("app:short", ret, request, None, once=False)
        assert m.node.functions.take("app:short", ret, request, None, once=False), "the same call again"
        assert [job.identity for job in m.node.functions.jobs] == [ret], "whoever asks after it is answered"
        # In this very turn of the loop, before it can begin.
        await m.node.functions.drain(5)
        assert function.counts.passed_on == 1
        assert not m.node.functions.take("app:short", ret, request, None, once=False), "it takes no more"
        await wait_until_async(lambda: _is_recorded(m, ret))


async def _is_recorded(m: Mesh, ret: str) -> bool:
    """Whether the outcome of a call is in the stream, from node b."""
    stored = ret.replace("mesh.wf.orders.", "mesh.log.orders.*.")
    message = await m.client.js.get_next(stream_name(QUEUE), 1, stored)
    return message is not None and f"{HEADER_NODE}: b".encode() in (message.raw_headers or b"")


async def test_no_call_is_lost_or_counted_twice_when_the_node_that_runs_its_own_is_killed(
    tmp_path: Path, nats_server: ServerFactory
) -> None:
    """Each of the calls that it had taken has an outcome in the end, and the workflow goes by the first one."""
    app = write_app(tmp_path, workflows=WORKFLOWS, functions=FUNCTIONS)
    server = nats_server(sync_interval="always")
    workflows, steps = 16, 150
    async with (
        mesh.client.connect(server.url) as client,
        a_node(app, server.url, node_id="a") as a,
        a_node(app, server.url, node_id="b"),
    ):
        handles = [await client.start("app:many", steps, host=WORKER, id=f"w{n}") for n in range(workflows)]
        stream = stream_name(QUEUE)

        async def under_way() -> bool:
            return (await client.js.stream_info(stream)).messages > workflows * steps // 4

        await wait_until_async(under_way, 30)
        a.kill()
        for handle in handles:
            assert await handle.result(timeout_s=60) == steps * (steps + 1) // 2
        ran_by: set[str] = set()
        for handle in handles:
            outcomes = [event for event in await handle.history() if event.kind == "ret"]
            succeeded = [event for event in outcomes if event.data.startswith(codec.SUCCESS_PREFIX)]
            assert {int(event.args[1]) for event in succeeded} == set(range(1, steps + 1))
            ran_by |= {event.headers[HEADER_NODE] for event in succeeded}
        assert ran_by == {"a", "b"}


class _NoRunner:
    kind: ClassVar = "lua"

    def start(self, job: Job) -> None:
        raise CodeMissing("nothing is run here")


def test_what_takes_no_longer_than_a_request_stays_up_to_a_turn_s_worth_of_it() -> None:
    function = Function("app:f", _NoRunner(), 1, 1)
    home = AtHome()
    assert not home.may_stay(math.inf, 10), "nobody knows how long it takes"
    assert home.may_stay(TRIP_S, 10), "it is done before a request would have arrived"
    assert not home.may_stay(TRIP_S * 1.01, 10)
    assert home.may_stay(SHORT_S, REQUEST_BYTES_MAX)
    assert not home.may_stay(SHORT_S, REQUEST_BYTES_MAX + 1)
    taken = 0
    while home.may_stay(SHORT_S, 10):
        home.add(Job(function, f"r{taken}", b"", False, f"r{taken}"), SHORT_S)
        taken += 1
    assert taken == pytest.approx(TURN_S / SHORT_S, abs=1)
    assert not home.may_stay(SHORT_S * 2.5, 10), "there is something to wait for already"
    assert [job.reply for job in home.take_all()] == [f"r{i}" for i in range(taken)]
    assert home.may_stay(SHORT_S, 10)
