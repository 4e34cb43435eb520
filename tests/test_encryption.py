"""Encryption end to end on a real mesh: the broker sees ciphertext alone, keys rotate under load, nothing is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

import mesh.client
from mesh.asking import ApiError
from mesh.buckets import Bucket
from mesh.client import Client, NeedsKeys, WorkflowFailed, WorkflowHandle, WorkflowSuspended
from mesh.connection import Connection, ConnectOptions, connect
from mesh.encryption import Keyring, Keys
from mesh.envelopes import ENCRYPTED, read_encrypted
from mesh.errors import NotFound
from mesh.jetstream import JetStream
from mesh.key_files import KeyFile, KeyFileContent, write_key_file
from mesh.subjects import WorkflowKey, function_request
from tests.apps import QUEUE, WORKER, a_mesh, write_app
from tests.cluster import a_node, mesh_command
from tests.conftest import ServerFactory
from tests.waiting import wait_until_async

SECRET = "Planted-7f3a"  # in everything that a user's value can be in
KEY_OF = {"one": b"1" * 32, "two": b"2" * 32}

WORKFLOWS = {
    "order": """
    return function(input)
      workflow.version("first", 1, 2)
      workflow.attrs({ search = { customer = input.secret }, memo = { note = input.secret } })
      local inbox = process.listen("approve")
      local echoed = funcs.call("app:echo", input)
      local _, failed = funcs.call("app:fails", input)
      local child = workflow.exec("app:child", input.secret)
      local approved = inbox:receive()
      local world, err = funcs.call("app:world", input.secret)
      assert(world, tostring(err))
      return { echoed, tostring(failed), child, approved, world }
    end
    """,
    "child": "return function(secret) return secret .. ' of the child' end",
    "broken": "return function(secret) return nil, errors.new('failed with ' .. secret) end",
    "waits": "return function(text) return { text, (process.listen('go'):receive()) } end",
    "again": """
    return function(n, secret)
      if n == 0 then return secret end
      process.upgrade(nil, n - 1, secret)
    end
    """,
}
FUNCTIONS: dict[str, Any] = {
    "echo": "return { main = function(v) return v end }",
    "fails": "return { main = function(v) return nil, errors.new{ message = 'no ' .. v.secret, kind = 'Invalid', retryable = false } end }",
    "world": {
        "modules": ["store", "queue", "events", "logger", "process", "errors"],
        "source": """
        return { main = function(secret)
          local kept = assert(store.get("app:carts"))
          assert(kept:set("cart", { secret }))
          assert(kept:get("cart")[1] == secret)
          assert(queue.publish("app:mail", { secret = secret }))
          assert(events.send("orders", "paid", "order-1", { secret = secret }, { mesh = true }))
          logger:info("a line with " .. secret, { field = secret })
          local pid = assert(process.spawn_monitored("app:unit", "app:processes", secret))
          assert(process.send(pid, "say", secret))
          local said = process.listen("said"):receive()
          return said
        end }
        """,
    },
    "consume": {
        "modules": ["store"],
        "source": """
        return { main = function(data)
          store.get("app:carts"):set("consumed", data.secret)
          return true
        end }
        """,
    },
}
PROCESSES = {
    "unit": """
    return { main = function(secret)
      local msg = process.inbox():receive()
      process.send(msg:from(), "said", msg:payload():data() .. secret)
      return secret
    end }
    """
}
ENTRIES: list[dict[str, Any]] = [
    {"name": "carts", "kind": "store.kv", "bucket": "carts", "lifecycle": {"auto_start": True}},
    {"name": "driver", "kind": "queue.driver.jetstream", "lifecycle": {"auto_start": True}},
    {"name": "mail", "kind": "queue.queue", "driver": "driver", "lifecycle": {"auto_start": True}},
    {"name": "mailer", "kind": "queue.consumer", "queue": "mail", "func": "consume", "lifecycle": {"auto_start": True}},
]


def a_key_file(path: Path, *key_ids: str, primary: str | None = None) -> Path:
    """A file with some of the keys of these tests; the last one encrypts."""
    content = KeyFileContent({key_id: KEY_OF[key_id] for key_id in key_ids}, primary or key_ids[-1])
    write_key_file(path, content, new=False)
    return path


def an_app(directory: Path, **options: Any) -> Path:
    return write_app(
        directory, workflows=WORKFLOWS, functions=FUNCTIONS, processes=PROCESSES, entries=ENTRIES, **options
    )


@asynccontextmanager
async def a_broker_s_view(url: str) -> AsyncIterator[tuple[Connection, list[tuple[str, bytes]]]]:
    """What passes a server from now on, as whoever runs it sees it."""
    seen: list[tuple[str, bytes]] = []
    async with connect(url, name="broker") as conn:
        conn.subscribe_direct(">", lambda subject, _reply, data, raw: seen.append((subject, data + (raw or b""))))
        await conn.flush()
        yield conn, seen


async def everything_stored(conn: Connection) -> list[tuple[str, bytes]]:
    """All messages of all streams, with their headers."""
    js = JetStream(conn)
    names = (await js.api("STREAM.NAMES"))["streams"]
    found = []
    for name in names:
        for message in await js.batch_get(name):
            found.append((message.subject, message.data + (message.raw_headers or b"")))
    return found


@pytest.mark.timeout(120)
async def test_a_broker_sees_no_value_of_any_user(nats_server: ServerFactory, tmp_path: Path) -> None:
    """Orders, failures, children, signals, runs that continue, processes, queues, stores, events, logs, schedules."""
    url, app = nats_server().url, an_app(tmp_path / "app")
    keys = a_key_file(tmp_path / "keys.yaml", "one")
    with_keys = ("--keys", str(keys))
    async with (
        a_broker_s_view(url) as (broker, seen),
        a_node(app, url, node_id="a", arguments=with_keys) as a,
        a_node(app, url, node_id="b", arguments=(*with_keys, "--projection", str(tmp_path / "list.db"))) as b,
        mesh.client.connect(url, codec=KeyFile(keys)) as client,
    ):
        order = await client.start(
            "app:order", {"secret": SECRET}, host=WORKER, id="order-1", memo={"note": SECRET},
            search_attributes={"customer": SECRET}, messages=[("early", SECRET)],
        )  # fmt: skip
        await order.signal("approve", {"by": SECRET})
        echoed, failed, child, approved, world = await order.result(timeout_s=20)
        assert (echoed, child, approved) == ({"secret": SECRET}, f"{SECRET} of the child", {"by": SECRET})
        assert f"no {SECRET}" in failed
        assert world == SECRET + SECRET
        assert await client.call("app:echo", SECRET) == SECRET
        with pytest.raises(WorkflowFailed, match=SECRET):
            await (await client.start("app:broken", SECRET, host=WORKER)).result(timeout_s=20)
        again = await client.start("app:again", 2, SECRET, host=WORKER, id="again")
        assert await again.result(timeout_s=20) == SECRET
        large = await client.start("app:waits", SECRET * 100_000, host=WORKER, id="large")
        await large.signal("go", [SECRET * 10] * 10_000)
        assert await large.result(timeout_s=20) == [SECRET * 100_000, [SECRET * 10] * 10_000]
        waits = await client.start("app:waits", SECRET, host=WORKER, id="waits")
        await waits.describe()
        for arguments, shows in (
            (("show", "waits", "--locals"), True),
            (("ls", "--json"), True),
            (("logs",), True),
            (("export", "order-1"), False),
        ):
            done = await mesh_command(*arguments, *with_keys, url=url)
            assert (done.status, SECRET in done.out) == (0, shows), (arguments, done)
        for arguments in (("show", "waits", "--locals"), ("ls", "--json")):
            bare = await mesh_command(*arguments, url=url)
            assert (bare.status, SECRET in bare.out + bare.err) == (0, False), (arguments, bare)
        assert "encrypted with key one" in (await mesh_command("show", "order-1", url=url)).out
        back = await mesh_command("show", "waits", "--at", "1", url=url)
        assert "encrypted with key one; who has the keys can read it" in back.err, back
        assert "--app" not in back.err, back
        # Whoever looks without the keys is told what is missing, and not that there is nothing.
        for command in ("logs", "result"):
            without = await mesh_command(command, "order-1", url=url)
            assert "encrypted with key one; give the keys with --keys FILE" in without.err, without
        await client.schedules.add("hourly", "app:again", 0, SECRET, host=WORKER, every="1h")

        async def was_consumed() -> bool:
            entry = await Bucket(client.js, "carts").get("consumed")
            return entry is not None and SECRET.encode() in entry.value

        await wait_until_async(was_consumed)
        await broker.flush()
        stored = await everything_stored(broker)
        assert len(stored) > 30
        assert any(subject.startswith("$O.") for subject, _ in stored)
        leaks = [(subject, data) for subject, data in (*seen, *stored) if SECRET.encode() in data]
        assert [(subject, data[:300]) for subject, data in leaks] == []
        assert sum(data.startswith(ENCRYPTED) for _, data in stored) > 20
        for node in (a, b):
            assert "1111111" not in node.log()


@pytest.mark.timeout(120)
async def test_keys_rotate_while_nodes_die_and_what_lacks_a_key_waits_for_it(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """The owner with both keys is killed; the other one names the key it lacks, and goes on when it is there."""
    url, app = nats_server().url, an_app(tmp_path / "app")
    of_a, of_b = a_key_file(tmp_path / "a.yaml", "one"), a_key_file(tmp_path / "b.yaml", "one")
    keys = Keyring({"one": KEY_OF["one"]}, "one")
    async with (
        a_node(app, url, node_id="b", arguments=("--keys", str(of_b))) as b,
        mesh.client.connect(url, codec=keys) as client,
    ):
        async with a_node(app, url, node_id="a", arguments=("--keys", str(of_a))) as a:
            handles = [await client.start("app:waits", f"text {i}", host=WORKER, id=f"waits-{i}") for i in range(8)]
            a_key_file(of_a, "one", "two")
            keys.replace(KEY_OF, "two")
            await handles[0].signal("go", "with the new key")
            a.kill()
            await handles[1].signal("go", "with the new key")
            unread = await client.start("app:waits", "started with the new key", host=WORKER, id="unread")
            unread_too = await client.start("app:waits", "and terminated", host=WORKER, id="unread-too")
            await unread_too.terminate()
            lost = await client.start("app:waits", "and given up", host=WORKER, id="lost")
            await lost.terminate()
        for handle, event in (
            (handles[1], "event signal"), (unread, "its start"), (unread_too, "its start"), (lost, "its start"),
        ):  # fmt: skip
            await wait_until_async(partial(is_suspended, handle), 20)
            detail = (await handle.describe()).detail
            reason = detail["reason"]
            assert event in reason
            assert detail["unreadable"] == (event == "its start")
            assert "encrypted with key two, and key two is not in the keyring" in reason
        # Who says that the key is lost has it ended all the same, and its id is free.
        await lost.terminate(force=True)
        with pytest.raises(WorkflowFailed, match="terminated"):
            await lost.result(timeout_s=20)
        # What was encrypted with the old key goes on all the same.
        keys.replace(KEY_OF, "one")
        await handles[2].signal("go", "with the old key")
        assert await handles[2].result(timeout_s=20) == ["text 2", "with the old key"]
        a_key_file(of_b, "one", "two")
        os.kill(b.pid, signal.SIGHUP)
        for handle in (handles[0], handles[1], unread):
            await wait_until_async(partial(is_not_suspended, handle), 20)
        assert await handles[0].result(timeout_s=20) == ["text 0", "with the new key"]
        assert await handles[1].result(timeout_s=20) == ["text 1", "with the new key"]
        await unread.signal("go", "late")
        assert await unread.result(timeout_s=20) == ["started with the new key", "late"]
        with pytest.raises(WorkflowFailed, match="terminated"):
            await unread_too.result(timeout_s=20)
        await is_written_with(client, handles[1].key, "two")
        assert "waits-1' is suspended" in b.log()
        for secret in ("2222222", "1111111"):
            assert secret not in b.log()


async def test_what_was_said_of_a_lost_key_counts_for_the_next_owner(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    url, app = nats_server().url, an_app(tmp_path / "app")
    one = ConnectOptions(codec=Keyring({"one": KEY_OF["one"]}, "one"))
    async with a_mesh(url, app, options=one):
        pass
    async with mesh.client.connect(url, codec=Keyring(KEY_OF, "two")) as client:
        lost = await client.start("app:waits", "lost", host=WORKER, id="lost")
        await lost.terminate(force=True)
        async with a_mesh(url, app, node_id="b", options=one) as there:
            with pytest.raises(WorkflowFailed, match="terminated"):
                await there.get("lost").result(timeout_s=20)


async def test_what_was_said_of_a_lost_key_counts_though_the_start_can_be_read(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """A decision of the code is encrypted with the key that is lost: without it nothing of the run can be done again."""
    decides = "return function() workflow.version('first', 1, 2); process.listen('go'):receive() end"
    app = write_app(tmp_path, workflows={"decides": decides})
    url = nats_server().url
    one = ConnectOptions(codec=Keyring({"one": KEY_OF["one"]}, "one"))
    async with mesh.client.connect(url, codec=Keyring(KEY_OF, "one")) as client:
        async with a_mesh(url, app, options=ConnectOptions(codec=Keyring(KEY_OF, "two"))) as there:
            lost = await client.start("app:decides", host=WORKER, id="lost")

            async def has_decided() -> bool:
                return await there.kinds("lost") == ["start", "mark"]

            await wait_until_async(has_decided)
        await lost.terminate(force=True)
        async with a_mesh(url, app, node_id="b", options=one) as there:
            with pytest.raises(WorkflowFailed, match="terminated"):
                await there.get("lost").result(timeout_s=20)


async def test_a_parent_hears_of_a_child_that_is_ended_by_force(nats_server: ServerFactory, tmp_path: Path) -> None:
    """The key of the children's worker is lost: of one child the start, of the other one a decision of its code."""
    parent = """
    return function()
      assert(process.spawn_monitored("app:kept", "app:vault"))
      return tostring(process.events():receive().result.error)
    end
    """
    kept = """
    return function()
      local go = process.listen("go")
      go:receive()
      workflow.version("first", 1, 2)
      go:receive()
    end
    """
    vault: dict[str, Any] = {
        "name": "vault", "kind": "mesh.worker", "client": "app:client", "task_queue": "vault", "lifecycle": {"auto_start": True},
    }  # fmt: skip
    app = write_app(
        tmp_path, workflows={"parent": parent, "kept": kept}, entries=[vault], workers={"kept": "app:vault"}
    )
    url, one = nats_server().url, Keyring({"one": KEY_OF["one"]}, "one")
    of_vault = Keyring(KEY_OF, "two")
    async with a_mesh(url, app, options=ConnectOptions(codec=Keys(one, {"vault": of_vault}))) as there:
        children = []
        for name, primary in (("start-lost", "two"), ("mark-lost", "one")):
            of_vault.replace(KEY_OF, primary)
            run = (await there.start("parent", id=name)).run
            children.append(there.client.get(f"{name}_{run}_1", queue="vault"))
            await wait_until_async(partial(has_history, there.get(name), ["start", "ret"]))
            await wait_until_async(partial(has_history, children[-1], ["start"]))
        of_vault.replace(KEY_OF, "two")
        await children[1].signal("go")
        await wait_until_async(partial(has_history, children[1], ["start", "signal", "mark"]))
    async with a_mesh(url, app, node_id="b", options=ConnectOptions(codec=one)) as there:
        for child, what in zip(children, ("its start", "a mark of its history"), strict=True):
            lost = there.client.get(child.id, queue="vault")
            await wait_until_async(partial(is_suspended, lost), 20)
            assert f"{what} is encrypted with key two" in (await lost.describe()).detail["reason"]
            assert await there.kinds(child.id.split("_")[0]) == ["start", "ret"]
            await lost.terminate(force=True)
            assert "workflow terminated" in await there.get(child.id.split("_")[0]).result(timeout_s=20)
            with pytest.raises(WorkflowFailed, match="terminated"):
                await lost.result(timeout_s=20)


async def has_history(handle: WorkflowHandle, kinds: list[str]) -> bool:
    try:
        return [event.kind for event in await handle.history()] == kinds
    except NotFound:
        return False


async def is_not_suspended(handle: WorkflowHandle) -> bool:
    return (await handle.describe()).status != "suspended"


async def is_suspended(handle: WorkflowHandle) -> bool:
    return (await handle.describe()).status == "suspended"


async def is_written_with(client: Client, key: WorkflowKey, key_id: str) -> None:
    """Wait until the end of a workflow is there; it must have been encrypted with this key."""
    as_stored = Client(client.conn, opens=False)
    found = await as_stored.history(key.queue).last_run(key)
    assert found is not None
    assert found[1] is not None
    assert read_encrypted(found[1].data).key_id == key_id


async def test_what_was_tampered_with_suspends_the_workflow_and_no_more(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """Ciphertext that does not open: another key of the same name, moved from another workflow, a flipped bit."""
    url, app = nats_server().url, an_app(tmp_path / "app")
    keys = a_key_file(tmp_path / "keys.yaml", "one")
    async with (
        a_node(app, url, node_id="a", arguments=("--keys", str(keys))) as a,
        mesh.client.connect(url, codec=KeyFile(keys)) as client,
        mesh.client.connect(url, codec=Keyring({"one": KEY_OF["two"]}, "one")) as impostor,
        connect(url, name="broker") as broker,
    ):
        handles = [await client.start("app:waits", i, host=WORKER, id=f"waits-{i}") for i in range(5)]
        sealed = client.conn.sealed(handles[0].key.signal("go"), b"\xc1\xa4good")
        await impostor.get("waits-1", queue=QUEUE).signal("go", "by somebody else")
        await JetStream(broker).publish(handles[2].key.signal("go"), sealed)
        await JetStream(broker).publish(handles[3].key.signal("go"), sealed[:-1] + bytes((sealed[-1] ^ 1,)))
        await JetStream(broker).publish(handles[4].key.signal("go"), ENCRYPTED + b"junk")
        await JetStream(broker).publish(handles[0].key.signal("go"), sealed)
        assert await handles[0].result(timeout_s=20) == [0, "good"]
        for handle in handles[1:4]:
            await wait_until_async(partial(is_suspended, handle), 20)
            assert "does not open: it was changed" in (await handle.describe()).detail["reason"]
        # What was sent in earnest is not lost with it.
        await handles[1].signal("go", "in earnest")
        await handles[1].reset(1, without=[2])
        assert await handles[1].result(timeout_s=20) == [1, "in earnest"]
        for handle in handles[2:4]:
            await handle.terminate()
            with pytest.raises(WorkflowFailed, match="terminated"):
                await handle.result(timeout_s=20)
        for _ in range(50):
            broker.publish_nowait(function_request("app:echo"), sealed, "_INBOX.nobody")
        await broker.flush()
        assert await client.call("app:echo", "after them") == "after them"
        assert 0 < a.log().count("a call of app:echo is encrypted with key one") < 20
        # What was never an envelope of anybody is bytes that somebody has sent, as before.
        assert (await handles[4].result(timeout_s=20))[0] == 4
        assert "Traceback" not in a.log()


async def test_a_worker_that_requires_encryption_takes_nothing_that_comes_in_plain(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """Starts and signals without keys, outcomes that somebody forges, calls to services that could not read them."""
    url = nats_server().url
    foreign = {"name": "foreign", "kind": "function.nats", "subject": "svc.foreign"}
    app = write_app(
        tmp_path / "app",
        workflows={
            **WORKFLOWS,
            "asks": "return function(text) local _, err = funcs.call('app:foreign', text) return tostring(err) end",
        },
        functions={"echo": FUNCTIONS["echo"], "fails": FUNCTIONS["fails"]},
        entries=[foreign],
        worker_options={"encryption": "required"},
    )
    bare = await mesh_command("node", str(app), "--id", "bare", url=url)
    assert bare.status != 0
    assert "worker app:worker requires encryption and has no key to encrypt with" in bare.err
    keys = a_key_file(tmp_path / "keys.yaml", "one")
    async with (
        a_node(app, url, node_id="a", arguments=("--keys", str(keys))) as a,
        mesh.client.connect(url, codec=KeyFile(keys)) as client,
        mesh.client.connect(url) as stranger,
    ):
        with pytest.raises(NeedsKeys, match="takes only what is encrypted"):
            await stranger.start("app:waits", "plain", host=WORKER, id="refused")
        await stranger.js.publish(
            "mesh.wf.orders.plain.start", b'"text"', headers={"Mesh-Workflow": "app:waits"}, expect_last_subject_seq=0
        )
        # An owner that finds it there, as a node that has just started may, cannot know if it was begun when that was
        # possible, and lets it stand.
        with pytest.raises((WorkflowFailed, WorkflowSuspended), match="came in plain"):
            await client.get("plain", queue=QUEUE).result(timeout_s=20)
        waits = await client.start("app:waits", "secret", host=WORKER, id="waits")
        # A node would encrypt what it is asked for in plain.
        asked: list[tuple[str, dict[str, Any]]] = [
            ("start", {"workflow": "app:waits", "args": ["plain"], "host": WORKER}),
            ("schedule.add", {"id": "s", "workflow": "app:waits", "every": "1h", "host": WORKER}),
            ("signal", {"id": "waits", "topic": "go", "value": "plain"}),
            ("call", {"function": "app:echo", "args": ["plain"]}),
        ]
        for verb, fields in asked:
            with pytest.raises(ApiError) as refused:
                await stranger.ask(verb, **fields)
            assert refused.value.status == 403, refused.value
        await stranger.get("waits", queue=QUEUE).signal("go", "by a stranger")
        await waits.signal("go", "by a friend")
        assert await waits.result(timeout_s=20) == ["secret", "by a friend"]
        assert "came in plain, and the run takes only what is encrypted" in a.log()
        asks = await client.start("app:asks", "secret", host=WORKER)
        assert "cannot read what has to be encrypted" in await asks.result(timeout_s=20)


async def test_histories_in_files_stay_encrypted_and_are_read_with_the_keys(
    nats_server: ServerFactory, tmp_path: Path
) -> None:
    """Exported, replayed, imported under another id; without the keys none of it."""
    url, app, file = nats_server().url, an_app(tmp_path / "app"), str(tmp_path / "h.jsonl")
    keys = a_key_file(tmp_path / "keys.yaml", "one")
    with_keys = ("--keys", str(keys))
    async with (
        a_node(app, url, node_id="a", arguments=with_keys),
        mesh.client.connect(url, codec=KeyFile(keys)) as client,
    ):
        waits = await client.start("app:waits", SECRET, host=WORKER, id="waits")
        await waits.signal("go", SECRET)
        assert await waits.result(timeout_s=20) == [SECRET, SECRET]
        assert (await mesh_command("export", "waits", "-o", file, *with_keys, url=url)).status == 0
        assert SECRET not in await anyio.Path(file).read_text()
        assert (await mesh_command("replay", file, str(app), *with_keys)).status == 0
        without = await mesh_command("replay", file, str(app))
        assert (without.status, "1 history could not be read" in without.err) == (1, True), without
        assert "encrypted with key one; give the keys with --keys" in without.err
        assert "fit" not in without.err + without.out
        refused = await mesh_command("import", file, "--as", "copy", url=url)
        assert refused.status == 1
        assert "encrypted with key one; import it with --keys FILE" in refused.err
        assert (await mesh_command("import", file, "--as", "copy", *with_keys, url=url)).status == 0
        copy = client.get("copy", queue=QUEUE)
        assert await copy.result(timeout_s=20) == [SECRET, SECRET]
        await is_written_with(client, copy.key, "one")
