"""Streams and what is written to them: acknowledged writes and atomic batches.

`JetStream` is the whole of a connection's dealings with streams, as what reads (`mesh.stream_reads`) is part of it.

Not here: which streams there are and how they are configured (`store`), key-value buckets (`mesh.buckets`), writes that
repeat themselves (`mesh.outbox`), following a stream (`mesh.follower`).

Invariant: a write that was sent and not acknowledged raises OutcomeUnknown and nothing else.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import anyio

from mesh.connection import Connection, Headers, encode_headers
from mesh.envelopes import context_of
from mesh.errors import (
    Conflict,
    Disconnected,
    NoResponders,
    NotFound,
    NotReady,
    OutcomeUnknown,
    PayloadTooLarge,
    RequestTimeout,
    ServerRefused,
)
from mesh.jetstream_api import TIMEOUT_S, Config, error_of, json_answer
from mesh.objects import Objects
from mesh.stored_messages import StoredMessage
from mesh.stream_reads import StreamInfo, StreamReads, stream_info_of

REACHED_AGAIN_S = 0.005
# How long the message stands by which a copy is known to be up to date: longer than all of them are asked, 3 s.
SURE_TTL_S = 10
BATCH_WRITES_MAX = 1000  # the server's own limit (ADR-50)

_STREAM_NAME_IN_USE = 10058  # err_code
_EXPECT_SEQ = "Nats-Expected-Last-Subject-Sequence"
_EXPECT_SUBJECT = "Nats-Expected-Last-Subject-Sequence-Subject"


class PubAck(NamedTuple):
    """The server's word that a message is stored (or was already: duplicate)."""

    seq: int
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class BatchMessage:
    """One message of an atomic batch."""

    subject: str
    payload: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    expect_last_subject_seq: int | None = None


class JetStream(StreamReads):
    """The streams that one connection reaches; for opens and lazily see `StreamReads`."""

    def __init__(
        self, conn: Connection, *, timeout_s: float = TIMEOUT_S, opens: bool = True, lazily: bool = False
    ) -> None:
        super().__init__(conn, timeout_s=timeout_s, opens=opens, lazily=lazily)
        self.objects = Objects(self)

    async def fetched(self, subject: str, reference: bytes) -> bytes:
        """What a reference that is stored under this subject stands for, out of the object store."""
        return await self.objects.fetched(subject, reference)

    # ---- streams ---------------------------------------------------------------------------------------------------

    async def ensure_stream(self, config: Config) -> StreamInfo:
        """Create the stream, or update it where it differs from the given fields; others stay as they are.

        Doing it twice, or from several nodes at once, is harmless. What is written after it reaches the stream. Raises
        ServerRefused if the server cannot change the stream that way.
        """
        answer = await self._ensure(str(config["name"]), config)
        if "cluster" in answer:
            await self._wait_reached(answer["config"])
        return stream_info_of(answer)

    async def _ensure(self, name: str, config: Config) -> Config:
        try:
            answer = await self.api(f"STREAM.INFO.{name}")
        except NotFound:
            try:
                return await self.api(f"STREAM.CREATE.{name}", config)
            except ServerRefused as refused:
                if refused.err_code != _STREAM_NAME_IN_USE:
                    raise
            answer = await self.api(f"STREAM.INFO.{name}")
        merged = _merge(answer["config"], config)
        if merged == answer["config"]:
            return answer
        return await self.api(f"STREAM.UPDATE.{name}", merged)

    async def _wait_reached(self, config: Config) -> None:
        """Wait until the server that we are connected to has heard which server of its cluster takes the subjects.

        That travels on another connection than the answer to who made the stream. Asked by a write that cannot succeed.
        """
        subjects = config.get("subjects") or []
        if not subjects:
            return
        subject = str(subjects[0]).replace("*", "probe").replace(">", "probe")
        with anyio.move_on_after(self.timeout_s):
            while True:
                try:
                    await self._write(subject, b"", {"Nats-Expected-Stream": "probe"}, None, None)
                except ServerRefused:
                    return
                except (NotFound, OutcomeUnknown):
                    await anyio.sleep(REACHED_AGAIN_S)
        raise NotReady(
            subject, 0, f"stream {config['name']} is there, but no server takes this: does it have a leader?"
        )

    async def delete_stream(self, stream: str) -> None:
        """Delete a stream and all that is in it. Raises NotFound."""
        await self.api(f"STREAM.DELETE.{stream}")

    async def purge(self, stream: str, *, subject: str | None = None, up_to_seq: int | None = None) -> int:
        """Delete the messages of a subject (wildcards allowed; None = all), those before up_to_seq; return how many."""
        request: dict[str, object] = {}
        if subject is not None:
            request["filter"] = subject
        if up_to_seq is not None:
            request["seq"] = up_to_seq
        return int((await self.api(f"STREAM.PURGE.{stream}", request)).get("purged", 0))

    async def delete_message(self, stream: str, seq: int) -> bool:
        """Delete one message; return whether it was there. Its bytes are not overwritten on disk."""
        return await self.ask_for_message(f"STREAM.MSG.DELETE.{stream}", {"seq": seq, "no_erase": True}) is not None

    # ---- writes ----------------------------------------------------------------------------------------------------

    async def publish(
        self,
        subject: str,
        payload: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        expect_last_subject_seq: int | None = None,
        expect_subject: str | None = None,
        msg_id: str | None = None,
        ttl_s: int | None = None,
        timeout_s: float | None = None,
    ) -> PubAck:
        """Write one message and return once the server has acknowledged it.

        expect_last_subject_seq: sequence that must be the subject's last one, 0 for "none yet"; None = do not check.
        expect_subject: check that of this subject instead, which may have wildcards. ttl_s: whole seconds, at least 1.
        A payload that is too large and may be an object becomes one (`mesh.objects`).
        Raises Conflict; OutcomeUnknown if no ack came: it may still be stored later; NotFound if no stream takes the
        subject; Disconnected if it was not sent; PayloadTooLarge; ServerRefused.
        """
        block = write_headers(
            headers,
            expect_last_subject_seq=expect_last_subject_seq,
            expect_subject=expect_subject,
            msg_id=msg_id,
            ttl_s=ttl_s,
        )
        try:
            answer = await self._write(subject, payload, block or None, expect_last_subject_seq, timeout_s)
        except PayloadTooLarge as error:
            reference = await self.objects.instead(subject, payload, error)
            try:
                answer = await self._write(subject, reference, block or None, expect_last_subject_seq, timeout_s)
            except (Conflict, NotFound, ServerRefused):
                await self.objects.take_back(subject, reference)
                raise
        return PubAck(int(answer["seq"]), bool(answer.get("duplicate", False)))

    async def sure_last(self, stream: str, subjects: Sequence[str], *, by: str) -> tuple[list[StoredMessage], int]:
        """Return the last message of every subject, as `multi_last`, and the sequence up to which all of it is seen.

        For what must not be believed of a server that has lost touch: that there is nothing. Such a one answers from
        the past, as the leader too, but has nothing stored any more. So a message is stored on `by` first, a subject of
        the stream that is nobody's, and expires; a copy that has it has all that was acknowledged before.
        Of a server that stands alone nothing is asked but the reading. Raises as `publish` and `multi_last`.
        """
        if not self.has_copies:
            return await self.multi_last(stream, subjects), 0
        stored = await self.publish(by, ttl_s=SURE_TTL_S)
        tries = 0
        while True:
            messages, _ = await self._last_of_a_copy(stream, [*subjects, by], None)
            if any(message.subject == by and message.seq >= stored.seq for message in messages):
                return [message for message in messages if message.subject != by], stored.seq
            tries = await self._try_another_copy(stream, tries)

    async def publish_batch(self, messages: Sequence[BatchMessage], *, timeout_s: float | None = None) -> PubAck:
        """Write all messages or none (ADR-50); return the ack of the last. The stream needs `allow_atomic`.

        At most BATCH_WRITES_MAX, all for the same stream. Takes about 3 ms whatever its size. Raises as `publish`;
        after OutcomeUnknown either all are stored or none.
        """
        if not 0 < len(messages) <= BATCH_WRITES_MAX:
            raise ValueError(f"an atomic batch has 1 to {BATCH_WRITES_MAX} messages, not {len(messages)}")
        batch = secrets.token_hex(11)
        first_errors: list[bytes] = []
        blocks = [
            write_headers(
                {
                    **message.headers,
                    "Nats-Batch-Id": batch,
                    "Nats-Batch-Sequence": str(number),
                    **({"Nats-Batch-Commit": "1"} if number == len(messages) else {}),
                },
                expect_last_subject_seq=message.expect_last_subject_seq,
            )
            for number, message in enumerate(messages, 1)
        ]
        messages = [
            await self._fitting(message, len(encode_headers(block)))
            for message, block in zip(messages, blocks, strict=True)
        ]
        token = None
        try:
            for number, (message, block) in enumerate(zip(messages[:-1], blocks, strict=False)):
                if number == 0:
                    # The answer to the first says why a batch is refused, that to the last only that it is incomplete.
                    token = self.conn.request_nowait(
                        message.subject, message.payload, lambda data, _raw: first_errors.append(data), block
                    )
                else:
                    self.conn.publish_nowait(message.subject, message.payload, headers=block)
            last = messages[-1]
            expected = last.expect_last_subject_seq
            try:
                answer = await self._write(last.subject, last.payload, blocks[-1], expected, timeout_s)
            except ServerRefused:
                first = json_answer(messages[0].subject, first_errors[0]) if any(first_errors) else {}
                if "error" in first:
                    raise error_of(messages[0].subject, first["error"]) from None
                raise
        finally:
            if token is not None:
                self.conn.forget(token)
        if answer.get("batch") != batch or answer.get("count") != len(messages):
            raise ServerRefused(last.subject, 0, f"stored as a plain message, not as a batch: {answer}")
        return PubAck(int(answer["seq"]))

    async def _write(
        self, subject: str, payload: bytes, headers: Headers | None, expected: int | None, timeout_s: float | None
    ) -> Config:
        could_be_sent = self.conn.is_connected
        try:
            reply = await self.conn.request(subject, payload, timeout_s=timeout_s or self.timeout_s, headers=headers)
        except NoResponders:
            raise NotFound(f"no stream takes {subject}, or no node is up that passes it on to one") from None
        except RequestTimeout:
            raise OutcomeUnknown(subject) from None
        except Disconnected:
            if could_be_sent:
                raise OutcomeUnknown(subject) from None
            raise
        answer = json_answer(subject, reply.data)
        if "error" in answer:
            raise error_of(
                subject,
                answer["error"],
                expected=-1 if expected is None else expected,
                size=len(payload),
                limit=self.conn.max_payload,
            )
        return answer

    async def _fitting(self, message: BatchMessage, headers_bytes: int) -> BatchMessage:
        """The message of a batch, with a reference where its payload is too large: a batch is refused as a whole."""
        size = len(self.conn.sealed(context_of(message.subject), message.payload)) + headers_bytes
        limit = self.conn.max_payload
        if size <= limit:
            return message
        refused = PayloadTooLarge(message.subject, size, limit)
        return replace(message, payload=await self.objects.instead(message.subject, message.payload, refused))


def write_headers(
    headers: Mapping[str, str] | None,
    *,
    expect_last_subject_seq: int | None = None,
    expect_subject: str | None = None,
    msg_id: str | None = None,
    ttl_s: int | None = None,
) -> dict[str, str]:
    """Return a new header dict with what a write expects added to it. Raises ValueError for a ttl_s below 1."""
    out = dict(headers) if headers else {}
    if expect_last_subject_seq is not None:
        out[_EXPECT_SEQ] = str(expect_last_subject_seq)
    if expect_subject is not None:
        out[_EXPECT_SUBJECT] = expect_subject
    if msg_id is not None:
        out["Nats-Msg-Id"] = msg_id
    if ttl_s is not None:
        # The server takes no less than a second (ADR-43) and nats-py makes 0 of 0.5.
        if ttl_s < 1 or ttl_s != int(ttl_s):
            raise ValueError(f"a time to live is whole seconds and at least 1, not {ttl_s}")
        out["Nats-TTL"] = f"{int(ttl_s)}s"
    return out


def _merge(current: Config, wanted: Config) -> Config:
    """Lay the wanted fields over the current ones. The server leaves out what is false, zero or empty."""
    merged = dict(current)
    for key, value in wanted.items():
        if isinstance(value, Mapping) and isinstance(current.get(key), Mapping):
            merged[key] = _merge(current[key], value)
        elif value or current.get(key):
            merged[key] = value
    return merged
