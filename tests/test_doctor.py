"""`mesh doctor`: planted faults, in a real mesh where that can be done and in its facts where not."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mesh.buckets import Bucket
from mesh.client import Client, connect
from mesh.connection import ConnectOptions
from mesh.encryption import Keyring, fingerprint
from mesh.hosts import HostRecord
from mesh.key_files import KeyFile, KeyFileContent, write_key_file
from mesh.membership import Claim
from mesh.rendezvous import NodeId
from mesh.server import embedded_server
from node.api.doctoring import diagnose, examine
from node.api.findings import Facts, Finding, Last, State
from node.api.server_checks import is_allowed
from store.streams import ensure_queue, stream_config
from tests.apps import QUEUE, WORKER, a_mesh, owns_everything, write_app
from tests.cluster import a_node
from tests.commands import typed
from tests.conftest import ServerFactory
from tests.waiting import wait_until, wait_until_async

WORKFLOW = "return function() return funcs.call('app:double', 2) end"
DOUBLE = "return function(n) return 2 * n end"


@pytest.fixture
def app(tmp_path: Path) -> Path:
    return write_app(tmp_path / "app", workflows={"order": WORKFLOW}, functions={"double": DOUBLE})


def an_info(config: Mapping[str, Any], **rest: Any) -> dict[str, Any]:
    return {"config": dict(config), "state": {"messages": 0, "bytes": 0}, **rest}


def an_answer(**said: Any) -> dict[str, Any]:
    member = {"incarnation": "i", "queues": [QUEUE], "leaving": False, "pid": 1}
    worker = {"worker": WORKER, "queue": QUEUE, "workflows": ["app:order"]}
    return {"pid": 1, "version": "1", "registry": "r", "workers": [worker], "member": member, **said}


def wanting(durability: str) -> dict[str, Any]:
    worker = {"worker": WORKER, "queue": QUEUE, "workflows": ["app:order"], "durability": durability}
    return {"nodes": {"a": an_answer(workers=[worker]), "b": an_answer()}}


def damaged() -> dict[str, Any]:
    return {"streams": {"WF_orders": an_info(stream_config(QUEUE, 2, 1), lost_bytes=570)}}


HEALTHY = Facts(
    version="1",
    server={"version": "2.15.1", "server_name": "s"},
    round_trip_s=0.001,
    account={"storage": 10, "limits": {"max_storage": 1000}},
    user={"user": "ada", "account": "A"},
    clocks_ahead_s={"the server's": 0.0},
    streams={"WF_orders": an_info(stream_config(QUEUE, 2, 1))},
    nodes={"a": an_answer(), "b": an_answer()},
    hosts=[HostRecord(WORKER, "app:client", QUEUE, ("app:order",))],
    claims=[Claim(QUEUE, n, NodeId("a"), "i", 1, 10) for n in range(2)],
    ends={(QUEUE, 0): Last(10, 0)},
    functions=[{"function": "app:double", "kind": "lua", "instances": 1, "subject": None}],
    now_ns=3_600_000_000_000,
    sync="always",
)


def unwell(facts: Facts) -> list[Finding]:
    """What is not as it should be."""
    return [finding for finding in diagnose(facts) if finding.state is not State.OK]


def only(facts: Facts) -> Finding:
    """The only thing that is not as it should be; there is a way out."""
    [finding] = unwell(facts)
    assert finding.fix
    return finding


def test_nothing_is_said_against_a_healthy_mesh() -> None:
    assert unwell(HEALTHY) == []
    assert [finding.check for finding in diagnose(HEALTHY)] == [
        "server", "jetstream", "latency", "clocks", "permissions", "streams", "durability", "nodes", "partitions",
        "functions", "workflows",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "state", "text"),
    [
        ({"server": {"version": "2.11.4"}}, "problem", "is too old: the mesh needs atomic batches"),
        ({"server": {"version": "2.12.0"}}, "warning", "knows no cron schedules"),
        ({"account": {"storage": 960, "limits": {"max_storage": 1000}}}, "problem", "960 B of 1.0 KB storage used (96%)"),
        ({"account": {"storage": 800, "limits": {"max_storage": 1000}}}, "warning", "(80%)"),
        ({"round_trip_s": 0.3}, "warning", "300.0 ms to the server and back"),
        ({"clocks_ahead_s": {"node a's": -5.0, "the server's": 0.1}}, "warning", "node a's by -5.0 s"),
        ({"sync": "2m"}, "warning", "a power failure perhaps what was written in the last 2m"),
        ({"sync": None}, "warning", "a power failure perhaps the last minutes, as nobody says how often is flushed"),
        (wanting("power-loss") | {"sync": None}, "problem", "a worker wants power-loss, and gets process-crash: written to files"),
        (damaged(), "problem", "the server found its files damaged when it started: 570 bytes are lost"),
        ({"nodes": {"a": an_answer(), "b": {"member": {"pid": 7, "queues": [QUEUE]}}}}, "problem", "node b is a member"),
        ({"nodes": {"a": an_answer(), "b": an_answer(version="2")}}, "warning", "1 on a; 2 on b"),
        ({"version": "3"}, "warning", "the nodes have version 1, this command 3"),
        ({"nodes": {"a": an_answer(), "b": an_answer(registry="q")}}, "warning", "different registries or code: q on b; r on a"),
        ({"claims": HEALTHY.claims[:1]}, "problem", "1 of 2 partitions of queue orders have no owner: 1;"),
        ({"claims": [*HEALTHY.claims[:1], replace(HEALTHY.claims[1], incarnation="old")]}, "problem", "have no owner: 1;"),
        ({"ends": {(QUEUE, 1): Last(11, 0)}}, "warning", "partition 1, owned by a, has an event of 3600 s ago"),
        ({"functions": [{"function": "app:g", "kind": "lua", "instances": 0}]}, "warning", "app:g is in an app and no node offers it"),
        ({"functions": [{"function": "app:pay", "kind": "nats", "instances": 0, "subject": "pay"}]}, "warning", "no NATS service says that it serves pay"),
        ({"nodes": {"a": an_answer(queues={QUEUE: {"suspended": 4}}, suspended=[{"id": "o-1", "reason": "op 1"}])}}, "problem", "4 suspended: o-1 (op 1)"),
        ({"consumers": [{"stream_name": "WF_orders", "name": "old", "config": {"durable_name": "old"}}]}, "warning", "WF_orders > old"),
        ({"consumers": [{"stream_name": "MQ_mail", "name": "c", "num_pending": 3, "config": {}}]}, "warning", "3 messages of MQ_mail wait"),
    ],
)  # fmt: skip
def test_each_fault_is_found_alone_and_has_a_way_out(change: dict[str, Any], state: str, text: str) -> None:
    finding = only(replace(HEALTHY, **change))
    assert finding.state == state
    assert text in finding.text


@pytest.mark.parametrize(
    ("field", "value", "fix"),
    [
        ("duplicate_window", 1_000_000_000, "nats stream edit WF_orders --dupe-window 2m"),
        ("discard", "new", "nats stream edit WF_orders --discard old"),
        ("max_age", 3_600_000_000_000, "nats stream edit WF_orders --max-age 0"),
        ("storage", "memory", "the server cannot change that in a stream"),
        ("allow_direct", False, "nats stream edit WF_orders --allow-direct"),
        ("allow_msg_schedules", None, "nats stream edit WF_orders --allow-schedules"),
        ("deny_purge", True, "nats stream edit WF_orders --config FILE"),
    ],
)
def test_a_stream_setting_that_is_wrong_is_named_with_what_it_should_be(field: str, value: Any, fix: str) -> None:
    config = {**stream_config(QUEUE, 2, 1), field: value}
    finding = only(replace(HEALTHY, streams={"WF_orders": an_info(config)}))
    assert finding.state is State.PROBLEM
    assert finding.text.startswith(f"WF_orders: {field} is ")
    assert fix in finding.fix


def test_a_longer_memory_for_duplicates_and_another_number_of_copies_are_nobody_s_fault() -> None:
    config = {**stream_config(QUEUE, 2, 3), "duplicate_window": 600_000_000_000, "description": "mine"}
    assert unwell(replace(HEALTHY, streams={"WF_orders": an_info(config)})) == []


def test_copies_in_a_cluster() -> None:
    """One copy, a replica that is down and one that is behind; a stream without a leader is a problem."""
    server = {"version": "2.15.1", "cluster": "c"}
    replicas = [{"name": "s2", "offline": True}, {"name": "s3", "current": False, "lag": 5000}]
    info = an_info(stream_config(QUEUE, 2, 3), cluster={"leader": "s1", "replicas": replicas})
    found = unwell(replace(HEALTHY, server=server, streams={"WF_orders": info}))
    assert [(finding.state, finding.text) for finding in found] == [
        ("warning", "WF_orders: the server s2 with a copy is down"),
        ("warning", "WF_orders: the copy on s3 is 5000 writes behind"),
    ]
    one = an_info(stream_config(QUEUE, 2, 1), cluster={"leader": "s1"})
    assert "has one copy" in only(replace(HEALTHY, server=server, streams={"WF_orders": one})).text
    headless = an_info(stream_config(QUEUE, 2, 3), cluster={})
    assert only(replace(HEALTHY, server=server, streams={"WF_orders": headless})).state is State.PROBLEM


def test_nodes_of_one_worker_that_offer_different_workflows_are_named() -> None:
    more = [{"worker": WORKER, "queue": QUEUE, "workflows": ["app:order", "app:refund"]}]
    finding = only(replace(HEALTHY, nodes={"a": an_answer(), "b": an_answer(workers=more, registry="q")}))
    assert finding.text == f"the nodes of worker {WORKER} offer different workflows: a lacks app:refund"


ONE, TWO = {"one": "11111111"}, {"two": "22222222"}
BOTH = ONE | TWO


def keys(primary: str | None, held: Mapping[str, str]) -> dict[str, Any] | None:
    return {"primary": primary, "keys": dict(held)} if held else None


def encrypting(*held: dict[str, Any] | None, mode: str = "preferred", own: dict[str, Any] | None = None) -> Facts:
    """A mesh of nodes a, b, ... with these keys, asked by a command with keys of its own."""
    nodes = {}
    for name, told in zip("abcd", held, strict=False):
        worker = {"worker": WORKER, "queue": QUEUE, "workflows": ["app:order"], "encryption": mode, "keys": told}
        nodes[name] = an_answer(workers=[worker], keys=told)
    return replace(HEALTHY, nodes=nodes, keys=own)


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        (encrypting(None, None), "no node has keys: payloads are stored in plain"),
        (encrypting(keys("one", ONE), keys("one", ONE), own=keys("one", ONE)), "queue orders: encrypted with key one (11111111) by a, b"),
        (encrypting(keys("two", BOTH), keys("two", BOTH), own=keys("two", BOTH), mode="required"), "queue orders: encrypted with key two (22222222) by a, b, one can be read too, and only what is encrypted is taken"),
        (encrypting(keys(None, ONE), keys(None, ONE)), "queue orders: written in plain by a, b, though one can be read"),
        (encrypting({"own": True}, {"own": True}), "by a codec of somebody's own, of which nothing is known here"),
    ],
)  # fmt: skip
def test_how_a_queue_is_encrypted_is_told(facts: Facts, text: str) -> None:
    assert unwell(facts) == []
    assert [finding.text for finding in diagnose(facts) if finding.check == "encryption"] == [text]


@pytest.mark.parametrize(
    ("facts", "state", "text"),
    [
        (encrypting(keys("one", ONE), None, own=keys("one", ONE)), "problem", "queue orders: node b has no keys at all, so not key one, with which a encrypts"),
        (encrypting(keys("two", BOTH), keys("two", BOTH), keys("one", ONE), own=keys("one", BOTH)), "problem", "queue orders: node c lacks key two, with which a, b encrypt"),
        (encrypting(keys("one", ONE), keys("one", {"one": "33333333"}), own=keys("one", ONE)), "problem", "queue orders: nodes have different keys of the name one: 11111111 on a; 33333333 on b"),
        (encrypting(keys("two", BOTH), keys("one", BOTH), own=keys("one", BOTH)), "warning", "queue orders: nodes encrypt with different keys: key one on b; key two on a"),
        (encrypting(keys("one", ONE), keys(None, ONE), own=keys("one", ONE)), "warning", "queue orders: nodes encrypt with different keys: key one on a; none on b"),
        (encrypting(keys("one", ONE)), "warning", "this command has no keys: what it starts and signals is stored in plain, and values are hidden from it"),
        (encrypting(keys("one", ONE), mode="required"), "warning", "is stored in plain; queue orders takes no such thing, and"),
        (encrypting(None, own=keys("one", ONE)), "warning", "this command encrypts with key one, and no node has keys: what it starts is suspended"),
        (encrypting(keys("one", ONE), own=keys("one", {"one": "33333333"})), "warning", "this command has another key of the name one than nodes have"),
        (encrypting(keys("two", BOTH), own=keys("one", ONE)), "warning", "this command lacks key two, with which nodes encrypt"),
        (encrypting(keys("one", ONE), own=keys("two", BOTH)), "warning", "this command encrypts with key two, which a cannot read"),
    ],
)  # fmt: skip
def test_who_cannot_read_what_others_write_is_named(facts: Facts, state: str, text: str) -> None:
    finding = only(facts)
    assert (finding.check, finding.state) == ("encryption", state)
    assert text in finding.text


def test_keys_of_what_is_of_no_queue_are_compared_where_those_of_the_queues_are_alike() -> None:
    facts = encrypting(keys("one", ONE), keys("one", ONE), own=keys("one", ONE))
    nodes = {**facts.nodes, "f": {"pid": 1, "version": "1", "registry": "r", "keys": None}}
    assert only(replace(facts, nodes=nodes)).text.startswith("what is of no worker's queue: node f has no keys at all")


async def test_nodes_with_different_keys_are_found_and_no_key_is_shown(
    nats_server: ServerFactory, app: Path, tmp_path: Path
) -> None:
    url, secrets = nats_server().url, {"one": b"1" * 32, "two": b"2" * 32}
    file = tmp_path / "keys.yaml"
    write_key_file(file, KeyFileContent(secrets, "two"), new=True)
    alike = ConnectOptions(codec=KeyFile(file))
    async with a_mesh(url, app, options=alike) as mesh:
        facts = await examine(mesh.client)
        assert facts.keys == {"primary": "two", "keys": {name: fingerprint(key) for name, key in secrets.items()}}
        [told] = [finding for finding in diagnose(facts) if finding.check == "encryption"]
        two = fingerprint(secrets["two"])
        assert (told.state, told.text) == (
            "ok",
            f"queue orders: encrypted with key two ({two}) by a, one can be read too",
        )
        with_keys = await typed("doctor", "--json", "--keys", str(file), url=url)
        assert told.text in with_keys.out
        bare = await typed("doctor", url=url)
        assert (bare.status, "this command has no keys" in bare.out) == (0, True), bare
        # Another file is given to a second node: the key of one name is another one, and that of the other is missing.
        wrong = ConnectOptions(codec=Keyring({"one": b"3" * 32}, "one"))
        async with a_mesh(url, app, node_id="b", settled=False, options=wrong):

            async def are_found() -> bool:
                found = [f.text for f in unwell(await examine(mesh.client)) if f.check == "encryption"]
                return any("nodes have different keys of the name one" in text for text in found) and any(
                    "node b lacks key two, with which a encrypts" in text for text in found
                )

            await wait_until_async(are_found)
            done = await typed("doctor", "--json", "--keys", str(file), url=url)
            assert done.status == 1
        for key in (*secrets.values(), b"3" * 32):
            for shown in (key.decode(), base64.b64encode(key).decode(), key.hex()):
                assert shown not in done.out + with_keys.out + bare.out


def test_a_queue_without_nodes_waits_and_so_do_its_schedules() -> None:
    info = an_info(stream_config("old", 2, 1)) | {"state": {"messages": 5}}
    facts = replace(HEALTHY, streams={**HEALTHY.streams, "WF_old": info}, schedules={"old": 2})
    assert "(5 messages), and 2 of its schedules go on" in only(facts).text
    idle = replace(HEALTHY, streams={**HEALTHY.streams, "WF_old": an_info(stream_config("old", 2, 1))})
    assert unwell(idle) == []


def test_of_a_queue_whose_nodes_are_not_known_nothing_is_said() -> None:
    """A user who may not see the nodes is not told that nobody works there, and to delete its stream."""
    full = an_info(stream_config(QUEUE, 2, 1)) | {"state": {"messages": 5}}
    facts = replace(HEALTHY, nodes={}, streams={"WF_orders": full}, faults={"nodes": "permission denied"})
    assert only(facts).text == "the nodes could not be asked: permission denied"


def test_what_a_user_may_do_is_told_by_the_server_s_own_rules() -> None:
    rights = {"allow": ["mesh.wf.*.*.start", "mesh.fn.>"], "deny": ["mesh.fn.secret.>"]}
    assert is_allowed(rights, "mesh.wf.q.i.start")
    assert is_allowed(rights, "mesh.fn.app.f")
    assert not is_allowed(rights, "mesh.fn.secret.f")
    assert not is_allowed(rights, "mesh.fn")
    assert not is_allowed(rights, "mesh.wf.q.i.signal.t")
    assert is_allowed({"deny": ["a"]}, "b")
    assert is_allowed(None, "anything")
    client = {
        "user": "c",
        "account": "A",
        "permissions": {"publish": {"allow": ["mesh.wf.>", "$JS.API.>", "mesh.node.>"]}},
    }
    [finding] = [f for f in diagnose(replace(HEALTHY, user=client)) if f.check == "permissions"]
    assert (finding.state, finding.text) == (
        "ok",
        "user c of account A may start and signal workflows, read histories, ask nodes how they are; "
        "not call functions, run a node",
    )
    blind = {"user": "c", "account": "A", "permissions": {"publish": {"allow": ["mesh.wf.>"]}}}
    assert only(replace(HEALTHY, user=blind)).state is State.WARNING


# -- a real mesh -----------------------------------------------------------------------------------------------------


async def found_by(client: Client, **options: Any) -> dict[str, Finding]:
    """What is not as it should be, by check."""
    return {finding.check: finding for finding in unwell(await examine(client, **options))}


async def test_faults_planted_in_a_real_mesh_are_found(nats_server: ServerFactory, app: Path) -> None:
    """A setting changed, a consumer left over, a node that stands still, a workflow whose code does not fit."""
    url = nats_server().url
    async with a_mesh(url, app) as mesh:
        client = mesh.client
        done = await typed("doctor", "--json", url=url)
        assert done.status == 0, done
        states = {(record["check"], record["state"]) for record in done.records()}
        assert states >= {
            ("server", "ok"),
            ("permissions", "ok"),
            ("nodes", "ok"),
            ("partitions", "ok"),
            ("workflows", "ok"),
        }
        assert {check for check, state in states if state != "ok"} == {"durability"}
        assert done.records()[0].keys() == {"check", "subject", "state", "text", "fix"}

        config = dict((await client.js.stream_info("WF_orders")).config)
        await client.js.api("STREAM.UPDATE.WF_orders", {**config, "max_age": 3600 * 10**9, "duplicate_window": 10**9})
        consumer = {"stream_name": "WF_orders", "config": {"durable_name": "forgotten", "ack_policy": "explicit"}}
        await client.js.api("CONSUMER.CREATE.WF_orders.forgotten", {**consumer, "action": "create"})
        await client.start("app:order", host=WORKER, id="o-1")
        assert await mesh.get("o-1").result(timeout_s=20) == 4
        found = await found_by(client)
        assert found.keys() == {"streams", "consumers"}
        assert "WF_orders > forgotten" in found["consumers"].text

        async with a_node(app, url, node_id="b") as other:
            silent = None
            # It is a member for three seconds after it was stopped: on a slow machine it may be none any more when asked.
            while silent is None:
                await wait_until(lambda: not owns_everything(mesh.node))
                other.stop()
                try:
                    silent = (await found_by(client)).get("nodes")
                finally:
                    other.cont()
            assert silent.text == "node b is a member and does not answer"
            assert str(other.pid) in silent.fix
        await wait_until(lambda: owns_everything(mesh.node))  # again

        done = await typed("doctor", "--quiet", url=url)
        assert done.status == 1
        assert "problem  streams" in done.out
        assert "-> nats stream edit WF_orders --max-age 0" in done.out
        assert "WF_orders: duplicate_window is 1000000000, should be 120000000000" in done.out
        assert done.err.startswith("2 problems, ")


async def test_a_suspended_workflow_is_a_problem(nats_server: ServerFactory, tmp_path: Path) -> None:
    app = write_app(tmp_path, workflows={"order": "return function() return 1 end"})
    async with a_mesh(nats_server().url, app) as mesh:
        key = mesh.get("o-1").key
        await mesh.client.js.publish(key.start(), b"{}", headers={"Mesh-Workflow": "app:odrer"})

        async def is_found() -> bool:
            return "workflows" in await found_by(mesh.client)

        await wait_until_async(is_found)
        finding = (await found_by(mesh.client))["workflows"]
        assert finding.state is State.PROBLEM
        assert finding.text.startswith("1 suspended: o-1 (this node's registry has no workflow 'app:odrer'")


async def test_a_server_of_ours_says_how_safe_it_is(tmp_path: Path) -> None:
    # By another name than its record has: what is typed when no address is said.
    async with (
        embedded_server(tmp_path / "store", port=0, sync="relaxed") as server,
        connect(server.url.replace("127.0.0.1", "localhost")) as client,
    ):
        await ensure_queue(client.js, QUEUE)
        facts = await examine(client, stores=[tmp_path / "store"])
        assert facts.sync == "2m"
        found = {finding.check: finding.state for finding in diagnose(facts)}
        assert (found["durability"], found["nodes"]) == ("warning", "warning")


async def test_a_user_who_may_do_little_is_told_what_could_not_be_seen(nats_server: ServerFactory) -> None:
    reads = '["$JS.API.INFO", "$JS.API.STREAM.INFO.KV_mesh_roster", "$JS.API.DIRECT.GET.>"]'
    config = f"""
    accounts {{ A {{ jetstream: enabled, users: [
      {{user: all, password: p}},
      {{user: few, password: p, permissions: {{publish: ["mesh.wf.>"], subscribe: "_INBOX.>"}}}},
      {{user: reader, password: p, permissions: {{publish: {reads}, subscribe: "_INBOX.>"}}}}
    ] }} }}
    """
    url = nats_server(config=config).url
    async with connect(url, options=ConnectOptions(user="all", password="p")) as client:
        await Bucket(client.js, "mesh_roster").ensure()
    done = await typed("doctor", url=url.replace("nats://", "nats://few:p@"))
    assert done.status == 1
    assert "problem  jetstream" in done.out
    assert "what this user may do is not known" in done.out
    async with connect(url, options=ConnectOptions(user="reader", password="p")) as client:
        found = {finding.check: finding for finding in diagnose(await examine(client))}
    assert (found["streams"].state, found["streams"].subject) == ("ok", "bucket mesh_roster"), "what may be seen is"
    assert (found["consumers"].state, found["nodes"].state) == ("warning", "warning")
    assert "permission denied" in found["consumers"].text


async def test_without_a_server_there_is_nothing_to_look_at() -> None:
    none = await typed("doctor", url="nats://127.0.0.1:1")
    assert (none.status, none.out) == (3, "")
    assert none.err.startswith("mesh: no NATS server at nats://127.0.0.1:1")
