"""The module `queue` from Lua: both drivers, consumers, settling, redelivery, giving up, and nodes that die."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

from mesh import codec
from mesh.connection import Connection, connect
from mesh.errors import Disconnected, NotFound
from mesh.failure import Failure, Kind
from mesh.jetstream import JetStream
from node.modules import Caller
from node.modules.queue import QueueModule
from node.queues.consuming import pause_s
from node.queues.running import run_consumers
from node.registry import RedeliverySpec, Registry, load_registry
from tests.conftest import ServerFactory
from tests.servers import ServerProcess, tied_to_us
from tests.units import Units
from tests.waiting import wait_until, wait_until_async

DRIVERS = ("memory", "jetstream")
# Quick pauses; a handler is a Lua source by the name of its function.
ENTRIES = """
  - {{name: driver, kind: queue.driver.{driver}}}
  - name: tasks
    kind: queue.queue
    driver: driver
    codec: {codec}
    driver_options: {{memory: {{max_length: 5}}, jetstream: {{max_length: 5, ack_wait: {ack_wait}}}}}
    redelivery: {{max_deliveries: 3, initial_delay: 20ms, dead_letter: dead}}
  - {{name: dead, kind: queue.queue, driver: driver}}
  - {{name: f, kind: function.lua, source: "return 1", method: main}}
  - {{name: worker, kind: queue.consumer, queue: tasks, func: f, concurrency: {concurrency}, prefetch: {prefetch}, auto_ack: {auto_ack}, lifecycle: {lifecycle}}}
  - {{name: undertaker, kind: queue.consumer, queue: dead, func: f}}
"""


def registry_of(root: Path, driver: str, **settings: Any) -> Registry:
    values = {
        "codec": "json/plain",
        "ack_wait": "1s",
        "concurrency": 1,
        "prefetch": 10,
        "auto_ack": "false",
        "lifecycle": "{}",
        **settings,
    }
    root.mkdir(exist_ok=True)
    (root / "i.yaml").write_text("namespace: app\nentries:\n" + ENTRIES.format(driver=driver, **values))
    return load_registry(root, environ={}, strict=True)


class Node:
    """A node reduced to its queues: `handlers` is the Lua source that consumers call."""

    def __init__(self, conn: Connection, registry: Registry, node_id: str, tasks: anyio.abc.TaskGroup) -> None:
        self.conn = conn
        self.queues = QueueModule(registry, JetStream(conn), node_id=node_id, call=self._call)
        self.handler = ""
        self.seen: list[Any] = []
        self.running = 0
        self.most = 0
        self.tasks = tasks
        self.gates: list[anyio.Event] = []
        self.call: Callable[[Any], Any] | None = None
        self.units = Units({"queue": self.queues})
        self.elsewhere: Units | None = None  # where handlers run, if not here
        self.scopes: dict[str, anyio.CancelScope] = {}

    async def _call(self, function_id: str, args: list[Any], context: Any) -> bytes:
        assert function_id == "app:f"
        self.seen.append(args[0])
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if self.call is not None:
                await self.call(args[0])
            if not self.handler:
                return codec.encode_success(None)
            return await (self.elsewhere or self.units).outcome(self.handler, *args, entry_id="app:f", context=context)
        finally:
            self.running -= 1

    async def consume(self, name: str = "app:worker") -> None:
        async def run(*, task_status: anyio.abc.TaskStatus[None]) -> None:
            with anyio.CancelScope() as self.scopes[name]:
                await self.queues.consume(name, task_status=task_status)

        await self.tasks.start(run)

    async def publish(self, *bodies: Any) -> Any:
        result = None
        for body in bodies:
            result = await self.units.run("return function(b) return queue.publish('app:tasks', b) end", body)
        return result

    async def info(self, name: str = "app:tasks") -> dict[str, Any]:
        got = await self.units.run("return function(n) return queue.info(n) end", name)
        assert isinstance(got, dict), got
        return got

    async def is_empty(self) -> bool:
        return bool((await self.info())["message_count"] == 0)


@contextlib.asynccontextmanager
async def node(
    server: ServerProcess, root: Path, driver: str, *, node_id: str = "n1", **settings: Any
) -> AsyncIterator[Node]:
    registry = registry_of(root, driver, **settings)
    async with connect(server.url, name=node_id) as conn, anyio.create_task_group() as tasks:
        made = Node(conn, registry, node_id, tasks)
        await tasks.start(made.queues.run)
        yield made
        tasks.cancel_scope.cancel()


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_what_is_published_is_handled_once_and_in_order(
    nats_server: ServerFactory, tmp_path: Path, driver: str
) -> None:
    async with node(nats_server(), tmp_path, driver) as n:
        assert await n.publish({"n": 1}, [1, "x", 2.5], "text", 7, True) is True
        assert await n.info() == {
            "name": "app:tasks", "driver": "app:driver", "message_count": 5, "ready": 5, "in_flight": 0, "consumer_count": 0,
        }  # fmt: skip
        await n.consume()
        await wait_until_async(n.is_empty)
        assert n.seen == [{"n": 1}, [1, "x", 2.5], "text", 7, True]
        assert (await n.info())["consumer_count"] == 1
        await n.publish("more")
        await wait_until_async(n.is_empty)
        assert n.seen[5:] == ["more"]


async def test_a_handler_sees_its_message_and_nobody_else_does(
    nats_server: ServerFactory, tmp_path: Path, driver: str
) -> None:
    async with node(nats_server(), tmp_path, driver) as n:
        results: list[Any] = []
        n.handler = (
            "return function(body) local m = queue.message() assert(m == queue.message()) "
            "return {#m:id() > 5, m:header('kind'), m:headers(), m:header('none') == nil, tostring(m) == 'queue.Message{' .. m:id() .. '}', "
            "ctx.all(), (select(2, ctx.get('@queue.message'))):kind(), pcall(funcs.new().with_context, funcs.new(), {['@queue.message'] = 1})} end"
        )
        outcome = n.units.outcome

        async def keep(*args: Any, **kwargs: Any) -> bytes:
            got = await outcome(*args, **kwargs)
            results.append(codec.decode_outcome(got)[1])
            return got

        n.units.outcome = keep  # type: ignore[method-assign]
        await n.consume()
        sent = await outcome(
            "return function() return queue.publish('tasks', {a = 1}, {kind = 'x', priority = 5, late = true}) end"
        )
        assert codec.decode_outcome(sent) == (True, True)
        await wait_until(lambda: results)
        assert results[0][:7] == [True, "x", {"kind": "x", "late": "true", "priority": "5"}, True, True, [], "NotFound"]
        assert results[0][7] is False
        outside = await n.units.run("return function() return queue.message() end")
        assert (outside.kind, outside.retryable) == (Kind.INVALID, False)


async def test_the_message_does_not_travel_on_with_a_call_of_the_handler(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    async with node(nats_server(), tmp_path, "memory") as n:
        contexts: list[Any] = []

        async def call(_function: str, _args: list[Any], context: Any) -> bytes:
            contexts.append(dict(context))
            return codec.encode_success(None)

        n.units = Units({"queue": n.queues}, call=call)
        n.handler = "return function() funcs.call('app:g') funcs.new():with_context({k = 1}):call('app:g') end"
        await n.consume()
        await n.publish("x")
        await wait_until_async(n.is_empty)
        assert contexts == [{}, {"k": 1}]


async def test_a_failure_brings_the_message_again_and_then_to_the_dead_letters(
    nats_server: ServerFactory, tmp_path: Path, driver: str
) -> None:
    async with node(nats_server(), tmp_path, driver) as n:
        n.handler = "return function(b) if queue.message():header('Dead-Letter-Queue') then return queue.publish('app:dead', {n = queue.message():headers()}) end return nil, 'no\\ngood' end"
        await n.consume()
        await n.publish("bad")
        await wait_until_async(n.is_empty)
        assert n.seen == ["bad"] * 3
        assert (await n.info("app:dead"))["message_count"] == 1
        await n.consume("app:undertaker")
        await wait_until(lambda: len(n.seen) >= 5)
        assert n.seen[3] == "bad"
        told = n.seen[4]["n"]
        assert (told["Dead-Letter-Queue"], told["Dead-Letter-Deliveries"]) == ("app:tasks", "3")
        assert told["Dead-Letter-Reason"] == "Internal: no good"


async def test_a_handler_that_succeeds_the_second_time_has_its_message_settled(
    nats_server: ServerFactory, tmp_path: Path, driver: str
) -> None:
    async with node(nats_server(), tmp_path, driver) as n:
        attempts = 0

        async def fail_once(_body: Any) -> None:
            nonlocal attempts
            attempts += 1
            if attempts == 1:
                raise RuntimeError("the platform failed")

        n.call = fail_once
        await n.consume()
        await n.publish("x")
        await wait_until_async(n.is_empty)
        assert n.seen == ["x", "x"]
        assert (await n.info("app:dead"))["message_count"] == 0


async def test_a_handler_may_settle_its_message_itself_and_only_once(
    nats_server: ServerFactory, tmp_path: Path, driver: str
) -> None:
    async with node(nats_server(), tmp_path, driver) as n:
        n.handler = (
            "return function(b) local m = queue.message() if b.how == 'nack' and not b.again then "
            "local ok = m:nack() local _, err = m:ack() queue.publish('app:dead', {ok = ok, kind = err:kind(), text = err:message()}) return 'fine' end "
            "local ok = m:ack() local _, err = m:nack() queue.publish('app:dead', {ok = ok, kind = err:kind(), text = err:message()}) return nil, 'failed, but acknowledged' end"
        )
        await n.consume()
        await n.publish({"how": "ack"})
        await wait_until_async(n.is_empty)
        await n.publish({"how": "nack"})
        await wait_until_async(n.is_empty)
        assert n.seen == [{"how": "ack"}] + [{"how": "nack"}] * 3  # refused three times, then dead
        n.handler = ""
        await n.consume("app:undertaker")
        await wait_until(lambda: len(n.seen) == 9)
        told = {"ok": True, "kind": "Invalid", "text": "the message is settled already"}
        assert sorted(n.seen[4:], key=str) == sorted([told] * 4 + [{"how": "nack"}], key=str)


async def test_settling_reaches_the_consuming_node_from_another_one(
    nats_server: ServerFactory, tmp_path: Path, driver: str
) -> None:
    server = nats_server()
    async with node(server, tmp_path, driver) as n, node(server, tmp_path, driver, node_id="n2") as other:
        n.elsewhere = other.units
        n.handler = "return function(b) local m = queue.message() local ok, err = m:ack() if err then return nil, err end local _, e = m:ack() return nil, e end"
        await n.consume()
        await n.publish("x")
        await wait_until_async(n.is_empty)
        assert n.seen == ["x"]
        gone = await n.units.modules.ask("queue.settle", codec.encode(["nowhere", "0" * 16, "ack"]), caller())
        assert codec.decode_outcome(gone)[1].kind == Kind.UNAVAILABLE
        late = await n.units.modules.ask("queue.settle", codec.encode(["n2", "0" * 16, "ack"]), caller())
        assert codec.decode_outcome(late)[1] == Failure(
            "the message is settled already, its handler has ended", Kind.INVALID, False
        )
        wrong = await n.units.modules.ask("queue.settle", codec.encode(["n2", "0" * 16, "keep"]), caller())
        assert codec.decode_outcome(wrong)[1].kind == Kind.INVALID


def caller() -> Caller:
    return Caller("{n1@app:f|1}", "app:f")


@pytest.mark.parametrize(("concurrency", "prefetch"), [(1, 4), (3, 5), (4, 1)])
async def test_no_more_handlers_run_than_concurrency_says(
    nats_server: ServerFactory, tmp_path: Path, driver: str, concurrency: int, prefetch: int
) -> None:
    async with node(nats_server(), tmp_path, driver, concurrency=concurrency, prefetch=prefetch) as n:
        go = anyio.Event()

        async def wait(_body: Any) -> None:
            await go.wait()

        n.call = wait
        await n.publish(1, 2, 3, 4, 5)
        await n.consume()

        async def holds() -> bool:
            return n.running == concurrency and (await n.info())["in_flight"] == max(concurrency, prefetch)

        await wait_until_async(holds)
        go.set()
        await wait_until_async(n.is_empty)
        assert n.most == concurrency
        assert sorted(n.seen) == [1, 2, 3, 4, 5]


async def test_auto_ack_settles_before_the_handler_runs(
    nats_server: ServerFactory, tmp_path: Path, driver: str
) -> None:
    async with node(nats_server(), tmp_path, driver, auto_ack="true") as n:
        n.handler = "return function() local _, err = queue.message():ack() queue.publish('app:dead', err:kind()) return nil, 'failed' end"
        await n.consume()
        await n.publish("x")
        await n.consume("app:undertaker")
        await wait_until(lambda: len(n.seen) >= 2)
        assert n.seen[:2] == ["x", "Invalid"]
        await wait_until_async(n.is_empty)  # the server handles acknowledgements when it comes to it


async def test_a_full_queue_refuses_what_is_new(nats_server: ServerFactory, tmp_path: Path, driver: str) -> None:
    async with node(nats_server(), tmp_path, driver) as n:
        assert await n.publish(1, 2, 3, 4, 5) is True
        refused = await n.publish(6)
        assert (refused.kind, refused.retryable) == (Kind.INTERNAL, True)
        assert "full" in refused.message or "maximum messages exceeded" in refused.message
        await n.consume()
        await wait_until_async(n.is_empty)
        assert await n.publish(6) is True


@pytest.mark.parametrize(
    ("call", "kind", "part"),
    [
        ("publish('', {1})", "Invalid", "the id of a queue is required"),
        ("publish(5, {1})", "Invalid", "the id of a queue is required"),
        ("publish('app:tasks', {})", "Invalid", "no data"),
        ("publish('app:tasks')", "Invalid", "no data"),
        ("publish('app:tasks', 1, 'x')", "Invalid", "headers must be a table, not a string"),
        ("publish('app:tasks', 1, {'x'})", "Invalid", "headers must have texts as names, not a number"),
        ("publish('app:tasks', 1, {a = {}})", "Invalid", "header a must be a text, a number or a boolean, not a table"),
        ("publish('app:tasks', 1, {['a b'] = 'x'})", "Invalid", "'a b' is no header name"),
        ("publish('app:tasks', 1, {a = 'x\\ny'})", "Invalid", "a value is one line"),
        ("publish('app:tasks', 1, {a = '\\255'})", "Invalid", "a value must be UTF-8 text"),
        ("publish('app:tasks', '\\255')", "Invalid", "use codec application/msgpack for bytes"),
        ("publish('app:tasks', {[1] = 1, [5] = 2})", "Invalid", "neither a list"),
        ("publish('app:tasks', ('x'):rep(1100000))", "Invalid", "bytes"),
        ("publish('app:none', 1)", "Internal", "there is no queue app:none"),
        ("publish('none', 1)", "Internal", "there is no queue app:none"),
        ("info('app:none')", "Internal", "there is no queue app:none"),
        ("info('')", "Invalid", "the id of a queue is required"),
        ("message()", "Invalid", "works in the function of a queue.consumer"),
    ],
)
async def test_what_goes_wrong_is_told_with_a_kind(
    nats_server: ServerFactory, tmp_path: Path, driver: str, call: str, kind: str, part: str
) -> None:
    async with node(nats_server(), tmp_path, driver) as n:
        result = await n.units.run(f"return function() return queue.{call} end")
        assert isinstance(result, Failure), result
        assert (result.kind, result.retryable) == (kind, False)
        assert part in result.message
        assert (await n.info())["message_count"] == 0


async def test_the_msgpack_codec_keeps_bytes_and_number_types(
    nats_server: ServerFactory, tmp_path: Path, driver: str
) -> None:
    async with node(nats_server(), tmp_path, driver, codec="application/msgpack") as n:
        await n.units.run("return function() return queue.publish('tasks', {b = '\\255\\0', f = 2.0, n = 3}) end")
        await n.consume()
        await wait_until_async(n.is_empty)
        assert n.seen == [{"b": b"\xff\0", "f": 2.0, "n": 3}]
        assert isinstance(n.seen[0]["f"], float)


async def test_json_of_errors_and_odd_numbers(nats_server: ServerFactory, tmp_path: Path) -> None:
    async with node(nats_server(), tmp_path, "memory") as n:
        await n.units.run(
            "return function() return queue.publish('tasks', {e = errors.new('x'), i = 1/0, f = 2.0, l = {}}) end"
        )
        await n.consume()
        await wait_until_async(n.is_empty)
        assert n.seen == [{"e": "x", "i": None, "f": 2, "l": []}]


def test_pauses_double_up_to_their_limit_and_end_with_the_last_delivery() -> None:
    spec = RedeliverySpec(deliveries_max=5, delay_s=1.0, delay_max_s=5.0, dead_letter=None)
    assert [pause_s(spec, number) for number in range(1, 7)] == [1.0, 2.0, 4.0, 5.0, None, None]
    for_ever = RedeliverySpec(deliveries_max=0, delay_s=1.0, delay_max_s=5.0, dead_letter=None)
    assert pause_s(for_ever, 100_000) == 5.0


async def test_what_is_no_consumer_cannot_be_run(nats_server: ServerFactory, tmp_path: Path) -> None:
    async with node(nats_server(), tmp_path, "memory") as n:
        with pytest.raises(NotFound, match=r"there is no queue\.consumer app:tasks"):
            await n.queues.consume("app:tasks")


async def test_a_server_that_is_away_is_no_failure_of_the_consumers_at_the_boot(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """A node that is started while its server goes away has nothing to repair: it waits, and tries again."""
    server = nats_server()
    started = "{auto_start: true}"
    async with node(server, tmp_path, "jetstream", lifecycle=started) as n:
        server.kill()
        await wait_until(lambda: not n.conn.is_connected)
        with pytest.raises(Disconnected):
            await run_consumers(registry_of(tmp_path, "jetstream", lifecycle=started), n.queues, lambda _: True)


# -- ends and breaks -------------------------------------------------------------------------------------------------


async def test_a_consumer_that_stops_gives_back_what_it_held(
    nats_server: ServerFactory, tmp_path: Path, driver: str
) -> None:
    async with node(nats_server(), tmp_path, driver, ack_wait="60s") as n:
        never = anyio.Event()

        async def wait(_body: Any) -> None:
            await never.wait()

        n.call = wait
        await n.publish(1, 2, 3)
        await n.consume()
        await wait_until(lambda: n.running == 1 and len(n.queues._held) == 3)
        n.scopes["app:worker"].cancel()
        await wait_until(lambda: n.running == 0)
        n.call = None
        await n.consume()
        # The first one had a handler: with JetStream that may still run somewhere, so it comes after ack_wait only.
        expected = [1, 2, 3] if driver == "memory" else [2, 3]
        await wait_until(lambda: sorted(n.seen[1:]) == expected)


async def test_draining_waits_for_the_handler_that_runs_and_takes_no_more(
    nats_server: ServerFactory, tmp_path: Path, driver: str
) -> None:
    async with node(nats_server(), tmp_path, driver) as n:
        go = anyio.Event()

        async def wait(_body: Any) -> None:
            await go.wait()

        n.call = wait
        await n.consume()
        await n.publish(1, 2, 3)
        await wait_until(lambda: n.running == 1)
        drained = anyio.Event()

        async def drain() -> None:
            await n.queues.drain(5.0)
            drained.set()

        n.tasks.start_soon(drain)
        await anyio.lowlevel.checkpoint()
        assert not drained.is_set()
        go.set()
        await wait_until(drained.is_set)
        assert n.seen == [1]
        assert (await n.info())["message_count"] == 2
        n.scopes["app:worker"].cancel()
        await n.consume()
        await wait_until(lambda: sorted(n.seen) == [1, 2, 3])


async def test_draining_leaves_the_rest_to_others_at_once(nats_server: ServerFactory, tmp_path: Path) -> None:
    server = nats_server()
    async with (
        node(server, tmp_path, "jetstream", ack_wait="60s") as n,
        node(server, tmp_path, "jetstream", node_id="n2", ack_wait="60s") as other,
    ):
        go = anyio.Event()

        async def wait(_body: Any) -> None:
            await go.wait()

        n.call = wait
        await n.consume()
        await n.publish(1, 2, 3)
        await wait_until(lambda: n.running == 1 and len(n.queues._held) == 3)
        await other.consume()
        n.tasks.start_soon(n.queues.drain, 5.0)
        go.set()
        await wait_until_async(n.is_empty)
        assert (n.seen, sorted(other.seen)) == ([1], [2, 3])


async def test_a_message_whose_node_was_killed_comes_to_another_node(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """While the node lives it says that it works on the message, for longer than ack_wait; then that ends."""
    server = nats_server()
    async with node(server, tmp_path, "jetstream", node_id="n2", ack_wait="1500ms") as survivor:
        command = tied_to_us(sys.executable, "-m", "tests.queue_victim", server.url, str(tmp_path))
        async with await anyio.open_process(command, cwd=Path(__file__).parent.parent, stderr=None) as victim:
            try:
                assert victim.stdout is not None
                await survivor.publish("job")
                said = b""
                with anyio.fail_after(20):
                    while not said.endswith(b"\n"):
                        said += await victim.stdout.receive()
                assert said == b"got job\n"
                await survivor.consume()
                await anyio.sleep(2.5)
                assert survivor.seen == []
            finally:
                victim.kill()
        await wait_until(lambda: survivor.seen == ["job"])
        await wait_until_async(survivor.is_empty)


async def test_a_message_that_kills_its_node_each_time_is_given_up(nats_server: ServerFactory, tmp_path: Path) -> None:
    server = nats_server()
    async with node(server, tmp_path, "jetstream", node_id="n2", ack_wait="100ms") as survivor:
        await survivor.publish("poison")
        stream, consumer = "MQ_app=3Atasks", "work"
        for _ in range(3):  # three nodes take it and are never heard of again
            inbox = survivor.conn.new_inbox()
            got = anyio.Event()
            subscription = survivor.conn.subscribe_direct(inbox, lambda *_args, got=got: got.set())
            request = b'{"batch": 1, "expires": 5000000000}'
            survivor.conn.publish_nowait(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}", request, inbox)
            await got.wait()
            subscription.unsubscribe()
        await survivor.consume()
        await wait_until_async(survivor.is_empty)
        assert survivor.seen == []
        assert (await survivor.info("app:dead"))["message_count"] == 1


async def test_consuming_goes_on_after_the_server_was_killed(nats_server: ServerFactory, tmp_path: Path) -> None:
    server = nats_server(sync_interval="always")
    async with node(server, tmp_path, "jetstream") as n:
        await n.consume()
        await n.publish("before")
        await wait_until_async(n.is_empty)
        server.restart()
        await wait_until(lambda: n.conn.is_connected)

        async def published() -> bool:
            return await n.publish("after") is True

        await wait_until_async(published)
        await wait_until(lambda: "after" in n.seen)
        await wait_until_async(n.is_empty)


async def test_consuming_goes_on_after_the_stream_was_deleted(nats_server: ServerFactory, tmp_path: Path) -> None:
    async with node(nats_server(), tmp_path, "jetstream") as n:
        await n.consume()
        await n.publish(1)
        await wait_until_async(n.is_empty)
        await JetStream(n.conn).delete_stream("MQ_app=3Atasks")
        assert await n.publish(2) is True
        await wait_until(lambda: n.seen == [1, 2])


async def test_two_nodes_share_the_messages_of_a_jetstream_queue(nats_server: ServerFactory, tmp_path: Path) -> None:
    server = nats_server()
    async with (
        node(server, tmp_path, "jetstream", prefetch=1) as a,
        node(server, tmp_path, "jetstream", node_id="n2", prefetch=1) as b,
    ):
        go = anyio.Event()

        async def wait(_body: Any) -> None:
            await go.wait()

        a.call = b.call = wait
        await a.consume()
        await b.consume()
        await a.publish(1, 2)
        await wait_until(lambda: a.running == b.running == 1)
        go.set()
        await wait_until_async(a.is_empty)
        assert sorted(a.seen + b.seen) == [1, 2]


async def test_a_foreign_message_is_handled_too(nats_server: ServerFactory, tmp_path: Path) -> None:
    """Anybody with a NATS client may publish: JSON, text, no message id."""
    async with node(nats_server(), tmp_path, "jetstream") as n:
        n.handler = "return function(b) if queue.message():id() == 'app:tasks:1' then return 1 end return nil, 'id' .. queue.message():id() end"
        await n.consume()
        await JetStream(n.conn).publish("mesh.mq.app:tasks", b'{"a": [1]}')
        await wait_until_async(n.is_empty)
        assert n.seen == [{"a": [1]}]
        await JetStream(n.conn).publish("mesh.mq.app:tasks", b"\xc1\xff\xff broken")
        await wait_until_async(n.is_empty)
        assert n.seen == [{"a": [1]}]
        assert (await n.info("app:dead"))["message_count"] == 1
