"""Calls of functions by clients, and what they hear when the node that has the call is no more."""

from __future__ import annotations

import json
import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

import mesh.client
from mesh import codec
from mesh.buckets import Bucket
from mesh.client import FunctionFailed
from mesh.connection import Connection, Reply, connect
from mesh.errors import NoResponders, RequestTimeout
from mesh.failure import HOST_LOST, Failure
from mesh.roster import BUCKET
from mesh.subjects import function_request, function_who
from node.workflows.calls import ask_again_s
from node.workflows.engine import Engine
from tests.apps import QUEUE, a_mesh, write_app
from tests.cluster import a_node
from tests.conftest import ServerFactory
from tests.waiting import wait_until

SLEEPS = """
return { main = function(seconds)
  require("logger"):info("it has begun")
  require("time").sleep(seconds * 1000000000)
  return seconds
end }"""


BLOCKED: list[bool] = []


@pytest.mark.parametrize("others", [False, True], ids=["nobody else offers it", "another node does"])
async def test_a_client_hears_soon_that_the_node_with_its_call_was_killed(
    tmp_path: Path, nats_server: ServerFactory, others: bool
) -> None:
    app = write_app(tmp_path, functions={"sleeps": {"source": SLEEPS, "modules": ["time", "logger"]}})
    url = nats_server().url
    failures: list[Failure] = []
    async with mesh.client.connect(url) as client, a_node(app, url, node_id="a") as a:

        async def call() -> None:
            with pytest.raises(FunctionFailed) as caught:
                await client.call("app:sleeps", 60)
            failures.append(caught.value.failure)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await wait_until(lambda: "it has begun" in a.log())
            async with a_node(app, url, node_id="b") if others else nullcontext():
                a.kill()
                killed_s = time.monotonic()
                await wait_until(lambda: failures)
                assert time.monotonic() - killed_s < 8  # it would be waited for for a minute
    assert failures == [Failure("the host that ran app:sleeps is gone", HOST_LOST, retryable=True)]


async def block_the_engine(_text: str) -> str:
    """A function after which the engine of its node handles nothing that comes in, until `BLOCKED` is cleared."""
    BLOCKED.append(True)
    return "done"


FAILED: list[bool] = []


async def fail_once() -> str:
    """A function of which the first attempt fails."""
    if not FAILED:
        FAILED.append(True)
        raise ConnectionError("not this time")
    return "done"


async def test_a_call_is_not_taken_for_lost_while_its_outcome_waits_to_be_read(
    tmp_path: Path, nats_server: ServerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An owner that has just been given thousands of starts reads outcomes seconds after their hosts are done with them.

    To record each of these calls as lost made it write more than there was to read, and each history longer.
    """
    monkeypatch.setattr("node.workflows.calls.ASK_AFTER_S", 0.05)
    app = write_app(
        tmp_path,
        workflows={"calls": "return function() return funcs.call('app:block', 'x') end"},
        functions={"block": {"kind": "function.python", "source": "tests.test_calls:block_the_engine"}},
    )
    BLOCKED.clear()
    handle_batch = Engine._handle_batch
    monkeypatch.setattr(Engine, "_handle_batch", lambda self: None if BLOCKED else handle_batch(self))
    async with a_mesh(nats_server().url, app, partitions=1) as mesh:
        questions: list[bytes] = []
        mesh.client.conn.subscribe_direct(function_who("app:block"), lambda *message: questions.append(message[2]))
        await mesh.client.conn.flush()
        handle = await mesh.start("calls")
        await wait_until(lambda: BLOCKED and len(questions) > 2)

        assert [event.kind for event in await handle.history()] == ["start", "ret"]
        BLOCKED.clear()
        mesh.node.engines[QUEUE]._wake()
        assert await handle.result(timeout_s=20) == "done"
        assert [event.kind for event in await handle.history()] == ["start", "ret", "end"]


async def test_a_clock_that_is_behind_for_a_moment_does_not_put_a_retry_off_for_as_long(
    tmp_path: Path, nats_server: ServerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short pause ends at a time of the server's, and the node waits for that by a clock of its own."""
    monkeypatch.setattr("node.workflows.calls.DURABLE_PAUSE_NS", 20_000_000)
    app = write_app(
        tmp_path,
        workflows={"calls": "return function() return funcs.call('app:fails_once') end"},
        functions={"fails_once": {"kind": "function.python", "source": "tests.test_calls:fail_once"}},
    )
    FAILED.clear()
    behind = SimpleNamespace(monotonic=time.monotonic, time_ns=lambda: time.time_ns() - 3_600_000_000_000)
    monkeypatch.setattr("node.workflows.calls.time", behind)
    async with a_mesh(nats_server().url, app, partitions=1) as mesh:
        assert await mesh.run("calls") == "done"
    assert FAILED == [True]


async def test_calls_that_somebody_has_are_asked_after_the_more_seldom_the_more_there_are(
    tmp_path: Path, nats_server: ServerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asking every second after all of 40,000 took more than half of a node that had nothing else to do."""
    assert [ask_again_s(calls) for calls in (1, 5000, 50_000)] == [1.0, 1.0, 10.0]
    monkeypatch.setattr("node.workflows.calls.ASK_AFTER_S", 0.02)
    monkeypatch.setattr("node.workflows.calls.ASKED_PER_S", 1 / 3600)  # one is asked after again in an hour
    app = write_app(
        tmp_path,
        workflows={"waits": "return function() return funcs.call('app:lasting') end"},
        processes={"lasting": {"source": "return {main = function() process.inbox():receive() end}",
                               "method": "main", "meta": {"default_host": "app:processes"}}},
    )  # fmt: skip
    async with a_mesh(nats_server().url, app, partitions=1) as mesh:
        asked: Counter[str] = Counter()
        mesh.client.conn.subscribe_direct(
            function_who("app:lasting"), lambda _subject, _reply, data, _headers: asked.update(codec.decode(data))
        )
        await mesh.client.conn.flush()
        for n in range(10):
            await mesh.start("waits", id=f"w-{n}")
        await wait_until(lambda: len(asked) == 10)
        before = asked.copy()
        await anyio.sleep(0.5)  # as long as 10 looks at each of them, if there were any

        # One may have been alone when it was found, and is asked after once more.
        assert asked.total() - before.total() <= 2
        before = asked.copy()
        mesh.node.engines[QUEUE].node_gone()
        await wait_until(lambda: all(asked[ret] > before[ret] for ret in before))

        # So they are when a host of functions goes that is no member of the mesh, or is started anew.
        roster, host = Bucket(mesh.client.js, BUCKET), "host.alone"
        for boot in ("first", "second"):
            before = asked.copy()
            await roster.put(host, json.dumps({"functions": [], "boot": boot}).encode())
            await wait_until(lambda: mesh.node.roster.host_lives() == {("alone", boot)})  # noqa: B023
            if boot == "second":
                await wait_until(lambda: all(asked[ret] > before[ret] for ret in before))  # noqa: B023
        before = asked.copy()
        await roster.delete(host)
        await wait_until(lambda: all(asked[ret] > before[ret] for ret in before))

        # Another one goes while they are asked after: it may be the one that said a moment ago that it has them.
        is_gone, request_many = anyio.Event(), Connection.request_many

        async def answered_before(self: Connection, subject: str, *args: Any, **options: Any) -> list[Reply]:
            found = await request_many(self, subject, *args, **options)
            if subject == function_who("app:lasting"):
                await is_gone.wait()
            return found

        monkeypatch.setattr(Connection, "request_many", answered_before)
        before = asked.copy()
        mesh.node.engines[QUEUE].node_gone()
        await wait_until(lambda: all(asked[ret] > before[ret] for ret in before))
        before = asked.copy()
        mesh.node.engines[QUEUE].node_gone()
        is_gone.set()
        await wait_until(lambda: all(asked[ret] > before[ret] for ret in before))


async def test_a_host_that_is_swamped_for_longer_than_a_second_has_its_call_still(nats_server: ServerFactory) -> None:
    """A machine that is busy with other things is no reason to tell a caller that its call is lost."""
    url = nats_server().url
    async with mesh.client.connect(url) as client, connect(url, name="host") as host:
        calls: list[str] = []
        questions: list[str] = []

        def on_question(_subject: str, reply: str, _data: bytes, _headers: bytes | None) -> None:
            questions.append(reply)
            if len(questions) > 2:
                host.publish_nowait(reply, codec.encode(True))
                host.publish_nowait(calls[0], codec.encode_success(7))

        host.subscribe_direct(
            function_request("app:slow"), lambda _subject, reply, _data, _headers: calls.append(reply)
        )
        host.subscribe_direct(function_who("app:slow"), on_question)
        await host.flush()
        assert await client.call("app:slow") == 7
        assert len(calls) == 1


async def test_a_call_that_was_lost_with_its_node_is_made_again_at_once(
    tmp_path: Path, nats_server: ServerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner hears that a node is gone, and does not wait until it is time to look after the call."""
    monkeypatch.setattr("node.workflows.calls.ASK_AFTER_S", 3600.0)
    app = write_app(
        tmp_path,
        workflows={"nap": "return function() return funcs.call('app:sleeps', 60) end"},
        functions={"sleeps": {"source": SLEEPS, "modules": ["time", "logger"]}},
    )
    url, only = nats_server().url, ("--only", "app:sleeps")
    async with (
        a_mesh(url, app, node_id="owner", functions=False) as mesh,
        a_node(app, url, node_id="a", arguments=only) as a,
    ):
        await mesh.start("nap")
        await wait_until(lambda: "it has begun" in a.log())
        async with a_node(app, url, node_id="b", arguments=only) as b:
            a.kill()
            await wait_until(lambda: "it has begun" in b.log(), 20)


async def test_a_long_call_is_waited_for_and_given_up_when_its_time_is_over(
    tmp_path: Path, nats_server: ServerFactory
) -> None:
    app = write_app(tmp_path, functions={"sleeps": {"source": SLEEPS, "modules": ["time", "logger"]}})
    async with a_mesh(nats_server().url, app) as mesh:
        assert await mesh.client.call("app:sleeps", 2.5) == 2.5
        with pytest.raises(RequestTimeout, match=r"within 1\.2 s"):
            await mesh.client.call("app:sleeps", 10, timeout_s=1.2)
        with pytest.raises(FunctionFailed, match="no handler registered for target app:nobody"):
            await mesh.client.call("app:nobody")


async def test_a_call_is_not_taken_for_lost_when_a_server_does_not_know_yet_who_listens(
    tmp_path: Path, nats_server: ServerFactory
) -> None:
    """Of a cluster each server learns from the others who listens there, and says before that nobody does."""
    source = "return { main = function() require('time').sleep(2500000000) return 'once' end }"
    app = write_app(
        tmp_path,
        workflows={"ask": "return function() return funcs.call('app:slow') end"},
        functions={"slow": {"source": source, "modules": ["time"]}},
    )
    async with a_mesh(nats_server().url, app) as mesh:
        conn = mesh.node.client.conn
        request_many, unheard = conn.request_many, 0

        async def nobody_listens(subject: str, *args: Any, **options: Any) -> list[Reply]:
            nonlocal unheard
            if subject.startswith("mesh.who.") and unheard < 2:
                unheard += 1
                raise NoResponders(subject)
            return await request_many(subject, *args, **options)

        conn.request_many = nobody_listens  # type: ignore[method-assign]
        assert await mesh.run("ask", id="ask") == "once"
        assert unheard > 0
        assert await mesh.kinds("ask") == ["start", "ret", "end"]


@pytest.mark.parametrize(("attempts", "asked"), [(1, 1), (0, 2)], ids=["may run once", "may run again"])
async def test_a_service_is_asked_no_more_often_than_may_be_when_the_owner_of_its_caller_is_gone(
    tmp_path: Path, nats_server: ServerFactory, attempts: int, asked: int
) -> None:
    """Nobody can ask it whether it has the call. It answers into the history, whoever owns the workflow by then."""
    service = {
        "name": "charge", "kind": "function.nats", "subject": "svc.charge",
        "options": {"retry_policy": {"maximum_attempts": attempts}},
    }  # fmt: skip
    call = "return function() local value, err = funcs.call('app:charge', 5); return value or tostring(err) end"
    app = write_app(tmp_path, workflows={"order": call}, entries=[service])
    url = nats_server().url
    replies: list[str] = []
    async with mesh.client.connect(url) as client:
        client.conn.subscribe_direct("svc.charge", lambda _, reply, *__: replies.append(reply))
        await client.conn.flush()
        async with a_mesh(url, app, node_id="first") as first:
            await first.start("order", id="order-1")
            await wait_until(lambda: replies)
        async with a_mesh(url, app, node_id="second") as second:
            watches = second.node.engines[QUEUE]._effects.calls
            # It has looked after the call twice: so often it would ask again.
            dues: set[float] = set()

            def has_looked_twice() -> bool:
                dues.update(due_s for due_s, *_ in watches._heap)
                return len(dues) > 2

            await wait_until(has_looked_twice)
            await client.conn.flush()
            assert len(replies) == asked
            client.conn.publish_nowait(replies[0], b"42")
            assert await second.get("order-1").result(timeout_s=20) == 42


async def test_a_service_that_never_answers_leaves_nobody_listening(tmp_path: Path, nats_server: ServerFactory) -> None:
    """Each attempt listens for its first answer. One that is given up, or whose workflow is, listens no more."""
    service = {
        "name": "silent", "kind": "function.nats", "subject": "svc.silent",
        "options": {"start_to_close_timeout": "50ms", "retry_policy": {"maximum_attempts": 3, "initial_interval": 1}},
    }  # fmt: skip
    endless = {"name": "endless", "kind": "function.nats", "subject": "svc.silent"}
    calls = {
        "asks": "return function() local _, err = funcs.call('app:silent', 5); return err:kind() end",
        "waits": "return function() return funcs.call('app:endless', 5) end",
    }
    async with a_mesh(nats_server().url, write_app(tmp_path, workflows=calls, entries=[service, endless])) as mesh:
        asked: list[str] = []
        mesh.client.conn.subscribe_direct("svc.silent", lambda _, reply, *__: asked.append(reply))
        await mesh.client.conn.flush()
        before = mesh.node.conn.statistics().subscriptions
        assert await mesh.run("asks", id="asks") == "Timeout"
        assert len(asked) == 3
        handle = await mesh.start("waits", id="waits")
        await wait_until(lambda: len(asked) == 4)
        await handle.terminate()
        await wait_until(lambda: mesh.node.conn.statistics().subscriptions == before)
