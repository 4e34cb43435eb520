"""JetStream as we use it: streams, acknowledged writes, direct reads, atomic batches and keys with a time to live.

Everything is a raw request to the server's JSON API, because nats-py's own layer drops fields it does not know, lacks
batched reads and writes, and misreads keys whose time is over. Replies become small typed values here and nothing
untyped gets past this module.

Not here: which streams there are and how they are configured (`store`), writes that repeat themselves
(`mesh.outbox`), following a stream (`mesh.follower`).

Invariants: a write that was sent and not acknowledged raises OutcomeUnknown and nothing else. Server errors become
our classes in one place, `error_of`. A marker (deleted, purged or expired key) counts as absent, and its sequence is
the one that the next write has to expect.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import anyio

from mesh.connection import Connection, Headers, Reply, encode_headers, status_of
from mesh.envelopes import ENVELOPE, context_of
from mesh.errors import (
    Conflict,
    Disconnected,
    MeshError,
    NoResponders,
    NotFound,
    NotReady,
    OutcomeUnknown,
    PayloadTooLarge,
    RequestTimeout,
    ServerRefused,
    Undecodable,
)
from mesh.objects import Objects
from mesh.references import ARRANGE, is_reference
from mesh.stored_messages import StoredMessage, direct_message, leaders_message

TIMEOUT_S = 5.0
REACHED_AGAIN_S = 0.005
ASK_AGAIN_S = 1.0
_READS = ("INFO", "STREAM.INFO.", "STREAM.NAMES", "STREAM.LIST", "STREAM.MSG.GET.", "CONSUMER.INFO.")

# The server's own limits: 1,000 messages in an atomic batch (ADR-50), 1,024 results of a multi-last read (ADR-31).
BATCH_WRITES_MAX = 1000
BATCH_READS = 1000
# How many bytes one request reads: all that a connection reads at a time has to stay below what the server holds for a
# client that is slow to take it (64 MB, `max_pending`). Above that it hangs up.
READ_BYTES = 4 * 1024 * 1024
# A copy of a stream is behind by milliseconds, or by seconds after it was cut off; another one is asked at once.
COPIES_AT_ONCE = 3
COPIES_TRIES = 300
COPIES_AGAIN_S = 0.01
# An answer with so many sequences is a few hundred KB.
DELETED_TOLD_MAX = 50_000

# err_code numbers of nats-server 2.15 (server/errors.json) that have a class of ours.
_CONFLICT = frozenset({10071, 10164})
_NOT_FOUND = frozenset({10014, 10037, 10043, 10057, 10059})
_NO_MESSAGE = frozenset({10037, 10043, 10057})
_TOO_LARGE = frozenset({10054})
_ACCOUNT_HAS_NO_JETSTREAM = 10039  # said with a code of 503, but that will not change by itself
SERVER_AT_FAULT = 500  # `code` of an error, as in HTTP: from here on it is the server that cannot
_STREAM_NAME_IN_USE = 10058

_EXPECT_SEQ = "Nats-Expected-Last-Subject-Sequence"
_EXPECT_SUBJECT = "Nats-Expected-Last-Subject-Sequence-Subject"

_PENDING = re.compile(rb"\r\nNats-Num-Pending: (\d{1,20})\r\n")
_UP_TO = re.compile(rb"\r\nNats-UpTo-Sequence: (\d+)\r\n")

Config = Mapping[str, Any]  # the server's JSON; its fields are the server's business


class PubAck(NamedTuple):
    """The server's word that a message is stored (or was already: duplicate)."""

    seq: int
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """A stream's configuration (as the server gives it) and state. created: when it was made, as the server says."""

    name: str
    config: Config
    messages: int
    first_seq: int
    last_seq: int
    created: str = ""


@dataclass(frozen=True, slots=True)
class BatchMessage:
    """One message of an atomic batch."""

    subject: str
    payload: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    expect_last_subject_seq: int | None = None


def error_of(subject: str, error: Config, *, expected: int = -1, size: int = 0, limit: int = 0) -> MeshError:
    """Map the `error` object of a server's answer to one of our errors. expected: what a Conflict is about."""
    err_code = int(error.get("err_code", 0))
    description = str(error.get("description", ""))
    if err_code in _CONFLICT:
        return Conflict(subject, expected, description)
    if err_code in _NOT_FOUND:
        return NotFound(f"{subject}: {description}")
    if err_code in _TOO_LARGE:
        return PayloadTooLarge(subject, size, limit)
    if int(error.get("code", 0)) >= SERVER_AT_FAULT and err_code != _ACCOUNT_HAS_NO_JETSTREAM:
        return NotReady(subject, err_code, description)
    return ServerRefused(subject, err_code, description)


class JetStream:
    """The JetStream API over one connection. `timeout_s` is per request and can be given to each call.

    opens: messages are read as they were before they were encrypted and put into an object store; else as they are
    stored. lazily: payloads out of an object store are not read but where a history cannot be put together without;
    the others stay references (`mesh.references`), for whoever reads them one after the other.
    """

    def __init__(
        self, conn: Connection, *, timeout_s: float = TIMEOUT_S, opens: bool = True, lazily: bool = False
    ) -> None:
        self.conn = conn
        self.api_prefix = conn.js_api_prefix
        self._timeout_s = timeout_s
        self.opens = opens
        self.objects = Objects(self)
        self._lazily = lazily

    def opened(self, subject: str, data: bytes) -> bytes:
        """A payload that is stored under this subject, opened if that is wanted and possible (`mesh.envelopes`)."""
        return self.conn.opened(context_of(subject) or subject, data) if self.opens else data

    # ---- streams ---------------------------------------------------------------------------------------------------

    async def stream_info(self, stream: str) -> StreamInfo:
        """Return a stream's configuration and state. Raises NotFound."""
        return _stream_info(await self._call(f"STREAM.INFO.{stream}"))

    async def lost_bytes(self, stream: str) -> int:
        """How many bytes the server says that it has lost, as it found its files damaged when it started.

        It tells only together with all the sequences that are missing. Where these are very many it is not asked: 0.
        """
        state = (await self._call(f"STREAM.INFO.{stream}"))["state"]
        if int(state.get("num_deleted") or 0) > DELETED_TOLD_MAX:
            return 0
        state = (await self._call(f"STREAM.INFO.{stream}", {"deleted_details": True}))["state"]
        return int((state.get("lost") or {}).get("bytes") or 0)

    async def subject_counts(self, stream: str, subject_filter: str) -> dict[str, int]:
        """Return how many messages each subject that fits has, from the subject index. Raises NotFound."""
        counts: dict[str, int] = {}
        told = 0  # not the same as len(counts): subjects that are no UTF-8 all come as the same text
        while True:
            request = {"subjects_filter": subject_filter, "offset": told}
            answer = await self._call(f"STREAM.INFO.{stream}", request)
            page = answer["state"].get("subjects") or {}
            counts |= page
            told += len(page)
            if not page or told >= answer.get("total", 0):
                return counts

    async def ensure_stream(self, config: Config) -> StreamInfo:
        """Create the stream, or update it where it differs from the given fields; others stay as they are.

        Doing it twice, or from several nodes at once, is harmless. What is written after it reaches the stream. Raises
        ServerRefused if the server cannot change the stream that way.
        """
        answer = await self._ensure(str(config["name"]), config)
        if "cluster" in answer:
            await self._wait_reached(answer["config"])
        return _stream_info(answer)

    async def _ensure(self, name: str, config: Config) -> Config:
        try:
            answer = await self._call(f"STREAM.INFO.{name}")
        except NotFound:
            try:
                return await self._call(f"STREAM.CREATE.{name}", config)
            except ServerRefused as refused:
                if refused.err_code != _STREAM_NAME_IN_USE:
                    raise
            answer = await self._call(f"STREAM.INFO.{name}")
        merged = _merge(answer["config"], config)
        if merged == answer["config"]:
            return answer
        return await self._call(f"STREAM.UPDATE.{name}", merged)

    async def _wait_reached(self, config: Config) -> None:
        """Wait until the server that we are connected to has heard which server of its cluster takes the subjects.

        That travels on another connection than the answer to who made the stream. Asked by a write that cannot succeed.
        """
        subjects = config.get("subjects") or []
        if not subjects:
            return
        subject = str(subjects[0]).replace("*", "probe").replace(">", "probe")
        with anyio.move_on_after(self._timeout_s):
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
        await self._call(f"STREAM.DELETE.{stream}")

    async def purge(self, stream: str, *, subject: str | None = None, up_to_seq: int | None = None) -> int:
        """Delete the messages of a subject (wildcards allowed; None = all), those before up_to_seq; return how many."""
        request: dict[str, object] = {}
        if subject is not None:
            request["filter"] = subject
        if up_to_seq is not None:
            request["seq"] = up_to_seq
        return int((await self._call(f"STREAM.PURGE.{stream}", request)).get("purged", 0))

    async def delete_message(self, stream: str, seq: int) -> bool:
        """Delete one message; return whether it was there. Its bytes are not overwritten on disk."""
        return await self._ask_for_message(f"STREAM.MSG.DELETE.{stream}", {"seq": seq, "no_erase": True}) is not None

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
                first = _json(messages[0].subject, first_errors[0]) if any(first_errors) else {}
                if "error" in first:
                    raise error_of(messages[0].subject, first["error"]) from None
                raise
        finally:
            if token is not None:
                self.conn.forget(token)
        if answer.get("batch") != batch or answer.get("count") != len(messages):
            raise ServerRefused(last.subject, 0, f"stored as a plain message, not as a batch: {answer}")
        return PubAck(int(answer["seq"]))

    # ---- reads -----------------------------------------------------------------------------------------------------

    # Direct reads (ADR-31) are answered by whichever copy of a stream comes first, and one that was cut off or has a
    # slow disk is behind by seconds. All of them are beginnings of the same log, though: what one has is right, and
    # what one lacks or calls the last is asked of the leader, or of another copy until one has come as far as the
    # leader had. So every read here sees all that was acknowledged before it began. A server that stands alone is asked
    # once.

    @property
    def has_copies(self) -> bool:
        """Whether streams may have several copies, as the server is one of a cluster."""
        return bool(self.conn.server_info.get("cluster"))

    async def get_last(self, stream: str, subject: str, *, from_leader: bool = False) -> StoredMessage | None:
        """Return the last message of a subject (of a filter, from the leader), None if there is none."""
        if from_leader or self.has_copies:
            return await self._get_from_leader(stream, {"last_by_subj": subject})
        return await self._get_direct(f"{self.api_prefix}.DIRECT.GET.{stream}.{subject}", b"")

    async def get_seq(self, stream: str, seq: int, *, from_leader: bool = False) -> StoredMessage | None:
        """Return the message with this sequence, None if there is none (any more)."""
        return await self._get_one(stream, {"seq": seq}, from_leader=from_leader)

    async def get_next(
        self, stream: str, seq: int, subject_filter: str, *, from_leader: bool = False
    ) -> StoredMessage | None:
        """Return the first message at or after this sequence whose subject fits, None if there is none."""
        request = {"seq": max(seq, 1), "next_by_subj": subject_filter}
        return await self._get_one(stream, request, from_leader=from_leader)

    async def _get_one(self, stream: str, request: Config, *, from_leader: bool) -> StoredMessage | None:
        found = None
        if not from_leader:
            found = await self._get_direct(f"{self.api_prefix}.DIRECT.GET.{stream}", _dump(request))
        if found is None and (from_leader or self.has_copies):
            return await self._get_from_leader(stream, request)
        return found

    async def batch_get(
        self,
        stream: str,
        *,
        from_seq: int = 1,
        subject_filter: str = ">",
        batch: int = BATCH_READS,
        max_bytes: int = READ_BYTES,
        messages_max: int | None = None,
        timeout_s: float | None = None,
    ) -> list[StoredMessage]:
        """Return all messages from a sequence on whose subject fits, read in requests of `batch` (ADR-31).

        messages_max: stop after so many. timeout_s is for each request. Raises NotFound, NotReady, RequestTimeout,
        Disconnected.
        """
        messages: list[StoredMessage] = []
        seq = max(from_seq, 1)
        tries = 0
        while messages_max is None or len(messages) < messages_max:
            count = batch if messages_max is None else min(batch, messages_max - len(messages))
            request: dict[str, object] = {"seq": seq, "next_by_subj": subject_filter, "batch": count}
            request["max_bytes"] = max_bytes
            page, pending, _ = await self._read_batch(stream, request, timeout_s)
            messages += page
            if page:
                seq = page[-1].seq + 1
            if page and pending:
                continue
            last = await self._get_from_leader(stream, {"last_by_subj": subject_filter}) if self.has_copies else None
            if last is None or last.seq < seq:
                break
            tries = await self._try_another_copy(stream, tries)
        return messages

    async def multi_last(
        self, stream: str, subjects: Sequence[str], *, timeout_s: float | None = None, at_least: int | None = None
    ) -> list[StoredMessage]:
        """Return the last message of every subject that fits one of `subjects` (wildcards allowed), in stream order.

        All as of one moment, before which all is seen that had a sequence of at_least; by default all that there was
        when this was called. The server refuses (ServerRefused) if more than 1,024 subjects fit. Raises NotReady.
        """
        if self.has_copies and at_least is None:
            at_least = (await self.stream_info(stream)).last_seq
        tries = 0
        while True:
            messages, up_to = await self._last_of_a_copy(stream, subjects, timeout_s)
            if not self.has_copies or up_to >= (at_least or 0):
                return messages
            if not up_to and not await self._any_in_leader(stream, subjects):
                return []
            tries = await self._try_another_copy(stream, tries)

    async def _last_of_a_copy(
        self, stream: str, subjects: Sequence[str], timeout_s: float | None
    ) -> tuple[list[StoredMessage], int]:
        """The last messages as one copy of the stream has them, and how far it has come.

        0 = not said, none fits; -1 = they are not of one moment, as the rest came of a copy that is behind the first.
        """
        messages: list[StoredMessage] = []
        request: dict[str, object] = {"multi_last": list(subjects), "batch": BATCH_READS}
        as_of, left = 0, None
        while True:
            page, pending, up_to = await self._read_batch(stream, request, timeout_s)
            if left is not None and len(page) + pending != left and self.has_copies:
                return messages, -1
            messages += page
            left = pending
            # With a limit the server says the limit: what the first page says is how far that copy had come.
            as_of = as_of or up_to
            if not page or pending == 0:
                return messages, as_of
            request |= {"seq": page[-1].seq + 1, "up_to_seq": as_of}

    async def _any_in_leader(self, stream: str, subjects: Sequence[str]) -> bool:
        for subject in subjects:
            if await self._get_from_leader(stream, {"last_by_subj": subject}) is not None:
                return True
        return False

    async def _try_another_copy(self, stream: str, tries: int) -> int:
        """Wait a little before a copy is asked again; which one, chance decides. Raises NotReady after many times."""
        if tries >= COPIES_TRIES:
            raise NotReady(f"reading stream {stream}", 503, "no copy of it that answers is up to date")
        if tries >= COPIES_AT_ONCE:
            await anyio.sleep(COPIES_AGAIN_S)
        return tries + 1

    # ---- raw -------------------------------------------------------------------------------------------------------

    async def api(self, request: str, body: Config | None = None, *, timeout_s: float | None = None) -> Config:
        """Call `$JS.API.<request>` and return the answer's JSON; its `error` is raised as ours (`error_of`)."""
        return await self._call(request, body, timeout_s)

    async def _call(self, request: str, body: Config | None = None, timeout_s: float | None = None) -> Config:
        answer = await self._ask(request, body, timeout_s)
        if "error" in answer:
            raise error_of(f"{self.api_prefix}.{request}", answer["error"])
        return answer

    async def _ask(self, request: str, body: Config | None = None, timeout_s: float | None = None) -> Config:
        """Return the answer, which may be an `error`.

        A cluster without a leader does not answer at all. What only reads is therefore asked again and again, so that
        it is answered as soon as there is a leader, and not a time limit later.
        """
        subject = f"{self.api_prefix}.{request}"
        payload = b"" if body is None else _dump(body)
        timeout_s = timeout_s or self._timeout_s
        left_s = timeout_s
        if request.startswith(_READS):
            while left_s > ASK_AGAIN_S:
                with suppress(RequestTimeout):
                    return _json(subject, (await self.conn.request(subject, payload, timeout_s=ASK_AGAIN_S)).data)
                left_s -= ASK_AGAIN_S
        try:
            return _json(subject, (await self.conn.request(subject, payload, timeout_s=left_s)).data)
        except RequestTimeout:
            raise RequestTimeout(subject, timeout_s) from None

    async def _ask_for_message(self, request: str, body: Config) -> Config | None:
        """Return the answer, None if the stream has no such message. Raises NotFound if there is no such stream."""
        answer = await self._ask(request, body)
        if "error" not in answer:
            return answer
        if answer["error"].get("err_code") in _NO_MESSAGE:
            return None
        raise error_of(f"{self.api_prefix}.{request}", answer["error"])

    async def _write(
        self, subject: str, payload: bytes, headers: Headers | None, expected: int | None, timeout_s: float | None
    ) -> Config:
        could_be_sent = self.conn.is_connected
        try:
            reply = await self.conn.request(subject, payload, timeout_s=timeout_s or self._timeout_s, headers=headers)
        except NoResponders:
            raise NotFound(f"no stream takes {subject}, or no node is up that passes it on to one") from None
        except RequestTimeout:
            raise OutcomeUnknown(subject) from None
        except Disconnected:
            if could_be_sent:
                raise OutcomeUnknown(subject) from None
            raise
        answer = _json(subject, reply.data)
        if "error" in answer:
            raise error_of(
                subject,
                answer["error"],
                expected=-1 if expected is None else expected,
                size=len(payload),
                limit=self.conn.max_payload,
            )
        return answer

    async def _get_direct(self, subject: str, body: bytes) -> StoredMessage | None:
        try:
            reply = await self.conn.request(subject, body, timeout_s=self._timeout_s)
        except NoResponders:
            raise NotFound(f"{subject}: no such stream, or it does not allow direct reads") from None
        code, description = status_of(reply.raw_headers)
        if code == 404:
            return None
        if code is not None:
            raise ServerRefused(subject, code, description)
        return (await self._opened([direct_message(reply.data, reply.raw_headers)[0]]))[0]

    async def _get_from_leader(self, stream: str, request: Config) -> StoredMessage | None:
        answer = await self._ask_for_message(f"STREAM.MSG.GET.{stream}", request)
        if answer is None:
            return None
        return (await self._opened([leaders_message(answer["message"])]))[0]

    async def _opened(self, messages: list[StoredMessage]) -> list[StoredMessage]:
        """The messages with their payloads as they were (see the class)."""
        for i, message in enumerate(messages):
            if message.data[:2] == ENVELOPE and self.opens:
                messages[i] = message._replace(data=await self._opened_envelope(message.subject, message.data))
        return messages

    async def _opened_envelope(self, subject: str, data: bytes) -> bytes:
        if not is_reference(data):
            return self.opened(subject, data)
        if self._lazily and not ARRANGE.intersection(subject.split(".", 6)[5:6]):
            return data
        return await self.objects.fetched(subject, data)

    async def _fitting(self, message: BatchMessage, headers_bytes: int) -> BatchMessage:
        """The message of a batch, with a reference where its payload is too large: a batch is refused as a whole."""
        size = len(self.conn.sealed(context_of(message.subject), message.payload)) + headers_bytes
        limit = self.conn.max_payload
        if size <= limit:
            return message
        refused = PayloadTooLarge(message.subject, size, limit)
        return replace(message, payload=await self.objects.instead(message.subject, message.payload, refused))

    async def _read_batch(
        self, stream: str, request: Config, timeout_s: float | None
    ) -> tuple[list[StoredMessage], int, int]:
        """Read one batch; return its messages, how many are left, and the sequence it is as of (multi_last)."""
        subject = f"{self.api_prefix}.DIRECT.GET.{stream}"
        timeout_s = timeout_s or self._timeout_s
        request = {"max_bytes": READ_BYTES, **request}
        try:
            async with self.conn.reads:
                replies = await self.conn.request_many(
                    subject, _dump(request), timeout_s=timeout_s, stop=_ends_a_batch, no_responders_ok=False
                )
        except NoResponders:
            raise NotFound(f"{subject}: no such stream, or it does not allow direct reads") from None
        if not replies or not _ends_a_batch(replies[-1]):
            raise RequestTimeout(subject, timeout_s)
        raw = replies[-1].raw_headers or b""
        code, description = status_of(raw)
        if code == 404:
            return [], 0, 0
        if code != 204:
            raise ServerRefused(subject, code or 0, description)
        page = [direct_message(reply.data, reply.raw_headers) for reply in replies[:-1]]
        left = _PENDING.search(raw)
        up_to = _UP_TO.search(raw)
        pending = int(left[1]) if left else 0
        if page and page[-1][1] != pending:
            # Replies are ordinary messages: if the server had to drop one, the count does not fit.
            raise RequestTimeout(subject, timeout_s)
        opened = await self._opened([message for message, _ in page])
        return opened, pending, int(up_to[1]) if up_to else 0


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


def _ends_a_batch(reply: Reply) -> bool:
    return not reply.data and reply.raw_headers is not None and reply.raw_headers.startswith(b"NATS/1.0 ")


def _stream_info(answer: Config) -> StreamInfo:
    config, state = answer["config"], answer["state"]
    return StreamInfo(
        str(config["name"]), config, int(state["messages"]), int(state["first_seq"]), int(state["last_seq"]),
        str(answer.get("created", "")),
    )  # fmt: skip


def _merge(current: Config, wanted: Config) -> Config:
    """Lay the wanted fields over the current ones. The server leaves out what is false, zero or empty."""
    merged = dict(current)
    for key, value in wanted.items():
        if isinstance(value, Mapping) and isinstance(current.get(key), Mapping):
            merged[key] = _merge(current[key], value)
        elif value or current.get(key):
            merged[key] = value
    return merged


def _dump(body: Config) -> bytes:
    return json.dumps(body).encode()


def _json(subject: str, data: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(data)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise Undecodable(f"{subject}: the answer is no JSON object: {data[:80]!r}")
    return answer
