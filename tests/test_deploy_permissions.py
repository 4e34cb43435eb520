"""The roles of `deploy/nats` against real servers: each can do its work, and everything else is refused.

Three servers with the configuration as shipped (`tests.secured`), a node as role `node`, a function host as role
`functions`, and then everybody tries what is not theirs.
"""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

import mesh.client
from deploy.make_accounts import JS_API_PREFIX, READING_VERBS, SHIPPED, SHIPPED_FOREIGN, SHIPPED_QUEUES, accounts_conf
from deploy.make_secrets import SecretsExist, make_secrets
from mesh import codec
from mesh.buckets import Bucket
from mesh.client import Client, FunctionFailed, WorkflowFailed, WorkflowHandle
from mesh.connection import Connection, ConnectOptions, connect
from mesh.encryption import Keyring
from mesh.envelopes import ENCRYPTED
from mesh.errors import MeshError, NoResponders, NotFound, NotPermitted, PayloadTooLarge, ServerRefused
from mesh.events import Parent, StartSpec
from mesh.follower import Delivered, Follower
from mesh.hosts import Hosts
from mesh.jetstream import JetStream
from mesh.server_settings import sync_interval
from mesh.starting import AlreadyStarted
from mesh.subjects import WorkflowKey, parse_stored, sure_subject
from mesh.wire import encode_headers, parse_headers
from node.api.endpoints import names
from node.node import Node, NodeConfig, running_node
from node.registry import load_registry
from node.telemetry.log_lines import decode_lines
from tests.apps import QUEUE, WORKER, write_app
from tests.secured import SecuredServers, secured_servers
from tests.waiting import wait_until, wait_until_async

LARGE = "x" * 1_200_000  # above the server's limit for a message
WORKFLOWS = {
    "make": "return function(size) return funcs.call('app:making', size) end",
    "once": "return function() return funcs.call('app:only_once') end",
    "greet": "return function(name) return funcs.call('app:greeting', name) end",
    "slow": "return function() return funcs.call('app:slowly') end",
    "wait": "return function() time.sleep('1h') return 'never' end",
    "approval": "return function() local ch = process.listen('approve') return ch:receive() end",
}
FUNCTIONS: dict[str, str | dict[str, Any]] = {
    # Its host claims the call in the history before it begins.
    "only_once": {
        "source": "return function() return 1 end",
        "meta": {"options": {"retry_policy": {"maximum_attempts": 1}}},
    },
    "making": "return function(size) return ('x'):rep(size) end",
    "greeting": "return function(name) return 'hello ' .. name end",
    # Longer than the second after which it is asked whether somebody has the call.
    "slowly": """
return function()
  local asked_to_stop = process.events()
  local r = channel.select{asked_to_stop:case_receive(), time.after('1100ms'):case_receive()}
  return r.channel == asked_to_stop and 'too early' or 'at last'
end
""",
}


@pytest.fixture(scope="module")
def servers() -> Iterator[SecuredServers]:
    with (
        tempfile.TemporaryDirectory(prefix="mesh-test-", ignore_cleanup_errors=True) as directory,
        secured_servers(Path(directory), queues=[QUEUE]) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_app(tmp_path_factory.mktemp("app"), workflows=WORKFLOWS, functions=FUNCTIONS)


@asynccontextmanager
async def a_node_as(
    servers: SecuredServers,
    role: str,
    app: Path,
    *,
    functions: bool = True,
    functions_only: bool = False,
    projection: Path | None = None,
) -> AsyncIterator[Node]:
    config = NodeConfig(
        servers.url, node_id=f"{role}-1", partitions=4, replicas=3, options=servers.options(role),
        functions=functions, functions_only=functions_only, projection=projection,
    )  # fmt: skip
    async with running_node(config, load_registry(app, environ={})) as node:
        yield node


@asynccontextmanager
async def a_client_as(servers: SecuredServers, role: str) -> AsyncIterator[Client]:
    async with mesh.client.connect(servers.url, options=servers.options(role)) as client:
        yield client


@asynccontextmanager
async def as_role(servers: SecuredServers, role: str) -> AsyncIterator[Connection]:
    async with connect(servers.url, name=role, options=servers.options(role)) as conn:
        yield conn


async def stored(servers: SecuredServers) -> dict[str, Any]:
    """What each stream has taken, as the operator sees it: its last sequence, and of the queue what is there."""
    async with as_role(servers, "operator") as conn:
        js = JetStream(conn)
        names = (await js.api("STREAM.NAMES")).get("streams") or []
        found: dict[str, Any] = {
            name: (await js.stream_info(name)).last_seq for name in names if name != "KV_mesh_roster"
        }
        return found | {"WF_orders": await of_the_queue(js)}


async def of_the_queue(js: JetStream) -> dict[str, int]:
    """How many messages each subject has, but that one which a node writes and the server removes at any time."""
    counts = await js.subject_counts("WF_orders", ">")
    return {subject: count for subject, count in counts.items() if subject != sure_subject(QUEUE)}


# -- what each role can do ---------------------------------------------------------------------------------------------


async def test_every_role_can_do_its_work(servers: SecuredServers, app: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A permission that is missing shows as a refusal in the log of a server, and that is looked for in the end."""
    caplog.set_level(logging.ERROR)
    logged = {name: len(servers.log(name)) for name in servers.names}
    async with (
        a_node_as(servers, "node", app, functions=False) as node,
        a_node_as(servers, "functions", app, functions_only=True) as host,
        a_client_as(servers, "client") as client,
        a_client_as(servers, "observer") as observer,
    ):
        await wait_until_async(lambda: _knows(node, host.id))
        await wait_until_async(lambda: _is_heard(node.conn, ASK_HOSTS, codec.encode([])))
        await wait_until_async(lambda: _is_heard(client.conn, ASK_HOSTS, codec.encode([])))
        # client: start, signal, result, cancel, describe, find, call
        greeting = await client.start("app:greet", "Ada", host=WORKER, id="greet-1")
        assert await greeting.result(timeout_s=20) == "hello Ada"
        assert await (await client.start("app:once", host=WORKER, id="once-1")).result(timeout_s=20) == 1
        once = [event.kind for event in await client.get("once-1", queue=QUEUE).history()]
        assert once == ["start", "claim", "ret", "end"]
        approval = await client.start("app:approval", host=WORKER, id="approval-1")
        await approval.signal("approve", "yes")
        assert await (await client.find("approval-1")).result(timeout_s=20) == "yes"
        # What is too large for a message: a client stores it and reads it.
        approval = await client.start("app:approval", host=WORKER, id="approval-2")
        await approval.signal("approve", LARGE)
        assert await approval.result(timeout_s=20) == LARGE
        waiting = await client.start("app:wait", host=WORKER, id="wait-1")
        state = await waiting.describe()
        assert (state.status, state.detail["waiting"][0]["kind"]) == ("running", "timer")
        await waiting.cancel()
        await wait_until_async(lambda: _is_asked_to_stop(waiting))
        async with anyio.create_task_group() as tasks:
            slow = await client.start("app:slow", host=WORKER, id="slow-1")
            tasks.start_soon(_slowly, client)
            assert await client.call("app:greeting", "Bob") == "hello Bob"
            assert await slow.result(timeout_s=20) == "at last"

        # observer: the nodes, a history, a result, what a workflow waits for
        assert (await Hosts(observer.js).resolve(WORKER)).queue == QUEUE
        keys = [entry.key for entry in await Bucket(observer.js, "mesh_roster").entries("*.*")]
        assert sorted(keys) == ["host.functions-1", "member.node-1"]
        greeted = observer.get("greet-1", queue=QUEUE)
        assert [event.kind for event in await greeted.history()] == ["start", "ret", "end"]
        assert await greeted.result(timeout_s=20) == "hello Ada"
        status = await observer.conn.request("mesh.node.functions-1.status", b"", timeout_s=10)
        assert codec.decode(status.data)["functions"] == ["app:greeting", "app:making", "app:only_once", "app:slowly"]
        # ... how often the servers flush, which only they themselves know ...
        for who in (observer, client):
            assert await sync_interval(who.conn) == await sync_interval(node.conn) == "120s"
        # ... and what they log, as it comes and a little later.
        lines: list[dict[str, Any]] = []
        observer.conn.subscribe_direct("mesh.logs.*", lambda _s, _r, data, _h: lines.extend(decode_lines(data)))
        await observer.conn.flush()

        async def is_heard() -> bool:
            # That somebody listens goes from server to server and from account to account; nobody waits for it.
            logging.getLogger("tests").error("heard by observers")
            return {line["node"] for line in lines} == {"node-1", "functions-1"}

        await wait_until_async(is_heard)
        kept = await observer.conn.request("mesh.node.functions-1.logs", b"", timeout_s=10)
        assert "heard by observers" in [line["event"] for line in decode_lines(kept.data)]

        # operator: with the inbox that everybody has by default
        async with a_client_as(servers, "operator") as operator:
            assert (await operator.get("wait-1", queue=QUEUE).describe()).detail["node"] == "node-1"
            await operator.get("wait-1", queue=QUEUE).terminate()
            with pytest.raises(mesh.client.WorkflowFailed, match="terminated"):
                await operator.get("wait-1", queue=QUEUE).result(timeout_s=20)

        await host.leave()
        await node.leave()
    assert [record.message for record in caplog.records if "permit" in record.message] == []
    refusals = [
        line for name in servers.names for line in servers.log(name)[logged[name] :].splitlines() if "Violation" in line
    ]
    assert refusals == []


async def test_a_function_host_without_the_right_to_read_objects_says_so(servers: SecuredServers, app: Path) -> None:
    """Reading and storing are requests, and a request's reply subject could be a workflow's: so it may do neither."""
    async with (
        a_node_as(servers, "node", app, functions=False) as node,
        a_node_as(servers, "functions", app, functions_only=True) as host,
        a_client_as(servers, "client") as client,
    ):
        await wait_until_async(lambda: _knows(node, host.id))
        await wait_until_async(lambda: _is_heard(node.conn, ASK_HOSTS, codec.encode([])))
        for name, reason in (
            ("greet", "this host may not read them"),
            ("make", "this user may not store a larger one"),
        ):
            made = await client.start(f"app:{name}", LARGE if name == "greet" else len(LARGE), host=WORKER)
            with pytest.raises(WorkflowFailed, match=reason):
                await made.result(timeout_s=20)
        # What belongs to no workflow is in one bucket for all, which other accounts could read.
        with pytest.raises(PayloadTooLarge, match="this user may not store a larger one"):
            await client.call("app:greeting", LARGE)
        with pytest.raises(FunctionFailed, match="this user may not store a larger one"):
            await client.call("app:making", len(LARGE))
        await host.leave()
        await node.leave()


# A request for every verb of the control API, in an order in which each is possible.
API_REQUESTS: dict[str, dict[str, Any]] = {
    "start": {"workflow": "app:approval", "id": "api-1", "host": WORKER},
    "describe": {"id": "api-1"},
    "history": {"id": "api-1"},
    "signal": {"id": "api-1", "topic": "approve", "value": "yes"},
    "result": {"id": "api-1", "timeout": "15s"},
    "reset": {"id": "api-1", "event": 1, "signals": False},
    "cancel": {"id": "api-1"},
    "terminate": {"id": "api-1"},
    "call": {"function": "app:greeting", "args": ["Ada"]},
    "list": {},
    "count": {},
    "schedule.add": {"workflow": "app:greet", "id": "daily", "host": WORKER, "args": ["x"], "cron": "0 3 * * *"},
    "schedule.pause": {"id": "daily"},
    "schedule.resume": {"id": "daily"},
    "schedule.ls": {},
    "schedule.trigger": {"id": "daily"},
    "schedule.rm": {"id": "daily"},
    "nodes": {},
    "functions": {},
    "services": {},
    "processes": {},
}


async def test_nodes_do_for_a_client_what_the_control_api_has_and_for_an_observer_what_reads(
    servers: SecuredServers, app: Path, tmp_path: Path
) -> None:
    assert set(API_REQUESTS) == set(names()), "a new verb: is it among those that only read?"
    async with (
        a_node_as(servers, "node", app, projection=tmp_path / "projection.sqlite3") as node,
        a_client_as(servers, "client") as client,
        a_client_as(servers, "observer") as observer,
    ):
        refused = {}
        for conn in (client.conn, observer.conn):
            await wait_until_async(partial(_is_heard, conn, "mesh.api.nodes"))
            await wait_until_async(partial(_is_heard, conn, "mesh.api.list"))
        for role, conn, verbs in (
            ("client", client.conn, list(API_REQUESTS)),
            ("observer", observer.conn, READING_VERBS),
        ):
            for verb in verbs:
                reply = await conn.request(f"mesh.api.{verb}", json.dumps(API_REQUESTS[verb]).encode(), timeout_s=20)
                if b"Nats-Service-Error" in (reply.raw_headers or b""):
                    refused[role, verb] = reply.data
        await node.leave()
    assert refused == {}


async def test_keys_work_across_accounts(servers: SecuredServers, app: Path) -> None:
    """A client in another account sees other reply subjects than nodes and function hosts: what is bound does not."""
    keys = Keyring({"k": b"k" * 32}, "k")

    def with_keys(role: str) -> ConnectOptions:
        return replace(servers.options(role), codec=keys)

    registry = load_registry(app, environ={})
    node_config = NodeConfig(
        servers.url, node_id="node-2", partitions=4, replicas=3, options=with_keys("node"), functions=False
    )
    host_config = NodeConfig(servers.url, node_id="host-2", options=with_keys("functions"), functions_only=True)
    async with (
        running_node(node_config, registry) as node,
        running_node(host_config, registry),
        mesh.client.connect(servers.url, options=with_keys("client")) as client,
        mesh.client.connect(servers.url, options=with_keys("observer")) as observer,
    ):
        for conn in (node.conn, client.conn):
            await wait_until_async(partial(_is_heard, conn, ASK_HOSTS, codec.encode([])))
        for conn in (client.conn, observer.conn):
            await wait_until_async(partial(_is_heard, conn, "mesh.api.nodes"))
        assert await client.call("app:greeting", "Ada") == "hello Ada"
        handle = await client.start("app:greet", "Ada", host=WORKER, id="with-keys")
        assert await handle.result(timeout_s=20) == "hello Ada"
        assert (await client.ask("result", id="with-keys"))["value"] == "hello Ada"
        assert (await observer.ask("describe", id="with-keys"))["value"] == "hello Ada"
        found = await Client(client.conn, opens=False).history(QUEUE).last_run(handle.key)
        assert found is not None
        assert found[1] is not None
        assert found[1].data[:3] == ENCRYPTED
        # A node with keys does not encrypt for a client without: it would seem to have them.
        approval = await client.start("app:approval", host=WORKER, id="plain-signal")
        async with a_client_as(servers, "client") as plain:
            ack = await plain.js.publish("mesh.wf.orders.plain-signal.signal.approve", codec.encode("plain"))
        assert await approval.result(timeout_s=20) == "plain"
        signal = await Client(client.conn, opens=False).js.get_seq(f"WF_{QUEUE}", ack.seq)
        assert signal is not None
        assert signal.data == codec.encode("plain")


async def test_an_observer_follows_a_stream_without_a_consumer(servers: SecuredServers, app: Path) -> None:
    """A consumer delivers wherever it is told to, so an observer may make none; it is told the same all the same."""
    async with (
        a_node_as(servers, "node", app) as node,
        a_client_as(servers, "client") as client,
        a_client_as(servers, "observer") as observer,
        anyio.create_task_group() as tasks,
    ):
        begin = (await observer.js.stream_info("WF_orders")).last_seq + 1
        seen: list[Delivered] = []
        filters = ["mesh.log.orders.*.*.start", "mesh.log.orders.*.*.end.*"]

        def see(message: Delivered) -> None:
            if ".seen-" in message.subject:  # and not what an earlier test has left to be done
                seen.append(message)

        follower = Follower(observer.conn, observer.js, "WF_orders", filters, begin, see)
        await tasks.start(follower.run)
        for number in range(3):
            greeting = await client.start("app:greet", "x", host=WORKER, id=f"seen-{number}")
            assert await greeting.result(timeout_s=20) == "hello x"
        await wait_until(lambda: len(seen) == 6)
        parsed = [subject for message in seen if (subject := parse_stored(message.subject)) is not None]
        expected = [(f"seen-{number}", kind) for number in range(3) for kind in ("start", "end")]
        assert [(subject.id, subject.kind) for subject in parsed] == expected
        assert [message.seq for message in seen] == sorted(message.seq for message in seen)
        # A node makes sure that a workflow is not there, by what it writes.
        assert not await node.client.history(QUEUE).is_running(WorkflowKey(QUEUE, "nobody"))
        tasks.cancel_scope.cancel()
        await node.leave()


# -- headers, which permissions do not see -----------------------------------------------------------------------------


async def test_a_function_host_that_means_harm_is_not_kept_out_by_its_permissions(
    servers: SecuredServers, app: Path
) -> None:
    """As docs/security.md warns. Should a server some day refuse this, the role can be trusted with less."""
    subject = "mesh.wf.orders.nobody.signal.t"
    async with (
        a_node_as(servers, "node", app),
        as_role(servers, "functions") as host,
        as_role(servers, "operator") as op,
    ):
        streams = JetStream(op)
        host.publish_nowait(subject, b"refused")
        await host.flush()
        host.subscribe_direct("mesh.fn.app.me", lambda _subject, reply, *_: host.publish_nowait(reply, b"x"))
        host.publish_nowait("mesh.fn.app.me", b"", subject)

        async def all_stored() -> list[bytes]:
            found = await streams.batch_get("WF_orders", subject_filter="mesh.log.orders.*.nobody.signal.t")
            return [message.data for message in found]

        await wait_until_async(all_stored)
        assert await all_stored() == [b"x"]


VICTIM = "mesh.wf.orders.victim"
DANGEROUS = {
    "Nats-Rollup: all": ("signal.t", {"Nats-Rollup": "all"}),
    "Nats-Rollup: sub": ("signal.approve", {"Nats-Rollup": "sub"}),
    "Nats-Rollup on a start": ("start", {"Nats-Rollup": "all", "Nats-Expected-Last-Subject-Sequence": "0"}),
    "Nats-Rollup on a cancel": ("cancel", {"Nats-Rollup": "all"}),
    "Nats-Schedule": ("signal.t", {"Nats-Schedule": "@every 1s", "Nats-Schedule-Target": f"{VICTIM}.end.1"}),
    "Nats-TTL": ("signal.t", {"Nats-TTL": "1s"}),
    "Nats-Batch-Id": ("signal.t", {"Nats-Batch-Id": "b", "Nats-Batch-Sequence": "1", "Nats-Batch-Commit": "1"}),
    "Mesh-From": ("signal.t", {"Mesh-From": "{app:worker@app:worker|boss}"}),
    "Mesh-Imported": ("signal.t", {"Mesh-Imported": "i 1"}),
    "Mesh-Origin": ("start", {"Mesh-Origin": "orders victim 1 1", "Mesh-Workflow": "app:greet"}),
}


async def test_a_client_deletes_delays_and_forges_nothing_by_a_header(servers: SecuredServers, app: Path) -> None:
    """One header on a signal is enough to delete all of a stream, and no permission of the server keeps it out."""
    async with (
        a_node_as(servers, "node", app) as node,
        a_client_as(servers, "client") as client,
        as_role(servers, "operator") as operator,
    ):
        await wait_until_async(lambda: _is_heard(client.conn, "mesh.api.nodes"))
        victim = await client.start("app:approval", host=WORKER, id="victim")
        await client.js.publish(f"{VICTIM}.signal.other", codec.encode(1))
        streams = JetStream(operator)
        before = await of_the_queue(streams)
        passed: list[str] = []
        said: list[str] = []
        for name, (kind, headers) in DANGEROUS.items():
            client.conn.publish_nowait(f"{VICTIM}.{kind}", b"x", headers=headers)  # with nobody to be told
            try:
                await client.js.publish(f"{VICTIM}.{kind}", b"x", headers=headers)
                passed.append(name)
            except MeshError as refused:
                said.append(str(refused))
        assert (passed, await of_the_queue(streams)) == ([], before)
        assert [text for text in said if "not passed on" not in text] == []

        # A child's end is told to its parent: nobody outside may say that he is one.
        (start, *_) = await victim.history()
        spec = StartSpec("app:greet", codec.pack(["forged"]), WORKER, parent=Parent(QUEUE, "victim", start.seq, 1))
        with pytest.raises(ServerRefused, match="parent"):
            await client.js.publish("mesh.wf.orders.child.start", spec.encode(), expect_last_subject_seq=0)

        # Nor that nobody waits for a workflow's call any more: it would be recorded as canceled.
        slow = await client.start("app:slow", host=WORKER, id="slow-3")
        functions = node.functions
        assert functions is not None
        await wait_until(lambda: functions.running == 1)
        client.conn.publish_nowait("mesh.stop.app.slowly", codec.encode(list(functions._jobs)))
        assert await client.call("app:greeting", "x") == "hello x"
        assert await slow.result(timeout_s=20) == "at last"

        # What identifies a message elsewhere keeps back nothing: nodes and others write under ids that can be guessed.
        ids = [f"{QUEUE}/victim/{start.seq}/kill", "approval"]
        for msg_id in ids:
            await client.js.publish("mesh.wf.orders.other.cancel", b"", msg_id=msg_id)
        assert not (await streams.publish(f"{VICTIM}.signal.approve", codec.encode("yes"), msg_id=ids[1])).duplicate
        assert await victim.result(timeout_s=20) == "yes"
        assert [event.kind for event in await victim.history()] == ["start", "signal", "signal", "end"]
        assert all("Mesh-From" not in event.headers for event in await victim.history())
        await node.leave()


async def test_what_a_client_may_have_stored_is_stored_as_it_came(servers: SecuredServers, app: Path) -> None:
    async with a_client_as(servers, "client") as client, as_role(servers, "operator") as operator:
        async with a_node_as(servers, "node", app) as node:
            await wait_until_async(lambda: _is_heard(client.conn, "mesh.api.nodes"))
            # Of many starts under one id one is stored, and the others are told.
            started: list[WorkflowHandle] = []
            refused: list[str] = []

            async def start() -> None:
                try:
                    started.append(await client.start("app:approval", host=WORKER, id="one", conflict="fail"))
                except AlreadyStarted as error:
                    refused.append(error.code)

            async with anyio.create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(start)
            assert (len(started), len(refused)) == (1, 4)
            assert [event.kind for event in await started[0].history()] == ["start"]

            # A signal that comes twice is one, and what a user has put into a header is there.
            headers = {"X-Tenant": "t-1", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
            subject = "mesh.wf.orders.one.signal.t"
            acks = [await client.js.publish(subject, b'{"a": 1}', headers=headers, msg_id="m") for _ in range(2)]
            assert [ack.duplicate for ack in acks] == [False, True]
            stored_as = await JetStream(operator).get_seq(f"WF_{QUEUE}", acks[0].seq)
            assert stored_as is not None
            assert stored_as.data == b'{"a": 1}'
            assert parse_headers(stored_as.raw_headers).items() >= headers.items()

            # The largest message that a client may publish does not fit any more with what is added: an object it is.
            room = client.conn.max_payload - len(encode_headers({"Nats-Msg-Id": "0" * 24})) - len(codec.encode("")) - 4
            await started[0].signal("approve", "x" * room)
            assert await started[0].result(timeout_s=20) == "x" * room
            await node.leave()

        # With no node up nobody passes it on, and that is said at once; that it has gone goes from server to server.
        await wait_until_async(lambda: _is_silent(client.conn, "mesh.wf.orders.one.signal.t"))
        with anyio.fail_after(4), pytest.raises(NotFound, match="no node is up"):
            await client.get("one", queue=QUEUE).signal("approve", "too late")
        with anyio.fail_after(4), pytest.raises(NotFound, match="no node is up"):
            await client.start("app:approval", host=WORKER, id="two")


async def _is_asked_to_stop(handle: WorkflowHandle) -> bool:
    return bool((await handle.describe()).detail["cancel_requested"])


async def _is_heard(conn: Connection, subject: str, payload: bytes = b"") -> bool:
    """Whether somebody listens, as far as the server knows that this user is at: others tell it a little later."""
    try:
        await conn.request(subject, payload, timeout_s=10)
    except NoResponders:
        return False
    return True


async def _is_silent(conn: Connection, subject: str) -> bool:
    """Whether nobody listens any more, as far as the server knows that this user is at."""
    try:
        await conn.request(subject, b"", timeout_s=1)
    except NoResponders:
        return True
    except MeshError:
        pass
    return False


async def _knows(node: Node, host_id: str) -> bool:
    return node.members.hosts_of("app:greeting") == 1


async def _slowly(client: Client) -> None:
    assert await client.call("app:slowly") == "at last"


# -- and what it cannot ------------------------------------------------------------------------------------------------

JS = "$JS.API"
ASK_HOSTS = "mesh.who.app.greeting"
HISTORY = [
    "start",
    "signal.t",
    "cancel",
    "kill",
    "ret.1.1.1.ab",
    "end.1",
    "tick.1.1",
    "exit.1.1",
    "mark.1.m",
    "attrs.1",
]
DESTROYING = [
    f"{JS}.STREAM.DELETE.WF_orders",
    f"{JS}.STREAM.PURGE.WF_orders",
    f"{JS}.STREAM.MSG.DELETE.WF_orders",
    f"{JS}.STREAM.UPDATE.WF_orders",
    f"{JS}.STREAM.CREATE.WF_other",
    f"{JS}.STREAM.SNAPSHOT.WF_orders",
    f"{JS}.STREAM.RESTORE.WF_orders",
    f"{JS}.STREAM.LEADER.STEPDOWN.WF_orders",
    f"{JS}.CONSUMER.CREATE.WF_orders.mine",
    f"{JS}.CONSUMER.CREATE.KV_mesh_hosts.mine",
    f"{JS}.CONSUMER.DURABLE.CREATE.WF_orders.mine",
    f"{JS}.META.LEADER.STEPDOWN",
    f"{JS}.ACCOUNT.PURGE.MESH",
]
READING = [
    f"{JS}.STREAM.INFO.WF_orders",
    f"{JS}.STREAM.MSG.GET.WF_orders",
    f"{JS}.DIRECT.GET.WF_orders",
    f"{JS}.DIRECT.GET.WF_orders.mesh.log.orders.0.greet-1.start",
    f"{JS}.STREAM.NAMES",
]
ELSEWHERE = [subject.replace(JS, JS_API_PREFIX) for subject in DESTROYING]
NODES = [
    "mesh.node.node-1.unit",
    "mesh.node.node-1.ping",
    "$KV.mesh_roster.member.node-1",
    "$KV.mesh_roster.claim.orders.0",
]
SYSTEM = ["$SYS.REQ.SERVER.PING", "$SYS.REQ.ACCOUNT.MESH.CONNZ"]
SECRET_KEYS = [
    f"{JS_API_PREFIX}.DIRECT.GET.KV_sessions",
    f"{JS}.DIRECT.GET.KV_sessions",
    f"{JS}.DIRECT.GET.KV_sessions.$KV.sessions.s1",
    "$KV.sessions.s1",
]


def of_workflow(kinds: list[str]) -> list[str]:
    return [f"mesh.wf.orders.victim.{kind}" for kind in kinds]


REFUSED = {
    "node": [*SYSTEM, *(s for s in DESTROYING if "DELETE.WF" in s and "MSG" not in s), f"{JS}.STREAM.SNAPSHOT.WF_orders",
             f"{JS}.STREAM.RESTORE.WF_orders", f"{JS}.ACCOUNT.PURGE.MESH", f"{JS}.META.LEADER.STEPDOWN", "$MQTT.sess", "other"],
    "functions": [*of_workflow(HISTORY), *DESTROYING, *READING, *NODES, *SYSTEM, *SECRET_KEYS, "mesh.at.orders.0.victim.1.1",
                  "mesh.at.orders.cron.victim", "mesh.api.start", "mesh.queue.orders.0.describe", "mesh.mq.jobs", "mesh.log.orders.0.victim.start",
                  "mesh.node.node-1.status", "mesh.events.orders"],
    "client": [*of_workflow(["kill", "ret.1.1.1.ab", "end.1", "tick.1.1", "exit.1.1", "mark.1.m", "attrs.1", "claim.1.1.1"]),
               *DESTROYING, *ELSEWHERE, *NODES, *SYSTEM, *SECRET_KEYS, "mesh.at.orders.0.victim.1.1", "mesh.at.orders.cron.victim",
               f"{JS_API_PREFIX}.DIRECT.GET.KV_mesh_roster", f"{JS_API_PREFIX}.DIRECT.GET.WF_packing", *READING, "$KV.mesh_hosts.app:worker", "mesh.log.orders.0.victim.end.1",
               "mesh.note.orders.victim.suspended", "mesh.ended.orders.victim.1", "mesh.events.orders", "mesh.mq.jobs", "mesh.logs.x"],
    "observer": [*of_workflow(HISTORY), *DESTROYING, *ELSEWHERE, *NODES, *SYSTEM, *SECRET_KEYS, "mesh.fn.app.greeting", "mesh.stop.app.greeting",
                 "mesh.api.start", "mesh.api.cancel", "mesh.api.terminate", "mesh.api.signal", "mesh.at.orders.cron.victim", "$KV.mesh_hosts.x",
                 "mesh.events.orders", "mesh.logs.x"],
}  # fmt: skip

NOT_HEARD = {
    "node": ["$SYS.>", "_INBOX_client.>", "_INBOX_functions.>", ">", "$JS.API.>"],
    "functions": [">", "mesh.>", "mesh.wf.>", "mesh.log.>", "mesh.events.*", "_INBOX_node.>", "_INBOX_client.>", "$KV.>", "mesh.api.>"],
    "client": [">", "mesh.>", "mesh.fn.>", "mesh.wf.*.*.start", "mesh.wf.*.*.signal.*", "_INBOX_node.>", "_INBOX_observer.>", "$KV.>", "$SRV.>"],
    "observer": [">", "mesh.>", "mesh.fn.>", "mesh.wf.*.*.signal.*", "_INBOX_client.>", "_INBOX_node.>", "$KV.>", "mesh.api.>"],
}  # fmt: skip


@pytest.fixture
async def mesh_with_secrets(servers: SecuredServers) -> None:
    """Streams to aim at: the queue's own, one of another queue, and a bucket with somebody's sessions."""
    async with as_role(servers, "operator") as conn:
        js = JetStream(conn)
        await js.ensure_stream(
            {"name": "WF_orders", "subjects": ["mesh.wf.orders.>", "mesh.at.orders.>"], "num_replicas": 3}
        )
        await js.ensure_stream({"name": "WF_packing", "subjects": ["mesh.wf.packing.>"], "allow_direct": True})
        for bucket in ("sessions", "mesh_hosts", "mesh_roster"):
            await Bucket(js, bucket).ensure(replicas=3 if bucket.startswith("mesh") else 1)
        await Bucket(js, "sessions").put("s1", b"secret")


async def _refusal(conn: Connection, subject: str) -> str:
    """The subject that a request is refused with, empty if it is not refused."""
    try:
        await conn.request(subject, b"{}", timeout_s=10)  # what is refused is so at once
    except NotPermitted as error:
        return error.subject
    except MeshError:
        return ""
    return ""


@pytest.mark.parametrize("role", list(REFUSED))
async def test_what_a_role_may_not_do_is_refused_and_nothing_is_stored(
    role: str, servers: SecuredServers, mesh_with_secrets: None
) -> None:
    """Every attempt is refused by name; a request does not time out but says what is not permitted."""
    before = await stored(servers)
    permitted = []
    async with as_role(servers, role) as conn:
        for subject in REFUSED[role]:
            refusal = await _refusal(conn, subject)
            if refusal != subject:
                permitted.append(subject)
        heard = []
        for subject in NOT_HEARD[role]:
            subscription = conn.subscribe_direct(subject, lambda *_: None)
            await conn.flush()
            try:
                conn.check_permitted([subscription])
                heard.append(subject)
            except NotPermitted:
                continue
    assert (permitted, heard) == ([], [])
    assert await stored(servers) == before


async def test_no_detour_by_a_reply_subject_leads_a_client_or_observer_into_a_history(
    servers: SecuredServers, mesh_with_secrets: None
) -> None:
    """The server answers on whatever reply subject a request has; between accounts that leads nowhere (accounts.conf)."""
    async with as_role(servers, "operator") as conn:
        seq = (await JetStream(conn).publish("mesh.wf.orders.detour.signal.t", b"forged")).seq
    before = await stored(servers)
    ask = [
        *(f"{JS_API_PREFIX}.{verb}.WF_orders" for verb in ("DIRECT.GET", "STREAM.INFO", "STREAM.MSG.GET")),
        "mesh.api.list",
    ]
    for role in ("client", "observer"):
        kinds = [
            kind
            for kind in (*HISTORY, "claim.1.1.1")
            if role == "observer" or kind not in ("start", "signal.t", "cancel")
        ]
        async with as_role(servers, role) as conn:
            for subject in ask:
                for target in of_workflow(kinds):
                    conn.publish_nowait(subject, json.dumps({"seq": seq}).encode(), target)
            # What comes after on the same connection has been answered, so the others have been, too.
            assert (await JetStream(conn).stream_info("WF_orders")).last_seq == seq
    assert await stored(servers) == before


async def test_a_function_host_answers_no_call_into_a_history_but_as_its_outcome(
    servers: SecuredServers, app: Path
) -> None:
    """Who may call functions may not have the answer published as a signal or an end."""
    async with (
        a_node_as(servers, "node", app) as node,
        as_role(servers, "functions") as evil,
    ):
        await wait_until_async(lambda: _is_heard(evil, ASK_HOSTS, codec.encode([])))
        before = await stored(servers)
        for reply in (
            *of_workflow(HISTORY[:4]),
            *of_workflow(["end.1"]),
            "$KV.mesh_names.x",
            "mesh.at.orders.cron.victim",
        ):
            evil.publish_nowait("mesh.fn.app.greeting", codec.encode([["x"], None]), reply)
            evil.publish_nowait("mesh.who.app.greeting", codec.encode([]), reply)
        asked = await evil.request("mesh.fn.app.greeting", codec.encode([["Eve"], None]), timeout_s=5)
        assert codec.decode_outcome(asked.data) == (True, "hello Eve")
        assert await stored(servers) == before
        await node.leave()


async def test_an_outcome_that_its_host_may_not_write_after_a_reconnect_is_recorded_by_the_owner(
    servers: SecuredServers, app: Path
) -> None:
    """The right to answer goes with the connection on which the call came; the work must not be done again for that."""
    async with (
        a_node_as(servers, "node", app, functions=False) as node,
        a_node_as(servers, "functions", app, functions_only=True) as host,
        a_client_as(servers, "client") as client,
    ):
        await wait_until_async(lambda: _knows(node, host.id))
        await wait_until_async(lambda: _is_heard(node.conn, ASK_HOSTS, codec.encode([])))
        handle = await client.start("app:slow", host=WORKER, id="slow-2")
        functions = host.functions
        assert functions is not None
        await wait_until(lambda: functions.running == 1)
        writer = host.conn._writer
        assert writer is not None
        writer.transport.abort()
        await wait_until(lambda: host.conn.epoch == 2)
        assert await handle.result(timeout_s=20) == "at last"
        outcome = (await handle.history())[1]
        run, op, attempt, *_ = outcome.args
        assert (outcome.kind, op, attempt) == ("ret", "1", "1")
        refused = f'Publish Violation - Subject "mesh.wf.orders.slow-2.ret.{run}.1.1.'
        assert any(refused in servers.log(name) for name in servers.names)
        await node.leave()


# -- a node or client with the wrong role ------------------------------------------------------------------------------


async def test_a_wrong_role_or_inbox_is_said_at_once_and_in_one_sentence(servers: SecuredServers, app: Path) -> None:
    with anyio.fail_after(15), pytest.raises(NotPermitted, match=r"mesh\.node\.client-1\.ping.*role may"):
        async with a_node_as(servers, "client", app):
            pass
    with anyio.fail_after(15), pytest.raises(NotPermitted, match=r"mesh\.fn\.app\..*may not subscribe"):
        async with a_node_as(servers, "observer", app, functions_only=True):
            pass
    options = replace(servers.options("client"), inbox_prefix="_INBOX")
    async with mesh.client.connect(servers.url, options=options) as client:
        with anyio.fail_after(15), pytest.raises(NotPermitted, match="--inbox-prefix _INBOX_client"):
            await client.start("app:greet", host=WORKER)


# -- the files themselves ----------------------------------------------------------------------------------------------


def test_the_shipped_accounts_are_what_their_script_makes() -> None:
    assert SHIPPED.read_text() == accounts_conf(SHIPPED_QUEUES, SHIPPED_FOREIGN)


def test_no_secret_is_in_the_shipped_files() -> None:
    for file in SHIPPED.parent.rglob("*"):
        if file.is_file() and "secrets" not in file.parts:
            text = file.read_text()
            assert not re.search(r"\$2[aby]\$|-----BEGIN|\bSU[A-Z2-7]{56}\b|password: *[^$\s]", text), file


def test_secrets_are_for_their_owner_only_and_are_not_made_twice(tmp_path: Path) -> None:
    directory = tmp_path / "secrets"
    make_secrets(directory, hosts=["n1.example.com"], rounds=4)
    assert {oct(file.stat().st_mode & 0o777) for file in directory.rglob("*") if file.is_file()} == {"0o600"}
    with pytest.raises(SecretsExist, match="not empty"):
        make_secrets(directory)
    done = subprocess.run(
        [sys.executable, "-m", "deploy.make_secrets", str(directory)],
        cwd=SHIPPED.parent.parent.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, "not empty" in done.stderr) == (1, True)
