"""Payloads that are too large for a message: put into a JetStream object store, read back, removed.

Every queue has a bucket, laid out as ADR-20 says, so that `nats object ls` and `nats object get` read it: the stream
`OBJ_<bucket>`, an object's bytes in chunks under `$O.<bucket>.C.<name>`, and what it is under `$O.<bucket>.M.<name in
base64>`. What is special is that an object's chunks lie under its name (`mesh.references`) and not under a random one:
so those of one workflow can be listed and removed through the subject index.

Invariants:
  * an object is whole and acknowledged before its reference is given out;
  * what is read back has the size and the digest of the reference, or an error is raised;
  * what is known to nobody is removed with its chunks last, for by them it is found again.

Not here: when a payload becomes an object (whoever publishes it), which objects may go (`store.unreferenced`).
"""

from __future__ import annotations

import hashlib
import json
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
import anyio.to_thread

from mesh.envelopes import Closed, context_of
from mesh.errors import (
    TEMPORARY,
    Disconnected,
    MeshError,
    NotFound,
    NotPermitted,
    NotReady,
    OutcomeUnknown,
    PayloadTooLarge,
    RequestTimeout,
    TooLarge,
    Undecodable,
)
from mesh.groups import unwrapped
from mesh.references import (
    ARGUMENTS,
    NO_QUEUE,
    OUTCOME,
    Holder,
    ObjectDamaged,
    ObjectMissing,
    ObjectName,
    Reference,
    bucket_of,
    holder_of,
    holder_of_call,
    is_reference,
    parse_name,
    reference_to,
)
from mesh.subjects import stream_name

if TYPE_CHECKING:
    from mesh.jetstream import JetStream, PubAck

CHUNK_BYTES: Final = 128 * 1024  # what other clients take, and what ADR-20 suggests
HEADERS_BYTES: Final = 1024  # left free in a chunk under a small max_payload
CHUNKS_AT_ONCE: Final = 32
READS_AT_ONCE: Final = 4  # objects that are read at a time, as each of them is in memory as a whole
HASH_HERE_BYTES: Final = 256 * 1024  # what takes the event loop less than a millisecond
# An election of nats-server takes 4 to 9 s.
PATIENCE_S: Final = 15.0
AGAIN_S: Final = 0.1
# A replica is behind by milliseconds; another one is asked when it is by more.
LAG_TRIES: Final = 100
LAG_AGAIN_S: Final = 0.01
# For how long a server that was cut off may take itself for a leader.
MISSING_S: Final = 10.0
REMOVE_AT_ONCE: Final = 16
# How long what belongs to no workflow is kept: nobody knows of it but a call that is under way.
CALLS_KEPT_S: Final = 3600
ROSTER: Final = "KV_mesh_roster"
DIGEST_PREFIX: Final = "SHA-256="

T = TypeVar("T")


class Objects:
    """The objects of all queues over one connection, whose options say how large one may be."""

    def __init__(self, js: JetStream) -> None:
        self._js = js
        self.payload_bytes_max = js.conn.payload_bytes_max
        self._reads = anyio.CapacityLimiter(READS_AT_ONCE)

    # ---- instead of payloads ---------------------------------------------------------------------------------------

    async def instead(self, subject: str, payload: bytes, refused: PayloadTooLarge) -> bytes:
        """Store what a message on this subject was to carry; return the reference that it carries instead.

        refused: why it cannot, which is raised when objects may not stand for payloads there. Raises TooLarge, and what
        `put` raises.
        """
        holder = holder_of(subject)
        if holder is None or is_reference(payload):
            raise refused
        return await self._instead(holder, self._js.conn.sealed(context_of(subject), payload), refused)

    async def instead_of_arguments(
        self, identity: str, context: str, payload: bytes, refused: PayloadTooLarge
    ) -> bytes:
        """The same for the request of a call. identity: what it is asked after by. context: of the request."""
        return await self._instead_in_call(identity, ARGUMENTS, context, payload, refused)

    async def instead_of_outcome(self, identity: str, context: str, payload: bytes, refused: PayloadTooLarge) -> bytes:
        """The same for the outcome of a call that goes to whoever waits for it, and into no history."""
        return await self._instead_in_call(identity, OUTCOME, context, payload, refused)

    async def _instead_in_call(
        self, identity: str, what: str, context: str, payload: bytes, refused: PayloadTooLarge
    ) -> bytes:
        holder = holder_of_call(identity)
        if holder is None:
            raise refused
        return await self._instead(holder._replace(what=what), self._js.conn.sealed(context, payload), refused)

    async def take_back(self, subject: str, data: bytes) -> None:
        """Remove the object of a message that was not stored after all, as far as the server lets us.

        subject: of the message, or what a call is asked after by.
        """
        holder = holder_of_call(subject)
        if holder is not None:
            with suppress(MeshError):
                await self.remove(holder.queue, [reference_to(data, holder.id_token).name])

    async def fetched(self, subject: str, data: bytes) -> bytes:
        """The payload that a message under this subject refers to, opened; `Closed` when it cannot be had (any more).

        Raises RequestTimeout, Disconnected.
        """
        return await self._fetched(holder_of(subject), data, context_of(subject))

    async def fetched_in_call(self, identity: str, context: str, data: bytes) -> bytes:
        """The same for the request of a call, and for an outcome that goes into no history."""
        return await self._fetched(holder_of_call(identity), data, context)

    async def _instead(self, holder: Holder, payload: bytes, refused: PayloadTooLarge) -> bytes:
        try:
            reference = await self.put(holder.queue, holder.id_token, holder.what, payload, run=holder.run)
        except NotPermitted as error:
            raise TooLarge(
                "the payload",
                len(payload),
                refused.payload_bytes_max,
                f"this user may not store a larger one ({error})",
            ) from None
        except NotFound as error:
            raise TooLarge(
                "the payload", len(payload), refused.payload_bytes_max,
                f"there is no place for a larger one ({error}); nodes make it",
            ) from None  # fmt: skip
        return reference.encode()

    async def _fetched(self, holder: Holder | None, data: bytes, context: str) -> bytes:
        if holder is None:
            return Closed.because(data, "a reference to an object where none may be", for_ever=True)
        try:
            reference = reference_to(data, holder.id_token)
            stored = await self.get(holder.queue, reference)
        except Undecodable as error:
            return Closed.because(data, f"no reference of ours: {error}", for_ever=True)
        except (ObjectMissing, ObjectDamaged, TooLarge) as error:
            return Closed.because(data, f"kept in an object store: {error}")
        opened = self._js.conn.opened(context, stored) if self._js.opens else stored
        if is_reference(opened):
            return Closed.because(data, "a reference to a reference", for_ever=True)
        return opened

    # ---- objects ---------------------------------------------------------------------------------------------------

    async def ensure_bucket(self, queue: str, *, replicas: int = 1) -> None:
        """Make the bucket of a queue, if there is none."""
        bucket = bucket_of(queue)
        try:
            await self._js.stream_info(_stream(bucket))
        except NotFound:
            await self._js.ensure_stream(bucket_config(queue, replicas))

    async def put(self, queue: str, id_token: str, what: str, data: bytes, *, run: int = 0) -> Reference:
        """Store a payload of a workflow and return its reference once all of it is acknowledged.

        what: one token that says what it is. Raises TooLarge, NotPermitted, and what `JetStream.publish` raises.
        """
        if len(data) > self.payload_bytes_max:
            raise TooLarge(f"the payload ({what})", len(data), self.payload_bytes_max)
        digest = await _digest(data)
        patient_until_s = anyio.current_time() + PATIENCE_S
        begun = self._js.conn.is_connected
        while True:
            # Under another name each time: after silence, chunks may lie twice under this one or in a wrong order.
            name = str(ObjectName(id_token, str(run), what, secrets.token_hex(8)))
            try:
                return await self._put(queue, name, data, digest)
            except (Disconnected, NotFound, NotReady, OutcomeUnknown, RequestTimeout) as error:
                if anyio.current_time() > patient_until_s or (isinstance(error, Disconnected) and not begun):
                    raise
                begun = True
                with suppress(Disconnected, NotReady, OutcomeUnknown, RequestTimeout):
                    if isinstance(error, NotFound):
                        # Nobody has needed the bucket so far; or a cluster has no leader for it at the moment.
                        await self.ensure_bucket(queue, replicas=await self._replicas(queue))
                    else:
                        await self.remove(queue, [name])
            await anyio.sleep(AGAIN_S)

    async def get(self, queue: str, reference: Reference) -> bytes:
        """Read a payload. Raises ObjectMissing, ObjectDamaged, TooLarge, RequestTimeout, Disconnected."""
        if reference.size > self.payload_bytes_max:
            raise TooLarge(
                f"the object {reference.name}", reference.size, self.payload_bytes_max, "this node takes less than "
                "who has written it; have it take as much",
            )  # fmt: skip
        bucket = bucket_of(queue)
        # Whoever may store an object can write more behind one that is there: that is not of it.
        data = (await self._chunks(bucket, reference))[: reference.size]
        if len(data) != reference.size:
            raise ObjectDamaged(bucket, reference.name, f"{len(data)} bytes instead of {reference.size}")
        if await _digest(data) != reference.digest:
            raise ObjectDamaged(bucket, reference.name, "its digest is not that of what was stored")
        return data

    async def names(self, queue: str, of: str = "*", run: str = "*") -> list[ObjectName]:
        """The objects of a queue, of one of its workflows (its id token), or of a run; also those not finished."""
        bucket = bucket_of(queue)
        prefix = f"$O.{bucket}.C."
        try:
            counts = await self._js.subject_counts(_stream(bucket), f"{prefix}{of}.{run}.*.*")
        except NotFound:
            return []
        return [name for subject in counts if (name := parse_name(subject.removeprefix(prefix))) is not None]

    async def stored_ns(self, queue: str, names: Iterable[ObjectName]) -> dict[ObjectName, int]:
        """When each of these was stored, by the server's clock; without those that are gone."""
        bucket = bucket_of(queue)
        by_subject = {_meta_subject(bucket, str(name)): name for name in names}
        found: dict[ObjectName, int] = {}
        for page in _pages(list(by_subject), 500):
            for message in await self._js.multi_last(_stream(bucket), page):
                found[by_subject[message.subject]] = message.timestamp_ns
        for name in by_subject.values():
            if name not in found:
                first = await self._js.get_next(_stream(bucket), 1, _chunk_subject(bucket, str(name)))
                if first is not None:
                    found[name] = first.timestamp_ns
        return found

    async def remove(self, queue: str, names: Iterable[str]) -> int:
        """Remove objects; return how many there were to remove. Repeating is harmless."""
        bucket = bucket_of(queue)
        wanted = sorted(set(names))
        limit = anyio.CapacityLimiter(REMOVE_AT_ONCE)

        async def one(name: str) -> None:
            async with limit:
                await self._js.purge(_stream(bucket), subject=_meta_subject(bucket, name))
                await self._js.purge(_stream(bucket), subject=_chunk_subject(bucket, name))

        with suppress(NotFound), unwrapped():
            async with anyio.create_task_group() as tasks:
                for name in wanted:
                    tasks.start_soon(one, name)
        return len(wanted)

    # ---- writing ---------------------------------------------------------------------------------------------------

    async def _put(self, queue: str, name: str, data: bytes, digest: bytes) -> Reference:
        bucket = bucket_of(queue)
        size = max(1, min(CHUNK_BYTES, self._js.conn.max_payload - HEADERS_BYTES))
        chunks = [data[at : at + size] for at in range(0, len(data), size)]
        subject = _chunk_subject(bucket, name)
        last_seq = 0
        # The first by itself: whether there is a bucket, and a right to it, need not be told for all of them.
        for together in (chunks[:1], *_pages(chunks[1:], CHUNKS_AT_ONCE)):
            for ack in await self._publish_in_order(subject, together):
                if ack.seq <= last_seq:
                    raise OutcomeUnknown(subject)  # the server had to be told twice
                last_seq = ack.seq
        reference = Reference(name, len(data), len(chunks), digest)
        meta = json.dumps(_meta(bucket, reference, size), separators=(",", ":")).encode()
        await self._js.publish(_meta_subject(bucket, name), meta)
        return reference

    async def _publish_in_order(self, subject: str, chunks: list[bytes]) -> list[PubAck]:
        """Publish chunks without waiting for one before the next. They leave in this order: tasks begin as started."""
        acks: dict[int, PubAck] = {}

        async def one(number: int, chunk: bytes) -> None:
            acks[number] = await self._js.publish(subject, chunk)

        try:
            async with anyio.create_task_group() as tasks:
                for number, chunk in enumerate(chunks):
                    tasks.start_soon(one, number, chunk)
        except BaseExceptionGroup as group:
            raise _first(group) from None
        return [acks[number] for number in range(len(chunks))]

    async def _replicas(self, queue: str) -> int:
        """As many copies as the histories have that refer to the objects."""
        like = stream_name(queue) if queue != NO_QUEUE else ROSTER
        return int((await self._js.stream_info(like)).config.get("num_replicas", 1))

    # ---- reading ---------------------------------------------------------------------------------------------------

    async def _chunks(self, bucket: str, reference: Reference) -> bytes:
        """All chunks there are.

        A replica that answers may lag behind: the leader knows how many there must be. A server that was cut off calls
        itself the leader for a moment, though, and lacks what the others have stored meanwhile. So in a cluster it is
        believed that chunks are missing only when that is said for a while.
        """
        subject = _chunk_subject(bucket, reference.name)
        believed_at_s = anyio.current_time() + (MISSING_S if self._js.has_copies else 0.0)
        tries = 0
        while tries < LAG_TRIES:
            with suppress(NotFound):  # also said while a cluster has no leader
                async with self._reads:  # not while it is waited for what is missing: others read what is there
                    found = await self._read(bucket, subject, reference.size)
                if len(found) >= reference.chunks:
                    return b"".join(found)
            if missing := await self._missing(bucket, reference):
                if anyio.current_time() >= believed_at_s:
                    raise ObjectMissing(bucket, reference.name, missing)
                await anyio.sleep(AGAIN_S)
                continue
            if tries:
                await anyio.sleep(LAG_AGAIN_S)
            tries += 1
        raise RequestTimeout(f"the object {reference.name}: every replica lags behind", LAG_TRIES * LAG_AGAIN_S)

    async def _missing(self, bucket: str, reference: Reference) -> str:
        """What the leader says that is not there of an object, "" for nothing."""
        subject = _chunk_subject(bucket, reference.name)
        try:
            count = (await self._js.subject_counts(_stream(bucket), subject)).get(subject, 0)
        except NotFound:
            return "there is no such bucket"
        return "" if count >= reference.chunks else f"{count} of {reference.chunks} chunks"

    async def _read(self, bucket: str, subject: str, size: int) -> list[bytes]:
        """The chunks under a subject; little more than the size, however many somebody has added."""
        found: list[bytes] = []
        seq = 1
        while size >= 0:
            page = await self._js.batch_get(
                _stream(bucket), from_seq=seq, subject_filter=subject, messages_max=CHUNKS_AT_ONCE
            )
            found += [message.data for message in page]
            if len(page) < CHUNKS_AT_ONCE:
                break
            size -= sum(len(message.data) for message in page)
            seq = page[-1].seq + 1
        return found


def bucket_config(queue: str, replicas: int) -> dict[str, Any]:
    """The stream of a queue's objects (ADR-20)."""
    bucket = bucket_of(queue)
    return {
        "name": _stream(bucket),
        "description": f"Payloads of {f'queue {queue}' if queue else 'calls'} that are too large for a message",
        "subjects": [f"$O.{bucket}.C.>", f"$O.{bucket}.M.>"],
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "max_age": CALLS_KEPT_S * 1_000_000_000 if queue == NO_QUEUE else 0,
        "num_replicas": replicas,
        "allow_direct": True,
        # Whoever may store an object could empty the bucket with one header, and nothing here is written twice.
        "allow_rollup_hdrs": False,
        "deny_delete": False,
        "deny_purge": False,
        "metadata": {"moonmesh.queue": queue},
    }


def _stream(bucket: str) -> str:
    return f"OBJ_{bucket}"


def _chunk_subject(bucket: str, name: str) -> str:
    return f"$O.{bucket}.C.{name}"


def _meta_subject(bucket: str, name: str) -> str:
    return f"$O.{bucket}.M.{urlsafe_b64encode(name.encode()).decode()}"


def _meta(bucket: str, reference: Reference, chunk_bytes: int) -> dict[str, Any]:
    """What other clients read of an object."""
    return {
        "name": reference.name,
        "options": {"max_chunk_size": chunk_bytes},
        "bucket": bucket,
        "nuid": reference.name,
        "size": reference.size,
        "mtime": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "chunks": reference.chunks,
        "digest": DIGEST_PREFIX + urlsafe_b64encode(reference.digest).decode(),
    }


async def _digest(data: bytes) -> bytes:
    if len(data) <= HASH_HERE_BYTES:
        return hashlib.sha256(data).digest()
    return await anyio.to_thread.run_sync(lambda: hashlib.sha256(data).digest())


def _pages(items: list[T], size: int) -> Iterable[list[T]]:
    return (items[at : at + size] for at in range(0, len(items), size))


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Of several chunks that failed, the error that says most: one that will not pass by itself."""
    errors = [error for error in _leaves(group) if not isinstance(error, TEMPORARY)]
    return errors[0] if errors else next(iter(_leaves(group)))


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterable[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
