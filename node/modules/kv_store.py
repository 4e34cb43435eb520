"""A `store.kv`: keys in a JetStream bucket (ADR-8), the same for all nodes and kept when they stop.

Keys are encoded (`mesh.subjects.bucket_key`), values are payloads of ours; a value that somebody else put into the
bucket is read as JSON or text, a key that could not be one of ours is not seen. A version is the key's revision. Times
to live are the server's: whole seconds, at least one.

Reads go to the stream's leader, so that what was written is read by everybody; only `list` may come from a replica that
lags behind.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import anyio

from mesh import codec
from mesh.buckets import Bucket
from mesh.envelopes import may_open_later, why_closed
from mesh.errors import (
    TEMPORARY,
    Conflict,
    MeshError,
    NotFound,
    OutcomeUnknown,
    PayloadTooLarge,
    RequestTimeout,
    Undecodable,
)
from mesh.failure import Kind
from mesh.jetstream import JetStream
from mesh.stored_messages import is_marker
from mesh.subjects import bucket_key, bucket_key_name
from node.modules import Refused
from node.modules.stores import Condition, Held, Page, changed, exists
from node.registry import KvStoreEntry

TTL_S_MIN: Final = 1  # the server takes no less (ADR-43)
READ_AT_ONCE: Final = 100  # keys per request of `list`: their subjects are up to 3 kB each

T = TypeVar("T")


class KvStore:
    """The keys of one entry. The bucket is made when it is first needed."""

    def __init__(self, entry: KvStoreEntry, js: JetStream) -> None:
        self._entry = entry
        self._js = js
        self._bucket = Bucket(js, entry.bucket)
        self._ready = False
        self._making = anyio.Lock()

    async def get(self, key: str) -> Held | None:
        """Return what a key holds. Raises Refused."""
        return await self._with_bucket(lambda: self._get(key))

    async def put(self, key: str, value: Any, ttl_s: float | None, condition: Condition) -> Held:
        """Set a key. Raises Refused when the condition does not hold or the server does not take the write."""
        if ttl_s is not None and ttl_s < TTL_S_MIN:
            raise Refused(f"ttl must be at least {TTL_S_MIN} s in a store.kv, not {ttl_s:g} s", Kind.INVALID)
        whole_s = None if ttl_s is None else math.ceil(ttl_s)
        payload = self._js.conn.sealed(self._bucket.prefix + bucket_key(key), codec.encode(value))
        revision = await self._with_bucket(lambda: self._put(key, payload, whole_s, condition))
        return Held(key, value, revision)

    async def delete(self, key: str) -> bool:
        """Remove a key; whether it was there. Raises Refused."""
        return await self._with_bucket(lambda: self._delete(key))

    async def list(self, prefix: str, after: str, limit: int) -> Page:
        """Return the first keys with this prefix that come after `after`. Raises Refused."""
        return await self._with_bucket(lambda: self._list(prefix, after, limit))

    def info(self) -> dict[str, Any]:
        """What the store is and can do."""
        return {
            "id": self._entry.id, "backend": "kv", "consistency": "linearizable", "durable": True, "list": True,
            "versioned": True, "conditional_put": True, "ttl": True, "bucket": self._entry.bucket,
        }  # fmt: skip

    async def _get(self, key: str) -> Held | None:
        entry = await self._bucket.get(bucket_key(key), from_leader=True)
        return None if entry is None else Held(key, _value(entry.value), entry.revision)

    async def _put(self, key: str, payload: bytes, ttl_s: int | None, condition: Condition) -> int:
        encoded = bucket_key(key)
        if condition.absent:
            try:
                return await self._bucket.create(encoded, payload, ttl_s=ttl_s)
            except Conflict:
                raise exists(key) from None
        if condition.version is not None:
            try:
                return await self._bucket.update(encoded, payload, condition.version, ttl_s=ttl_s)
            except Conflict:
                raise changed(key) from None
        return await self._bucket.put(encoded, payload, ttl_s=ttl_s)

    async def _delete(self, key: str) -> bool:
        encoded = bucket_key(key)
        while True:
            entry = await self._bucket.get(encoded, from_leader=True)
            if entry is None:
                return False
            try:
                await self._bucket.delete(encoded, revision=entry.revision)
            except Conflict:
                continue  # written meanwhile: that value is the one to delete
            return True

    async def _list(self, prefix: str, after: str, limit: int) -> Page:
        stream, subjects = self._bucket.stream, self._bucket.prefix
        names = sorted(
            name
            for subject in await self._js.subject_counts(stream, f"{subjects}>")
            if (name := _name(subject.removeprefix(subjects))) is not None and name > after and name.startswith(prefix)
        )
        found: list[Held] = []
        for first in range(0, len(names), READ_AT_ONCE):
            by_subject = {f"{subjects}{bucket_key(name)}": name for name in names[first : first + READ_AT_ONCE]}
            messages = await self._js.multi_last(stream, list(by_subject))
            found += sorted(
                (
                    Held(by_subject[message.subject], _value(message.data), message.seq)
                    for message in messages
                    if not is_marker(message.raw_headers)
                ),
                key=lambda held: held.key,
            )
            if len(found) > limit:
                break
        return Page(tuple(found[:limit]), len(found) > limit)

    async def _with_bucket(self, do: Callable[[], Awaitable[T]]) -> T:
        """Do something with the bucket; if somebody has deleted that, once more with a new one."""
        try:
            for _ in range(2):
                await self._ensure()
                try:
                    return await do()
                except NotFound:
                    self._ready = False
            raise self._refused("the bucket is gone", Kind.UNAVAILABLE, retryable=True)
        except PayloadTooLarge as error:
            raise self._refused(f"the value is too large: {error}", Kind.INVALID) from error
        except OutcomeUnknown as error:
            text = f"{error}; the write may have happened, read the key"
            raise self._refused(text, Kind.TIMEOUT, retryable=True) from error
        except RequestTimeout as error:
            raise self._refused(str(error), Kind.TIMEOUT, retryable=True) from error
        except TEMPORARY as error:
            raise self._refused(str(error), Kind.UNAVAILABLE, retryable=True) from error
        except MeshError as error:
            raise self._refused(str(error), Kind.INTERNAL) from error

    async def _ensure(self) -> None:
        if self._ready:
            return
        async with self._making:
            if self._ready:
                return
            await self._check_bucket()
            await self._bucket.ensure(description=f"The store {self._entry.id}", replicas=self._entry.replicas)
            self._ready = True

    async def _check_bucket(self) -> None:
        """Leave a bucket that is somebody else's as it is: making it fit could drop what is in it."""
        try:
            config = (await self._js.stream_info(self._bucket.stream)).config
        except NotFound:
            return
        if config.get("max_msgs_per_subject") != 1 or not config.get("allow_msg_ttl"):
            text = "a store needs a bucket with a history of 1 and times to live; name another, or delete this one"
            raise self._refused(f"there is a bucket of another sort: {text}", Kind.INVALID)

    def _refused(self, reason: str, kind: str, *, retryable: bool = False) -> Refused:
        return Refused(f"store {self._entry.id} (bucket {self._entry.bucket}): {reason}", kind, retryable=retryable)


def _name(key: str) -> str | None:
    """The name behind a key of the bucket, None if it is not written as ours are."""
    name = bucket_key_name(key)
    return name if bucket_key(name) == key else None


def _value(data: bytes) -> Any:
    if may_open_later(data):
        raise Refused(f"the value is {why_closed(data)}", Kind.UNAVAILABLE, retryable=True)
    try:
        return codec.decode(data)
    except Undecodable:
        return data
