"""Keys of a bucket, on a real server."""

from __future__ import annotations

import anyio
import pytest

from mesh.buckets import Bucket
from mesh.connection import connect
from mesh.errors import Conflict, InvalidName
from mesh.jetstream import JetStream
from tests.conftest import ServerFactory
from tests.waiting import wait_until_async


async def expired(bucket: Bucket, key: str) -> None:
    async def is_absent() -> bool:
        return await bucket.get(key) is None

    await wait_until_async(is_absent)


async def stored_ns(js: JetStream, bucket: Bucket, key: str) -> int:
    """When the newest message of a key was stored; of one that has expired that is the server's marker."""
    message = await js.get_last(bucket.stream, f"{bucket.prefix}{key}")
    assert message is not None
    return message.timestamp_ns


async def test_keys_are_created_updated_and_deleted_with_a_check(nats_server: ServerFactory) -> None:
    async with connect(nats_server().url, name="test") as conn:
        bucket = Bucket(JetStream(conn), "b")
        info = await bucket.ensure()
        assert await bucket.ensure() == info
        assert await bucket.get("k.1") is None
        first = await bucket.create("k.1", b"one")
        with pytest.raises(Conflict):
            await bucket.create("k.1", b"two")
        second = await bucket.update("k.1", b"two", first)
        with pytest.raises(Conflict):
            await bucket.update("k.1", b"three", first)
        with pytest.raises(Conflict):
            await bucket.delete("k.1", revision=first)
        entry = await bucket.get("k.1")
        assert entry is not None
        assert (entry.key, entry.value, entry.revision) == ("k.1", b"two", second)
        await bucket.put("k.2", b"x")
        assert [(e.key, e.value) for e in await bucket.entries()] == [("k.1", b"two"), ("k.2", b"x")]
        assert [e.key for e in await bucket.entries("*.2")] == ["k.2"]
        await bucket.delete("k.1", revision=second)
        assert await bucket.get("k.1") is None
        assert [e.key for e in await bucket.entries()] == ["k.2"]
        assert await bucket.create("k.1", b"again") > second
        for bad in ("", "a b", "a:b", ".a", "a..b", "a*", "ü"):
            with pytest.raises(InvalidName):
                await bucket.get(bad)


async def test_an_expired_key_is_absent_and_can_be_created_again(nats_server: ServerFactory) -> None:
    """[6] nats-py returns an entry without value and refuses to create the key while the server's marker stands."""
    async with connect(nats_server().url, name="test") as conn:
        bucket = Bucket(JetStream(conn), "b")
        await bucket.ensure()
        await bucket.put("stays", b"v")
        revision = await bucket.create("k", b"v", ttl_s=1)
        assert await bucket.get("k") is not None
        await expired(bucket, "k")
        marker = await JetStream(conn).get_last(bucket.stream, f"{bucket.prefix}k")
        assert marker is not None  # the marker stands, so this is the case that goes wrong elsewhere
        assert marker.seq > revision
        assert await bucket.get("k", from_leader=True) is None
        assert [entry.key for entry in await bucket.entries()] == ["stays"]
        with pytest.raises(Conflict):
            await bucket.update("k", b"late", revision)
        assert await bucket.create("k", b"new", ttl_s=60) > marker.seq


async def test_a_key_that_is_renewed_lives_for_its_own_time(nats_server: ServerFactory) -> None:
    """With any other history than 1 the server would raise the time to live to that of the markers."""
    async with connect(nats_server().url, name="test") as conn:
        js = JetStream(conn)
        bucket = Bucket(js, "b")
        await bucket.ensure(marker_ttl_s=60)
        revision = await bucket.create("k", b"0", ttl_s=2)
        for n in range(2):
            await anyio.sleep(1.1)  # together longer than the key would live, and each with a second to spare
            revision = await bucket.update("k", b"%d" % n, revision, ttl_s=2)
        renewed_ns = await stored_ns(js, bucket, "k")
        await expired(bucket, "k")
        # By the server's clock: how long this test itself was held up does not count.
        assert 2.0 <= (await stored_ns(js, bucket, "k") - renewed_ns) / 1e9 < 4.0
