"""Payloads as objects against a real server: what is stored, what other clients see, what is missing or damaged."""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import nats
import pytest

import mesh.objects
from mesh.connection import ConnectOptions, connect
from mesh.errors import ServerRefused, TooLarge, Undecodable
from mesh.jetstream import JetStream
from mesh.objects import CHUNK_BYTES, CHUNKS_AT_ONCE, HEADERS_BYTES, READS_AT_ONCE, Objects
from mesh.references import (
    NotOfThisWorkflow,
    ObjectDamaged,
    ObjectMissing,
    Reference,
    bucket_of,
    decode_reference,
    is_reference,
    reference_to,
    run_of,
)
from mesh.stored_messages import StoredMessage
from store.streams import ensure_queue
from tests.conftest import ServerFactory
from tests.servers import ServerProcess
from tests.waiting import wait_until

QUEUE = "orders"
STREAM = "OBJ_mesh_orders"


@asynccontextmanager
async def objects(server: ServerProcess, **options: Any) -> AsyncIterator[tuple[JetStream, Objects]]:
    async with connect(server.url, name="test", options=ConnectOptions(**options)) as conn:
        js = JetStream(conn)
        await ensure_queue(js, QUEUE, partitions=1)
        yield js, js.objects


async def messages(js: JetStream) -> int:
    return (await js.stream_info(STREAM)).messages


async def test_a_payload_comes_back_whole_and_the_bucket_is_made_when_it_is_needed(nats_server: ServerFactory) -> None:
    data = os.urandom(3 * CHUNK_BYTES + 1)
    async with objects(nats_server()) as (js, store):
        reference = await store.put(QUEUE, "order-1", "start", data)
        assert (reference.size, reference.chunks) == (len(data), 4)
        assert await store.get(QUEUE, reference) == data
        exact = await store.put(QUEUE, "order-1", "start", data[: 2 * CHUNK_BYTES])
        assert exact.chunks == 2
        assert await store.get(QUEUE, exact) == data[: 2 * CHUNK_BYTES]
        assert exact.name != reference.name
        assert (await js.stream_info(STREAM)).config["num_replicas"] == 1


async def test_other_clients_list_and_read_the_objects(nats_server: ServerFactory) -> None:
    """`nats object ls` and `nats object get` go by ADR-20; nats-py's object store does, too."""
    server = nats_server()
    data = os.urandom(2 * CHUNK_BYTES)
    async with objects(server) as (_, store):
        reference = await store.put(QUEUE, "order%201/a", "signal", data)
        client = await nats.connect(server.url)
        try:
            bucket = await client.jetstream().object_store(bucket_of(QUEUE))
            assert [info.name for info in await bucket.list()] == [reference.name]
            read = await bucket.get(reference.name)
            assert read.data == data
            assert read.info.digest == "SHA-256=" + base64.urlsafe_b64encode(reference.digest).decode()
        finally:
            await client.close()


async def test_chunks_fit_under_a_small_limit_of_the_server(nats_server: ServerFactory) -> None:
    data = os.urandom(300_000)
    async with objects(nats_server(config="max_payload: 65536")) as (_, store):
        reference = await store.put(QUEUE, "order-1", "start", data)
        assert reference.chunks == -(-len(data) // (65536 - HEADERS_BYTES))
        assert await store.get(QUEUE, reference) == data


async def test_a_missing_chunk_and_a_changed_one_are_told_apart(nats_server: ServerFactory) -> None:
    async with objects(nats_server()) as (js, store):
        whole = await store.put(QUEUE, "order-1", "start", os.urandom(3 * CHUNK_BYTES))
        subject = f"$O.mesh_orders.C.{whole.name}"
        first = await js.get_next(STREAM, 1, subject)
        assert first is not None
        await js.delete_message(STREAM, first.seq)
        with pytest.raises(ObjectMissing, match=r"order-1\.0\.start.* is missing \(2 of 3 chunks\)"):
            await store.get(QUEUE, whole)
        await js.publish(subject, first.data)  # all of it is there, and in another order
        with pytest.raises(ObjectDamaged, match="digest"):
            await store.get(QUEUE, whole)
        with pytest.raises(ObjectMissing, match="no such bucket"):
            await store.get("another", whole)
        short = await store.put(QUEUE, "order-1", "start", b"xyz")
        with pytest.raises(ObjectDamaged, match="3 bytes instead of 4"):
            await store.get(QUEUE, short._replace(size=4))


async def test_what_a_cluster_calls_missing_is_asked_for_again(
    nats_server: ServerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that was cut off answers as the leader for a moment. Whoever believes it suspends a sound workflow."""

    class CutOff(JetStream):
        """Of a cluster, and asked through a server that lacks the last chunk, for the first few times."""

        answers = 0

        @property
        def has_copies(self) -> bool:
            return True

        async def batch_get(self, *args: Any, **options: Any) -> list[StoredMessage]:
            return (await super().batch_get(*args, **options))[: -1 if self.answers else None]

        async def subject_counts(self, *args: Any) -> dict[str, int]:
            counts = await super().subject_counts(*args)
            if not self.answers:
                return counts
            self.answers -= 1
            return {subject: count - 1 for subject, count in counts.items()}

    async with objects(nats_server()) as (js, store):
        data = os.urandom(2 * CHUNK_BYTES)
        whole = await store.put(QUEUE, "order-1", "ret", data)
        asked = CutOff(js.conn)
        asked.answers = 3
        assert await asked.objects.get(QUEUE, whole) == data
        assert asked.answers == 0
        asked.answers = 1000
        monkeypatch.setattr(mesh.objects, "MISSING_S", 0.5)
        with pytest.raises(ObjectMissing, match="1 of 2 chunks"):
            await asked.objects.get(QUEUE, whole)


async def test_nobody_waits_for_what_others_miss(nats_server: ServerFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody who may send a signal can send a reference to nothing, and a cluster is asked after that for a while."""
    missed = 0
    look = Objects._missing

    async def missing(store: Objects, bucket: str, reference: Reference) -> str:
        nonlocal missed
        missed += 1
        return await look(store, bucket, reference)

    monkeypatch.setattr(Objects, "_missing", missing)
    monkeypatch.setattr(JetStream, "has_copies", True)
    async with objects(nats_server()) as (_, store), anyio.create_task_group() as tasks:
        whole = await store.put(QUEUE, "order-1", "ret", b"x")
        for n in range(2 * READS_AT_ONCE):
            tasks.start_soon(store.get, QUEUE, whole._replace(name=f"order-1.0.signal.{n}"))
        await wait_until(lambda: missed >= READS_AT_ONCE)
        with anyio.fail_after(mesh.objects.MISSING_S / 4):
            assert await store.get(QUEUE, whole) == b"x"
        tasks.cancel_scope.cancel()


async def test_what_is_added_behind_an_object_is_not_of_it(nats_server: ServerFactory) -> None:
    """Whoever may store objects can write under the name of another one, and the stream takes no header against it."""
    async with objects(nats_server()) as (js, store):
        data = os.urandom(CHUNK_BYTES + 7)
        whole = await store.put(QUEUE, "order-1", "start", data)
        small = await store.put(QUEUE, "order-1", "start", b"x")
        with pytest.raises(ServerRefused, match="rollup"):
            await js.publish(f"$O.mesh_orders.C.{whole.name}", b"more", headers={"Nats-Rollup": "all"})
        await js.publish(f"$O.mesh_orders.C.{whole.name}", b"more")
        assert await store.get(QUEUE, whole) == data
        # However much somebody adds, little of it is read.
        for _ in range(100):
            js.conn.publish_nowait(f"$O.mesh_orders.C.{small.name}", bytes(CHUNK_BYTES))
        await js.conn.flush()
        assert await store.get(QUEUE, small) == b"x"
        assert len(await store._read("mesh_orders", f"$O.mesh_orders.C.{small.name}", small.size)) == CHUNKS_AT_ONCE


async def test_objects_are_listed_and_removed_by_workflow_and_run(nats_server: ServerFactory) -> None:
    async with objects(nats_server()) as (js, store):
        made = [
            await store.put(QUEUE, id_token, what, os.urandom(CHUNK_BYTES + 1), run=run)
            for id_token, what, run in (("a", "start", 0), ("a", "ret", 7), ("a", "ret", 9), ("b", "ret", 7))
        ]
        assert {str(name) for name in await store.names(QUEUE)} == {reference.name for reference in made}
        assert [str(name) for name in await store.names(QUEUE, "a", "7")] == [made[1].name]
        ages = await store.stored_ns(QUEUE, await store.names(QUEUE, "a"))
        assert len(ages) == 3
        assert min(ages.values()) > 1_000_000_000
        await store.remove(QUEUE, [reference.name for reference in made[:3]])
        assert [str(name) for name in await store.names(QUEUE)] == [made[3].name]
        assert await messages(js) == 3  # two chunks and what is said of them
        await store.remove(QUEUE, [made[3].name, made[0].name])
        assert await messages(js) == 0


async def test_what_was_not_finished_is_listed_with_its_age(nats_server: ServerFactory) -> None:
    """A writer that died between two chunks leaves no meta message; it must be found all the same."""
    async with objects(nats_server()) as (js, store):
        await store.ensure_bucket(QUEUE)
        await js.publish("$O.mesh_orders.C.order-1.0.start.left", b"chunk")
        left = await store.names(QUEUE)
        assert [str(name) for name in left] == ["order-1.0.start.left"]
        assert list(await store.stored_ns(QUEUE, left)) == left


async def test_a_payload_above_the_limit_is_refused_by_writer_and_reader(nats_server: ServerFactory) -> None:
    server = nats_server()
    async with objects(server, payload_bytes_max=1000) as (_, store):
        reference = await store.put(QUEUE, "a", "ret", b"x" * 1000)
        assert await store.get(QUEUE, reference) == b"x" * 1000
        with pytest.raises(TooLarge, match=r"the payload \(ret\) takes 1001 bytes, at most 1000"):
            await store.put(QUEUE, "a", "ret", b"x" * 1001)
    async with objects(server, payload_bytes_max=999) as (_, store):
        with pytest.raises(TooLarge, match="have it take as much"):
            await store.get(QUEUE, reference)


def test_a_reference_is_read_back_and_nothing_else_is_taken_for_one() -> None:
    reference = Reference("order-1.0.start.ab", 5, 1, bytes(32))
    written = reference.encode()
    assert is_reference(written)
    assert decode_reference(written) == reference
    assert reference_to(written, "order-1") == reference
    with pytest.raises(NotOfThisWorkflow):
        reference_to(written, "order-2")
    bad = [
        ("a.b.c", 5, 1, bytes(32)), ("a.b.c.*", 5, 1, bytes(32)), ("a.b.c. ", 5, 1, bytes(32)),
        (f"a.{'1' * 5000}.c.d", 5, 1, bytes(32)), ("a.b.c.d", 0, 1, bytes(32)), ("a.b.c.d", 5, 0, bytes(32)), ("a.b.c.d", 5, 1, b"short"),
    ]  # fmt: skip
    for fields in bad:
        with pytest.raises(Undecodable):
            decode_reference(Reference(*fields).encode())
        assert run_of(Reference(*fields).encode()) == 0
    for data in (b"", written[:3], written[:-1], written + b"x"):
        with pytest.raises(Undecodable):
            decode_reference(data)


def test_no_two_queues_share_a_bucket() -> None:
    names = ["orders", "a-b", "a--b", "a:b", "a-:b", "a--3Ab", "a--3A", "a:", "ä", "a b", "a_b"]
    buckets = [bucket_of(name) for name in names]
    assert buckets[:2] == ["mesh_orders", "mesh_a-b"]
    assert buckets[3] == "mesh_a--3Ab"
    assert len(set(buckets)) == len(names)
    assert all(part.isascii() and part.replace("_", "").replace("-", "").isalnum() for part in buckets)
