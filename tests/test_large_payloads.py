"""Payloads above the server's limit, at every place where a workflow's bytes enter and leave, on a real server.

Most tests give the server a small limit, so that what is large is cheap to make. What is stored and how it is read is in
`tests.test_objects`, what is too large for everything in `tests.test_bad_input`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

import mesh.client
from mesh import codec
from mesh.client import Client, FunctionFailed, WorkflowHandle, WorkflowSuspended
from mesh.connection import ConnectOptions
from mesh.encryption import Keyring
from mesh.errors import MeshError, NotFound, OutcomeUnknown, PayloadTooLarge, RequestTimeout, TooLarge
from mesh.events import EndRecord
from mesh.jetstream import JetStream
from mesh.objects import Objects
from mesh.references import ARGUMENTS, Reference, is_reference
from mesh.subjects import stream_name
from node.workflows import instances
from node.workflows.orphans import Orphans
from node.workflows.retention import Retention
from tests.apps import QUEUE, TIMEOUT_S, WORKER, Mesh, a_mesh, is_handled, key, write_app
from tests.cluster import a_node
from tests.conftest import ServerFactory
from tests.servers import clustered
from tests.test_export_import import imported, recorded
from tests.waiting import wait_until, wait_until_async

pytestmark = pytest.mark.timeout(180)  # many commands and nodes, each a process to start

SMALL = "max_payload: 65536"
BIG = 200_000  # several chunks under that limit
BUCKET = "OBJ_mesh_orders"
TEXT = "x" * BIG

WORKFLOWS = {
    "everything": """
        return function(text)
            local data = process.listen("data")
            local called, err = funcs.call("app:echo", text .. "c")
            if err then return nil, err end
            local sent = data:receive()
            local ended, why = workflow.exec("app:echo_workflow", text .. "child")
            if why then return nil, why end
            process.listen("go"):receive()
            return { #text, #called, #sent, #ended, text .. "r" }
        end
    """,
    "echo_workflow": "return function(text) return text end",
    # Each signal by its size, until one is the word to stop.
    "sizes": """
        return function(first)
            local signals, sizes = process.listen("data"), { #(first or "") }
            while true do
                local value = signals:receive()
                if value == "stop" then return sizes end
                sizes[#sizes + 1] = #value
            end
        end
    """,
    "chain": """
        return function(left, text)
            if left == 0 then return #text end
            process.upgrade(nil, left - 1, text .. "1")
        end
    """,
    "failing": """
        return function(text)
            local called, err = funcs.new():with_options{ retry_policy = { maximum_attempts = 1 } }:call("app:fail", text)
            return { tostring(err:kind()), #err:message() }
        end
    """,
    "attributes": """
        return function(size)
            workflow.attrs({ memo = { text = string.rep("a", size) } })
            process.listen("go"):receive()
            workflow.attrs({ memo = { text = string.rep("b", size) } })
            process.listen("go"):receive()
            return "done"
        end
    """,
    "foreign": "return function(text) local v, err = funcs.call('app:outside', text) return err and err:message() end",
    "slow": "return function(text) return funcs.call('app:slowly', text) end",
}
FUNCTIONS: dict[str, Any] = {
    "echo": "return function(text) return text end",
    "fail": "return function(text) error(text) end",
    "relay": "return function(text) local v, err = funcs.call('app:echo', text .. '1') return v or nil, err end",
    "slowly": {
        "kind": "function.python",
        "source": "tests.test_large_payloads:slowly",
    },
    "outside": {"kind": "function.nats", "subject": "outside.echo"},
}


async def slowly(text: str) -> int:
    """Say that it has begun, and wait for the word to go on; as files, for a test that kills the node meanwhile."""
    directory = Path(os.environ["MESH_TEST_DIRECTORY"])
    (directory / f"begun-{os.getpid()}").touch()
    while not (directory / "go").exists():  # noqa: ASYNC110 - another process makes it
        await anyio.sleep(0.01)
    return len(text)


def an_app(directory: Path, **options: Any) -> Path:
    return write_app(directory, workflows=WORKFLOWS, functions=FUNCTIONS, **options)


async def stored(mesh: Mesh) -> list[str]:
    """What the queue's objects are for: workflow and kind."""
    return sorted(f"{name.id_token} {name.what}" for name in await mesh.client.js.objects.names(QUEUE))


async def is_stored(mesh: Mesh, *expected: str) -> bool:
    return await stored(mesh) == sorted(expected)


async def kept_outside(mesh: Mesh) -> list[str]:
    """The kinds of the events that are references as they stand in the queue's stream."""
    as_stored = JetStream(mesh.client.conn, opens=False)
    messages = await as_stored.batch_get(stream_name(QUEUE), subject_filter=f"mesh.log.{QUEUE}.>")
    return sorted(message.subject.split(".")[5] for message in messages if is_reference(message.data))


async def is_left_empty(mesh: Mesh, stream: str) -> bool:
    return (await mesh.client.js.stream_info(stream)).messages == 0


async def is_kept_outside(mesh: Mesh, expected: list[str]) -> bool:
    return await kept_outside(mesh) == expected


def the_retention(mesh: Mesh) -> Retention:
    """One that removes whatever has ended."""
    return Retention(
        conn=mesh.client.conn, js=mesh.client.js, may_act=lambda: True, queue=QUEUE,
        partitions=mesh.node.engines[QUEUE].partitions, retention_s=0.000_001,
    )  # fmt: skip


def the_orphans(mesh: Mesh, age_s: float) -> Orphans:
    partitions = mesh.node.engines[QUEUE].partitions
    return Orphans(mesh.client.conn, QUEUE, partitions=partitions, may_act=lambda: True, age_s=age_s)


async def test_payloads_of_every_kind_go_through_the_object_store_and_come_back(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """Argument, call, outcome, signal, child, the child's end, result: live, and again when another node replays it."""
    server, app = nats_server(config=SMALL), an_app(tmp_path)
    async with a_mesh(server.url, app) as mesh:
        handle = await mesh.start("everything", TEXT, id="one")
        await handle.signal("data", TEXT + "ss")
        # A child tells its parent before it records its end.
        stored_now = ["end", "exit", "ret", "signal", "start", "start"]
        await wait_until_async(lambda: is_kept_outside(mesh, stored_now), TIMEOUT_S)
        child = [part for part in await stored(mesh) if not part.startswith("one ")]
        assert [part.split(" ")[1] for part in child] == ["end", "start"]
        await wait_until_async(lambda: is_stored(mesh, *child, "one exit", "one ret", "one signal", "one start"))
        await mesh.node.leave()
    async with a_mesh(server.url, app, node_id="b", projection=tmp_path / "list.sqlite3") as mesh:
        handle = mesh.get("one")
        await handle.signal("go")
        assert await handle.result(timeout_s=TIMEOUT_S) == [BIG, BIG + 1, BIG + 2, BIG + 5, TEXT + "r"]
        assert mesh.statistics()["replayed_events"] > 0
        await wait_until_async(lambda: is_listed(mesh, "one", "app:everything", "completed"), TIMEOUT_S)


async def is_listed(mesh: Mesh, workflow_id: str, *what: str) -> bool:
    return [workflow_id, *what] in [[one["id"], one["type"], one["status"]] async for one in mesh.client.list()]


async def has(mesh: Mesh, workflow_id: str, kind: str) -> bool:
    return kind in await mesh.kinds(workflow_id)


async def test_small_payloads_touch_no_object_store(nats_server: ServerFactory, tmp_path: Path) -> None:
    async with a_mesh(nats_server().url, an_app(tmp_path)) as mesh:
        await mesh.run("echo_workflow", "small")
        assert (await mesh.client.js.stream_info(BUCKET)).last_seq == 0


async def test_a_workflow_whose_event_is_fetched_holds_up_itself_and_nobody_else(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """Its own later events wait in their order; others of the same partition go on."""
    async with a_mesh(nats_server(config=SMALL).url, an_app(tmp_path), partitions=1) as mesh:
        slow, quick = await mesh.start("sizes", id="slow"), await mesh.start("sizes", id="quick")
        await wait_until_async(lambda: has(mesh, "quick", "start"))
        fetching = mesh.node.engines[QUEUE]._fetching
        limit = fetching._js.objects._reads
        borrowers = [object() for _ in range(int(limit.total_tokens))]
        for borrower in borrowers:
            await limit.acquire_on_behalf_of(borrower)
        for value in (TEXT, "12", TEXT + "345", "6", "stop"):
            await slow.signal("data", value)
        for value in ("1", "stop"):
            await quick.signal("data", value)
        assert await quick.result(timeout_s=TIMEOUT_S) == [0, 1]
        assert "end" not in await mesh.kinds("slow")
        for borrower in borrowers:
            limit.release_on_behalf_of(borrower)
        assert await slow.result(timeout_s=TIMEOUT_S) == [0, BIG, 2, BIG + 3, 1]


async def test_a_run_that_is_started_while_an_event_of_the_one_before_is_fetched_begins(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """A large signal came to a run that had just ended: behind it wait the end and the start of the next run."""
    async with a_mesh(nats_server(config=SMALL).url, an_app(tmp_path), partitions=1) as mesh:
        conn, objects = mesh.client.conn, mesh.client.js.objects
        await mesh.start("sizes", id="w")
        refused = PayloadTooLarge("a signal", BIG, conn.max_payload)
        large = await objects.instead(key("w").signal("data"), codec.encode(TEXT), refused)
        limit = mesh.node.engines[QUEUE]._fetching._js.objects._reads
        borrowers = [object() for _ in range(int(limit.total_tokens))]
        for borrower in borrowers:
            await limit.acquire_on_behalf_of(borrower)
        # In one go, so that the second is stored before anybody can say that the first was the last.
        conn.publish_nowait(key("w").signal("data"), codec.encode("stop"))
        conn.publish_nowait(key("w").signal("data"), large)
        await wait_until_async(lambda: has(mesh, "w", "end"))
        assert (await mesh.kinds("w"))[-3:] == ["signal", "signal", "end"]
        await mesh.start("echo_workflow", "second", id="w")
        instance = next(iter(mesh.node.engines[QUEUE]._by_token.values()))
        await wait_until(lambda: [event.kind for event in instance.fetching or ()] == ["signal", "end", "start"])
        for borrower in borrowers:
            limit.release_on_behalf_of(borrower)
        # Whoever waits for a result asks the owner, who then looks after it; nobody does that here.
        await wait_until_async(lambda: has(mesh, "w", "end"))


async def test_a_run_that_is_started_while_the_one_before_is_read_begins(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """As when runs are read again that had come to their end: what was read lacks that, and the start behind it."""
    async with a_mesh(nats_server(config=SMALL).url, an_app(tmp_path), partitions=1) as mesh:
        first = await mesh.start("sizes", id="w")
        await first.signal("data", TEXT)
        engine = mesh.node.engines[QUEUE]
        await wait_until(lambda: [i.run.length for i in engine._by_token.values() if i.run is not None] == [2])
        (instance,) = engine._by_token.values()
        limit = engine._loading._js.objects._reads
        borrowers = [object() for _ in range(int(limit.total_tokens))]
        for borrower in borrowers:
            await limit.acquire_on_behalf_of(borrower)
        engine._loading.reload(instance)
        await wait_until(lambda: limit.statistics().tasks_waiting == 1)
        assert first.run is not None
        await mesh.client.js.publish(key("w").end(first.run), EndRecord("completed", codec.NIL_OUTCOME).encode())
        await mesh.start("echo_workflow", "second", id="w")
        await wait_until(lambda: [event.kind for event in instance.loading or ()] == ["end", "start"])
        for borrower in borrowers:
            limit.release_on_behalf_of(borrower)
        await wait_until_async(lambda: has(mesh, "w", "end"))


async def test_a_state_that_is_handed_on_a_failure_and_attributes_may_be_large(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    async with a_mesh(nats_server(config=SMALL).url, an_app(tmp_path)) as mesh:
        assert await mesh.run("chain", 3, TEXT, id="chain") == BIG + 3
        kind, size = await mesh.run("failing", TEXT)
        assert kind == "Internal"
        assert size > 64 * 1024, "as much of a text as an error keeps"
        handle = await mesh.start("attributes", BIG, id="a")
        await wait_until_async(lambda: has(mesh, "a", "attrs"))
        await handle.signal("go")
        await wait_until_async(lambda: is_told(mesh, "b"))
        assert [name.what for name in await mesh.client.js.objects.names(QUEUE, "a")] == ["attrs", "attrs"]
        assert await the_orphans(mesh, 3600).sweep() == 0
        assert await the_orphans(mesh, 0).sweep() > 0
        assert [name.what for name in await mesh.client.js.objects.names(QUEUE, "a")] == ["attrs"]
        assert await is_told(mesh, "b")
        await handle.signal("go")
        assert await handle.result(timeout_s=TIMEOUT_S) == "done"


async def is_told(mesh: Mesh, letter: str) -> bool:
    """Whether the memo that is recorded is made of this letter."""
    attrs = [event for event in await mesh.events("a") if event.kind == "attrs"]
    return bool(attrs) and codec.decode(attrs[-1].data)["memo"]["text"] == letter * BIG


async def test_quiet_runs_hold_no_more_large_payloads_than_a_node_may(
    nats_server: ServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However few they are: 2,000 runs with 5 MB each would be 10 GB, and fill the VM they share long before."""
    monkeypatch.setattr(instances, "LARGE_BYTES_MAX", 3 * BIG + 3000)
    monkeypatch.setattr(instances, "EVICT_PAUSE_S", 0.0)
    server, app = nats_server(config=SMALL), an_app(tmp_path)
    async with a_mesh(server.url, app) as mesh:
        handles = [await mesh.start("sizes", TEXT, id=f"w-{i}") for i in range(8)]
        held = mesh.node.engines[QUEUE]._instances
        await wait_until(lambda: mesh.statistics()["evictions"] == 5)
        assert (mesh.statistics()["resident"], held.large_bytes // BIG) == (3, 3)
        for handle in handles:
            await handle.signal("data", "stop")
        for handle in handles:
            assert await handle.result(timeout_s=TIMEOUT_S) == [BIG]
        await wait_until(lambda: mesh.statistics()["resident"] == 0)
        assert held.large_bytes == 0


async def test_a_long_history_of_payloads_just_below_the_limit_is_replayed(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """45 MB in 50 events: more than the server answers with at once."""
    server, app, size = nats_server(), an_app(tmp_path), 900_000
    async with a_mesh(server.url, app) as mesh:
        handle = await mesh.start("sizes", id="long")
        for _ in range(50):
            await handle.signal("data", "x" * size)
        await mesh.node.leave()
    async with a_mesh(server.url, app, node_id="b") as mesh:
        handle = mesh.get("long")
        await handle.signal("data", "stop")
        assert await handle.result(timeout_s=TIMEOUT_S) == [0, *[size] * 50]
        assert mesh.node.conn.epoch == 1
        assert await stored(mesh) == []


async def test_a_stream_that_takes_less_than_the_server_gets_references_too(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """The outbox and plain writes hear of that limit from the server, after the message was sent."""
    async with a_mesh(nats_server().url, an_app(tmp_path)) as mesh:
        await mesh.client.js.ensure_stream({"name": stream_name(QUEUE), "max_msg_size": 20_000})
        assert await mesh.run("echo_workflow", "x" * 50_000, id="one") == "x" * 50_000
        assert await stored(mesh) == ["one end", "one start"]


async def has_leader(client: Client) -> bool:
    """Whether the cluster of the servers has come together."""
    try:
        await client.js.api("STREAM.NAMES", timeout_s=1.0)
    except MeshError:
        return False
    return True


async def is_sent(handle: WorkflowHandle, value: str) -> bool:
    """Send a signal; False while the queue's stream has no leader, which is the same for small ones.

    Or that of the objects has none: who stores one is patient for 15 s, and a busy machine elects for longer.
    """
    try:
        await handle.signal("data", value)
    except (NotFound, TooLarge, RequestTimeout, OutcomeUnknown):
        return False
    return True


async def test_three_servers_keep_three_copies_and_lose_nothing_with_one(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    servers = [nats_server(config=f"{SMALL}\n{config}") for config in clustered(3)]
    url, app = ",".join(server.url for server in servers), an_app(tmp_path)
    async with mesh_client(servers[0].url) as client:
        await wait_until_async(lambda: has_leader(client), 60.0)
    async with a_mesh(url, app, replicas=3, options=ConnectOptions(patience_s=30.0)) as mesh:
        assert (await mesh.client.js.stream_info(BUCKET)).config["num_replicas"] == 3
        handle = await mesh.start("sizes", TEXT, id="one")
        await handle.signal("data", TEXT)
        leader = str((await mesh.client.js.api(f"STREAM.INFO.{BUCKET}"))["cluster"]["leader"])
        servers[int(leader[1:])].kill()
        for value in (TEXT, "stop"):
            await wait_until_async(lambda value=value: is_sent(handle, value), 60.0)  # type: ignore[misc]
        assert (await handle.result(timeout_s=60.0))[:3] == [BIG, BIG, BIG]
        # Whoever sends a signal again, not knowing whether it was stored, has an object for each time.
        assert set(await stored(mesh)) == {"one signal", "one start"}


async def test_calls_that_no_workflow_makes_may_be_large_and_leave_nothing(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    server = nats_server(config=SMALL)
    options = ConnectOptions(codec=Keyring({"one": bytes(range(32))}, "one"))
    async with (
        a_mesh(server.url, an_app(tmp_path), options=options) as mesh,
        mesh_client_with(server.url, options) as client,
    ):
        assert await client.call("app:echo", TEXT) == TEXT
        assert await client.call("app:relay", TEXT) == TEXT + "1"
        with pytest.raises(FunctionFailed, match=r"Internal: .*xxx"):
            await client.call("app:fail", TEXT)
        await wait_until_async(lambda: is_left_empty(mesh, "OBJ_mesh"))
        used = await mesh.client.js.stream_info("OBJ_mesh")
        assert used.last_seq > 30
        assert used.config["max_age"] == 3600 * 10**9
    async with a_mesh(nats_server(config=SMALL).url, an_app(tmp_path / "plain")) as mesh:
        assert await mesh.client.call("app:relay", TEXT) == TEXT + "1"


async def test_a_foreign_service_is_not_sent_a_reference(nats_server: ServerFactory, tmp_path: Path) -> None:
    async with a_mesh(nats_server(config=SMALL).url, an_app(tmp_path)) as mesh:
        assert "the arguments are too large: outside.echo: 2000" in await mesh.run("foreign", TEXT)
        # Whoever writes by hand is held by the server itself.
        assert await stored(mesh) != []


async def test_objects_go_with_the_last_history_that_needs_them(nats_server: ServerFactory, tmp_path: Path) -> None:
    server, app = nats_server(config=SMALL), an_app(tmp_path)
    async with a_mesh(server.url, app) as mesh:
        retention = the_retention(mesh)
        assert await mesh.run("echo_workflow", TEXT, id="over") == TEXT
        handle = await mesh.start("sizes", TEXT, id="again")
        for value in (TEXT, "stop"):
            await handle.signal("data", value)
        assert await handle.result(timeout_s=TIMEOUT_S) == [BIG, BIG]
        thief = await mesh.start("sizes", id="thief")  # what it was sent names an object that is not its own
        as_stored = JetStream(mesh.client.conn, opens=False)
        starts = await as_stored.batch_get(stream_name(QUEUE), subject_filter=f"mesh.log.{QUEUE}.*.again.start")
        await mesh.client.js.publish(thief.key.signal("data"), starts[0].data)
        await thief.signal("data", "stop")
        await thief.result(timeout_s=TIMEOUT_S)
        await handle.reset(2, signals=False)  # the new run rests on the start and the first signal
        again = ["again signal", "again start", "again start"]
        assert await is_stored(mesh, "over start", "over end", *again)
        await wait_until(lambda: mesh.statistics()["resident"] == 1)
        await retention.sweep()
        assert await stored(mesh) == again
        await mesh.node.leave()
    async with a_mesh(server.url, app, node_id="b") as mesh:
        handle = mesh.get("again")
        await handle.signal("data", "stop")
        assert await handle.result(timeout_s=TIMEOUT_S) == [BIG, BIG]
        await the_retention(mesh).sweep()
        assert (await mesh.client.js.stream_info(BUCKET)).messages == 0


async def test_what_nothing_refers_to_is_removed_once_it_is_old(nats_server: ServerFactory, tmp_path: Path) -> None:
    """Left by writers that died: before the message, in the middle of the object, with a call under way."""
    async with a_mesh(nats_server(config=SMALL).url, an_app(tmp_path)) as mesh:
        objects: Objects = mesh.client.js.objects
        handle = await mesh.start("sizes", TEXT, id="runs")
        await mesh.run("echo_workflow", TEXT, id="over")
        over = (await mesh.events("over"))[0].seq
        await objects.put(QUEUE, "runs", "signal", b"x" * BIG)
        await objects.put(QUEUE, "nobody", "start", b"x" * BIG)
        await objects.put(QUEUE, "runs", ARGUMENTS, b"x" * BIG, run=handle.run)
        await objects.put(QUEUE, "over", ARGUMENTS, b"x" * BIG, run=over)
        await mesh.client.js.publish("$O.mesh_orders.C.runs.0.signal.half", b"half of it")
        await mesh.client.schedules.add("daily", "app:echo_workflow", TEXT, host=WORKER, cron="0 3 * * *")
        needed = ["runs start", "runs arg", "over start", "over end", "daily cron"]
        everything = [*needed, "runs signal", "runs signal", "nobody start", "over arg"]
        assert await is_stored(mesh, *everything)
        assert await the_orphans(mesh, 3600).sweep() == 0
        assert await is_stored(mesh, *everything)
        assert await the_orphans(mesh, 0).sweep() == 4
        assert await is_stored(mesh, *needed)
        await mesh.client.schedules.remove("daily", queue=QUEUE)
        assert await the_orphans(mesh, 0).sweep() == 1
        await handle.signal("data", "stop")
        assert await handle.result(timeout_s=TIMEOUT_S) == [BIG]


async def test_an_object_that_is_gone_suspends_its_workflow_and_one_that_is_back_lets_it_go_on(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """And an object of somebody else is no payload: a reference to it is a value that nobody can read."""
    server, app = nats_server(config=SMALL), an_app(tmp_path)
    async with a_mesh(server.url, app) as mesh:
        js = mesh.client.js
        for name in ("start", "signal"):
            handle = await mesh.start("sizes", TEXT, id=name)
            await handle.signal("data", TEXT)
        await wait_until(lambda: mesh.statistics()["resident"] == 2)
        other = next(name for name in await js.objects.names(QUEUE, "start"))
        as_stored = JetStream(mesh.client.conn, opens=False)
        messages = await as_stored.batch_get(stream_name(QUEUE), subject_filter=f"mesh.log.{QUEUE}.*.start.start")
        theirs = await mesh.start("sizes", id="theirs")
        await js.publish(theirs.key.signal("data"), messages[0].data)
        await theirs.signal("data", "stop")
        assert await theirs.result(timeout_s=TIMEOUT_S) == [0, len(messages[0].data)]
        assert other.id_token == "start"
        await mesh.node.leave()
    taken = {}
    async with mesh_client(server.url) as client:
        for name in ("start", "signal"):
            chunks = await client.js.batch_get(BUCKET, subject_filter=f"$O.mesh_orders.C.{name}.0.{name}.*")
            taken[name] = chunks[-1]
            await client.js.delete_message(BUCKET, chunks[-1].seq)
    async with a_mesh(server.url, app, node_id="b") as mesh:
        for name in ("start", "signal"):
            handle = mesh.get(name)
            await handle.signal("data", "stop")
            with pytest.raises(
                WorkflowSuspended, match=rf"{name}\.0\.{name}.*of bucket mesh_orders is missing \(3 of 4"
            ):
                await handle.result(timeout_s=TIMEOUT_S)
        assert await mesh.run("echo_workflow", "others go on") == "others go on"
        for message in taken.values():
            await mesh.client.js.publish(message.subject, message.data)
        await mesh.node.leave()
    async with a_mesh(server.url, app, node_id="c") as mesh:
        for name in ("start", "signal"):
            handle = mesh.get(name)
            await handle.signal("data", "after")
            assert await handle.result(timeout_s=TIMEOUT_S) == [BIG, BIG]


async def test_a_workflow_that_stands_still_is_given_no_payloads(
    nats_server: ServerFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each that is missing is waited for, in a cluster for ten seconds, and few histories are read at a time."""
    server, app = nats_server(config=SMALL), an_app(tmp_path)
    async with a_mesh(server.url, app) as mesh:
        handle = await mesh.start("sizes", id="sizes")
        for _ in range(3):
            await handle.signal("data", TEXT)
        await wait_until_async(lambda: is_handled(mesh.client, handle, events=4))
    asked: list[str] = []
    get = Objects.get

    async def noted(objects: Objects, queue: str, reference: Reference) -> bytes:
        asked.append(reference.name)
        return await get(objects, queue, reference)

    async with mesh_client(server.url) as client:
        names = await client.js.objects.names(QUEUE, "sizes")
        assert len(names) == 3
        await client.js.objects.remove(QUEUE, [str(name) for name in names])
    monkeypatch.setattr(Objects, "get", noted)
    async with a_mesh(server.url, app, node_id="b") as mesh:
        assert (await mesh.get("sizes").describe()).status == "suspended"
    assert len(asked) == 1


@asynccontextmanager
async def mesh_client(url: str) -> AsyncIterator[Client]:
    async with mesh.client.connect(url) as client:
        yield client


async def test_an_exported_history_holds_its_payloads_and_an_import_stores_them_again(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    app = an_app(tmp_path)
    async with a_mesh(nats_server(config=SMALL).url, app) as here, a_mesh(nats_server(config=SMALL).url, app) as there:
        handle = await here.start("sizes", TEXT, id="one")
        for value in (TEXT, "stop"):
            await handle.signal("data", value)
        assert await handle.result(timeout_s=TIMEOUT_S) == [BIG, BIG]
        history = await recorded(here, "one")
        await imported(there, history)
        assert await stored(there) == ["one signal", "one start"]
        again = await recorded(there, "one")
        assert [event.data for event in again.events] == [event.data for event in history.events]
        assert await there.get("one").result(timeout_s=TIMEOUT_S) == [BIG, BIG]


async def test_nodes_that_are_killed_between_object_and_event_and_in_the_middle_of_a_call_lose_nothing(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    server, app = nats_server(config=SMALL), an_app(tmp_path)
    environ = {"MESH_TEST_DIRECTORY": str(tmp_path)}
    async with mesh_client(server.url) as client:
        async with a_node(app, server.url, node_id="a", environ=environ) as first:
            handle = await client.start("app:slow", TEXT, host=WORKER, id="slow")
            await wait_until(lambda: any(tmp_path.glob("begun-*")), TIMEOUT_S)
            first.kill()
        async with a_node(app, server.url, node_id="b", environ=environ) as second:
            await wait_until(lambda: len(list(tmp_path.glob("begun-*"))) == 2, TIMEOUT_S)
            chunks: list[str] = []

            def on_chunk(subject: str, *_: object) -> None:
                chunks.append(subject)
                second.kill()

            # The outcome's object is on its way, and the outcome comes after it.
            (tmp_path / "go").touch()
            assert await handle.result(timeout_s=TIMEOUT_S) == BIG
            subscription = client.conn.subscribe_direct("$O.mesh_orders.C.echo.*.ret.*", on_chunk)
            await client.conn.flush()
            echo = await client.start("app:everything", TEXT, host=WORKER, id="echo")
            await wait_until(lambda: bool(chunks), TIMEOUT_S)
            subscription.unsubscribe()
        async with a_node(app, server.url, node_id="c", environ=environ):
            await echo.signal("data", TEXT)
            await echo.signal("go", 1)
            result = await echo.result(timeout_s=TIMEOUT_S)
            assert result == [BIG, BIG + 1, BIG, BIG + 5, TEXT + "r"]
        events = await echo.history()
        assert [event.kind for event in events].count("exit") == 1


async def test_with_a_codec_the_object_store_sees_ciphertext_only(nats_server: ServerFactory, tmp_path: Path) -> None:
    """Encrypted first, then stored: after a takeover and for a reset run, too."""
    server, app = nats_server(config=SMALL), an_app(tmp_path)
    options = ConnectOptions(codec=Keyring({"one": bytes(range(32))}, "one"))
    secret = "secret" * (BIG // 6)
    async with (
        a_mesh(server.url, app, options=options) as mesh,
        mesh_client_with(server.url, options) as client,
    ):
        mesh = replace(mesh, client=client)
        handle = await mesh.start("everything", secret, id="one")
        await handle.signal("data", secret)
        await wait_until_async(lambda: has(mesh, "one", "exit"), TIMEOUT_S)
        events = await handle.history()
        await handle.reset(len(events))
        await wait_until_async(lambda: has(mesh, "one", "start"))
        chunks = await JetStream(mesh.client.conn, opens=False).batch_get(BUCKET, subject_filter="$O.mesh_orders.C.>")
        assert len(chunks) > 20
        assert not [chunk.subject for chunk in chunks if b"secret" in chunk.data]
        await mesh.node.leave()
    async with (
        a_mesh(server.url, app, node_id="b", options=options) as mesh,
        mesh_client_with(server.url, options) as client,
    ):
        mesh = replace(mesh, client=client)
        handle = mesh.get("one")
        await handle.signal("go")
        size = len(secret)
        assert await handle.result(timeout_s=TIMEOUT_S) == [size, size + 1, size, size + 5, secret + "r"]


@asynccontextmanager
async def mesh_client_with(url: str, options: ConnectOptions) -> AsyncIterator[Client]:
    async with mesh.client.connect(url, options=options) as client:
        yield client
