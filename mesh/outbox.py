"""Acknowledged writes that repeat themselves until the server has answered.

`write` is a plain function call: it hands the message over and returns. The outbox keeps it, sends it, and sends it
again two seconds later and after every reconnect, until the stream acknowledges it or refuses it for good; only then
is `on_ack` called, exactly once per write. So the caller needs no timeout and no retry of its own.

Blind repetition is right only for messages that may be stored twice: those whose second copy is ignored by whoever
reads them, or that carry a `Nats-Msg-Id`. A write with an expected sequence may answer Conflict because of its own
first copy; read back then.

Invariants:
- A write ends with exactly one Ack: a sequence, or an error. Temporary refusals are not errors, they are repeated; so
  is everything that is meant for a stream which is there, for however long it takes nothing.
- At most WINDOW writes are unanswered at the server, whose queue per stream takes 10,000 and drops what is above.
- The order of writes to a stream is kept unless one has to be repeated.

- A payload that is too large for a message is put into an object store first (`mesh.objects`), and its reference is
  written instead; it may be overtaken meanwhile.

Towards a server that flushes each message by itself (`mesh.pace` finds that out) writes gather while others are
unanswered and go together, as an atomic batch where there are enough of them. The server stores all of it or nothing; a
batch that it refuses, or does not answer, is sent again write by write, which is harmless as above.

Not here: what is written and whether that is allowed twice; writes that must not be repeated (`JetStream.publish`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import anyio

from mesh.absence import Absence
from mesh.connection import Connection, DirectSubscription, Headers, encode_headers
from mesh.errors import (
    Disconnected,
    InvalidName,
    MeshError,
    NoResponders,
    NotFound,
    NotPermitted,
    OutcomeUnknown,
    PayloadTooLarge,
    RequestTimeout,
    Undecodable,
)
from mesh.jetstream import JetStream
from mesh.jetstream_api import error_of
from mesh.pace import BATCH_MAX, BATCH_MIN, SAMPLE_WRITES, Pace
from mesh.references import holder_of, is_reference
from mesh.wire import SUBJECT_BYTES_MAX, check_subject, is_no_responders, parse_headers

# Below the 10,000 messages that nats-server 2.15 queues per stream (max_buffered_msgs) before it drops some.
WINDOW = 2048
# Some hundred megabytes of small writes; a caller that is not held up by `room` long before is wrong.
PENDING_WRITES_MAX = 1_000_000
PENDING_WRITES_HIGH = 2 * WINDOW
RESEND_S = 2.0
RESEND_MAX_S = 16.0
RETRY_S = 0.25
TICK_S = 0.25
# An object that nothing refers to is removed after an hour (`store.unreferenced`), a write may wait for longer.
STORED_ANEW_S = 600.0
_VERSION_LINE = b"NATS/1.0\r\n"
# The start of a workflow that was never started before, the claim of a call that nobody has; that it was is rare.
_FIRST = b"\r\nNats-Expected-Last-Subject-Sequence: 0\r\n"
# "No stream" and "cannot store" are also said while a cluster elects a leader, a server shuts down or a disk is full.
# After that time the server is asked whether there is such a stream.
PATIENCE_S = 5.0

# What a batch may hold of bytes: a node that writes large payloads would have everybody wait for all of them.
BATCH_BYTES_MAX = 1024 * 1024
BATCHED_BYTES_MAX = 64 * 1024  # of one write; there is little to be won with larger ones
BATCHED_SUBJECT_MAX = SUBJECT_BYTES_MAX // 8  # characters; a longer one may leave no room for the reply subject
BATCH_HEADERS_BYTES_MAX = 512  # of what a write gets in addition, encryption included

_PLAIN_ACK = re.compile(rb'\{"stream":"[^"]*","seq":(\d+)\}').fullmatch
_BATCH_ACK = re.compile(rb'\{"stream":"[^"]*","seq":(\d+),"batch":"[^"]*","count":(\d+)\}').fullmatch
# err_code: JetStream or leader not there yet, too little memory, the first copy in process, too many requests.
_TEMPORARY = frozenset({10006, 10007, 10008, 10009, 10023, 10158, 10167})
_STORE_FAILED = 10077
_NEVER_STORED = "large"  # "message to large", for the stream's files
_WRONG_SEQUENCE = b'"err_code":10071,'

_log = logging.getLogger(__name__)


class Ack(NamedTuple):
    """How a write ended: with the sequence it is stored at (before it, if duplicate), or with an error."""

    seq: int
    duplicate: bool = False
    error: MeshError | None = None


class Statistics(NamedTuple):
    """What an outbox has in hand. batches: how many were stored so far."""

    unanswered: int
    waiting: int
    repeated: int
    batches: int = 0


class _Write:
    __slots__ = (
        "awaited", "batch", "doubted_since", "due", "headers", "large", "number", "on_ack", "payload", "stored_s",
        "subject", "tries",
    )  # fmt: skip

    def __init__(
        self, number: int, subject: str, payload: bytes, headers: bytes | None, on_ack: Callable[[Ack], None] | None
    ) -> None:
        self.number = number
        self.subject = subject
        self.payload = payload
        self.headers = headers
        self.on_ack = on_ack
        self.tries = 0
        self.due = 0.0
        self.doubted_since = 0.0
        self.large = b""  # the payload that became an object, and when
        self.stored_s = 0.0
        self.batch: _Batch | None = None  # whose commit it is
        self.awaited = False  # what has gathered since is sent after it


class _Batch(NamedTuple):
    """Writes that were sent together, with their tokens. sent_s: by the loop's clock; 0 = behind others, not timed."""

    writes: Sequence[tuple[str, _Write]]
    sent_s: float


class Outbox:
    """Use as `async with Outbox(conn) as outbox`. Leaving the block does not wait: see `flush`.

    Writes that are unanswered then end with OutcomeUnknown, those never sent with Disconnected.
    """

    def __init__(
        self, conn: Connection, *, resend_s: float = RESEND_S, patience_s: float = PATIENCE_S, pace: Pace | None = None
    ) -> None:
        self._conn = conn
        self._resend_s = resend_s
        self._patience_s = patience_s
        self._loop = asyncio.get_running_loop()
        self._now = self._loop.time()
        self._number_last = 0
        self._repeated = 0
        self._sent: dict[str, _Write] = {}
        self._waiting: OrderedDict[str, _Write] = OrderedDict()
        self._pace = pace or Pace()
        self._batches = 0
        self._gathering = False
        self._awaited = 0
        # A stretch of writes whose acknowledgements are timed: the number of the last one, and when the first came.
        self._timed_to = 0
        self._timed_since_s = 0.0
        self._refused_locally = 0
        js = JetStream(conn)
        self._objects = js.objects
        self._storing: dict[str, _Write] = {}  # what is too large and becomes an object
        self._tasks = anyio.create_task_group()
        self._absence = Absence(js, self._tasks, self._loop.time)
        self._changed: anyio.Event | None = None
        self._inbox = f"{conn.new_inbox()}."
        self._open = False
        self._timer: asyncio.TimerHandle | None = None
        self._subscription: DirectSubscription | None = None
        self._removers: list[Callable[[], None]] = []

    async def __aenter__(self) -> Self:
        self._subscription = self._conn.subscribe_direct(f"{self._inbox}*", self._on_reply)
        self._removers = [self._conn.on_state(self._on_state), self._conn.on_denied(self._on_denied)]
        await self._tasks.__aenter__()
        self._open = True
        self._tick()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        if self._timer is not None:
            self._timer.cancel()
        if self._subscription is not None:
            self._subscription.unsubscribe()
        for remove in self._removers:
            remove()
        self._tasks.cancel_scope.cancel()
        # What the block raises leaves as itself: the group hears nothing of it.
        await self._tasks.__aexit__(None, None, None)
        left = sorted((*self._sent.values(), *self._waiting.values(), *self._storing.values()), key=_number)
        self._sent.clear()
        self._waiting.clear()
        self._storing.clear()
        for write in left:
            never_sent = Disconnected(f"{write.subject}: the outbox was closed before this could be sent")
            self._finish(write, Ack(0, False, OutcomeUnknown(write.subject) if write.tries else never_sent))

    @property
    def pending_count(self) -> int:
        """Count the writes that have not ended."""
        return len(self._sent) + len(self._waiting) + len(self._storing) + self._refused_locally

    def statistics(self) -> Statistics:
        """Return what is in hand, and how many sendings were repetitions so far."""
        return Statistics(len(self._sent), len(self._waiting), self._repeated, self._batches)

    def write(
        self,
        subject: str,
        payload: bytes = b"",
        headers: Headers | None = None,
        on_ack: Callable[[Ack], None] | None = None,
    ) -> None:
        """Take a message; on_ack(ack) is called once, from the event loop, never from within this call.

        While disconnected it is kept and sent later. An error nobody asked for (no on_ack) is logged. Raises
        InvalidName, and Disconnected when the outbox is closed or holds PENDING_WRITES_MAX writes.
        """
        if not self._open:
            raise Disconnected(f"{subject}: the outbox is closed")
        if not subject or " " in subject or not subject.isprintable() or len(subject) > SUBJECT_BYTES_MAX // 4:
            check_subject(subject)
        if headers is not None and not isinstance(headers, bytes):
            headers = encode_headers(headers)
        self._number_last += 1
        write = _Write(self._number_last, subject, payload, headers, on_ack)
        if self._waiting or len(self._sent) >= WINDOW or self._pace.in_batches:
            if len(self._waiting) >= PENDING_WRITES_MAX:
                raise Disconnected(f"{subject}: {PENDING_WRITES_MAX} writes wait for the server already; await room()")
            self._waiting[str(write.number)] = write
            if not self._awaited and not self._gathering:
                # With everything else that is written in this turn of the loop.
                self._gathering = True
                self._loop.call_soon(self._send_gathered)
        elif not self._send(str(write.number), write):
            self._waiting[str(write.number)] = write

    async def write_acked(self, subject: str, payload: bytes = b"", headers: Headers | None = None) -> Ack:
        """Write and wait for the ack, however long that takes; raise the error if it ends with one.

        Cancelling gives up the waiting and not the write.
        """
        ended: asyncio.Future[Ack] = self._loop.create_future()

        def on_ack(ack: Ack) -> None:
            if not ended.done():
                ended.set_result(ack)

        self.write(subject, payload, headers, on_ack)
        ack = await ended
        if ack.error is not None:
            raise ack.error
        return ack

    async def flush(self, timeout_s: float) -> None:
        """Wait until no write is pending. Raises RequestTimeout; the writes go on being repeated."""
        await self._until(lambda: self.pending_count == 0, timeout_s)

    async def room(self) -> None:
        """Wait until fewer than PENDING_WRITES_HIGH writes are pending, as whoever makes many should now and then."""
        if self.pending_count >= PENDING_WRITES_HIGH:
            await self._until(lambda: self.pending_count < PENDING_WRITES_HIGH, None)

    async def _until(self, holds: Callable[[], bool], timeout_s: float | None) -> None:
        with anyio.move_on_after(timeout_s):
            while not holds():
                if self._changed is None:
                    self._changed = anyio.Event()
                await self._changed.wait()
            return
        raise RequestTimeout(f"{self.pending_count} writes of the outbox", timeout_s or 0.0)

    # ---- sending ---------------------------------------------------------------------------------------------------

    def _send(self, token: str, write: _Write) -> bool:
        """Send it, for the first time or again; return False if that is not possible now."""
        if write.large and self._now - write.stored_s > STORED_ANEW_S:
            self._sent.pop(token, None)
            write.payload, write.large = write.large, b""
        try:
            self._conn.publish_nowait(write.subject, write.payload, self._inbox + token, write.headers)
        except Disconnected:
            return False
        except (PayloadTooLarge, InvalidName) as error:
            self._sent.pop(token, None)
            if isinstance(error, PayloadTooLarge) and _may_be_object(write):
                self._store_soon(token, write, error)
                return True
            self._refused_locally += 1
            self._loop.call_soon(self._finish_refused, write, error)
            return True
        write.due = self._now + self._resend_s
        if write.tries:
            self._repeated += 1
            self._await_no_more(write)
            write.due = self._now + min(self._resend_s * 2**write.tries, RESEND_MAX_S)
        write.tries += 1
        self._sent[token] = write
        return True

    def _store_soon(self, token: str, write: _Write, error: PayloadTooLarge) -> None:
        self._await_no_more(write)
        self._storing[token] = write
        self._tasks.start_soon(self._store, token, write, error)

    async def _store(self, token: str, write: _Write, refused: PayloadTooLarge) -> None:
        """Store a payload that is too large, however often the server has to be asked; then write its reference."""
        error: MeshError | None = None
        while True:
            try:
                reference = await self._objects.instead(write.subject, write.payload, refused)
                write.payload, write.large, write.stored_s = reference, write.payload, self._loop.time()
            except (Disconnected, RequestTimeout, OutcomeUnknown, NoResponders):
                await anyio.sleep(RETRY_S)
                continue
            except MeshError as refusal:
                error = refusal
            break
        del self._storing[token]
        if error is not None:
            self._finish(write, Ack(0, False, error))
        elif not self._send(token, write):
            self._waiting[token] = write

    def _send_gathered(self) -> None:
        self._gathering = False
        if self._open:
            self._send_waiting()

    def _send_waiting(self) -> None:
        if self._pace.in_batches:
            if not self._awaited and self._conn.is_connected:
                self._send_together()
            return
        while self._waiting and len(self._sent) < WINDOW:
            token, write = self._waiting.popitem(last=False)
            if not self._send(token, write):
                self._waiting[token] = write
                self._waiting.move_to_end(token, last=False)
                return

    def _await_no_more(self, write: _Write) -> None:
        """A write has ended, or takes too long for others to wait for it."""
        if write.awaited:
            write.awaited = False
            self._awaited -= 1

    def _send_together(self) -> None:
        """Send what has gathered, a batch for each stream at most; in the order it was written, stream by stream."""
        together: dict[str, list[tuple[str, _Write]]] = {}
        # What was not answered in time holds up nobody, but may be in the server's queue all the same.
        size, taken, room = 0, 0, min(BATCH_MAX, WINDOW - len(self._sent))
        while self._waiting and taken < room and size < BATCH_BYTES_MAX:
            token, write = next(iter(self._waiting.items()))
            taken += 1
            queue = _queue_of(write.subject)
            if queue and self._may_be_batched(write):
                del self._waiting[token]
                together.setdefault(queue, []).append((token, write))
                size += len(write.payload)
                continue
            if queue and not self._send_all(together.pop(queue, [])):
                break
            if not self._send(token, write):
                break
            del self._waiting[token]
            self._await(token, write)
        for writes in together.values():
            self._send_all(writes)

    def _await(self, token: str, write: _Write) -> None:
        """Let others gather until this one is acknowledged."""
        if token in self._sent and not write.awaited and write.tries == 1:
            write.awaited = True
            self._awaited += 1

    def _send_all(self, writes: list[tuple[str, _Write]]) -> bool:
        """Send writes to one stream, in one batch if there are enough; False: not possible now, they wait on."""
        if len(writes) >= BATCH_MIN:
            if self._send_batch(writes):
                return True
        else:
            sent = [item for item in writes if self._send(*item)]
            for token, write in sent:
                self._await(token, write)
            writes = writes[len(sent) :]  # once it is not possible it is so for all that follow
            if not writes:
                return True
        for token, write in reversed(writes):
            self._waiting[token] = write
            self._waiting.move_to_end(token, last=False)
        return False

    def _send_batch(self, writes: list[tuple[str, _Write]]) -> bool:
        batch_id = secrets.token_urlsafe(6)
        sent_s = 0.0 if self._sent else self._loop.time()
        last_token, last = writes[-1]
        try:
            for i, (_, write) in enumerate(writes, start=1):
                end, reply = ("\r\nNats-Batch-Commit: 1", self._inbox + last_token) if write is last else ("", "")
                added = f"NATS/1.0\r\nNats-Batch-Id: {batch_id}\r\nNats-Batch-Sequence: {i}{end}\r\n".encode()
                headers = added + (b"\r\n" if write.headers is None else write.headers[len(_VERSION_LINE) :])
                self._conn.publish_nowait(write.subject, write.payload, reply, headers)
        except Disconnected:
            return False  # without its end the server forgets what has come of it
        for token, write in writes:
            write.due = self._now + self._resend_s
            write.tries += 1
            self._sent[token] = write
            self._await(token, write)
        last.batch = _Batch(writes, sent_s)
        return True

    def _may_be_batched(self, write: _Write) -> bool:
        """Whether a write may share the fate of others: what expects something of the stream may be refused."""
        if write.tries or write.large or len(write.subject) > BATCHED_SUBJECT_MAX:
            return False
        if write.headers is not None and b"\r\nNats-" in write.headers.replace(_FIRST, b"\r\n", 1):
            return False
        size = len(write.payload) + len(write.headers or b"") + BATCH_HEADERS_BYTES_MAX
        return size <= min(self._conn.max_payload, BATCHED_BYTES_MAX)

    def _tick(self) -> None:
        self._now = self._loop.time()
        self._timer = self._loop.call_later(TICK_S, self._tick)
        if self._conn.is_connected:
            for token, write in [item for item in self._sent.items() if item[1].due <= self._now]:
                write.batch = None
                if not self._send(token, write):
                    break
            self._send_waiting()

    def _on_state(self, connected: bool) -> None:
        self._pace.restart()  # it may be another server
        self._timed_to = self._awaited = 0
        if connected:
            self._send_waiting()
            return
        # What was sent may be lost: all of it stands before what has not been sent yet, in the order it was written.
        again = sorted(self._sent.values(), key=_number)
        for write in again:
            write.doubted_since = 0.0
            write.batch, write.awaited = None, False
        waiting = self._waiting
        self._waiting = OrderedDict((str(write.number), write) for write in again)
        self._waiting.update(waiting)
        self._sent.clear()

    # ---- answers ---------------------------------------------------------------------------------------------------

    def _on_reply(self, subject: str, _reply: str, data: bytes, raw_headers: bytes | None) -> None:
        token = subject[len(self._inbox) :]
        write = self._sent.get(token)
        if write is None:
            # The ack of the first copy may come when the write stands in line to be sent again.
            write = self._waiting.get(token)
            if write is None:
                return
        if write.batch is not None:
            self._on_batch_reply(write.batch, data)
            return
        plain = _PLAIN_ACK(data)
        if write.number >= self._timed_to:
            self._time(write.number)
        ack = Ack(int(plain[1])) if plain is not None else self._judge(write, data, raw_headers)
        if ack is None:
            self._await_no_more(write)
            return
        if self._sent.pop(token, None) is None:
            self._waiting.pop(token, None)
        if isinstance(ack.error, PayloadTooLarge) and _may_be_object(write):
            self._store_soon(token, write, ack.error)  # the stream takes less than the server
            if self._waiting:
                self._send_waiting()
            return
        self._finish(write, ack)
        if self._waiting:
            self._send_waiting()

    def _time(self, number: int) -> None:
        """Time how long the server takes from one write to the next, when there are many for it to do."""
        if number == self._timed_to:
            now_s = self._loop.time()
            self._pace.note_singles((now_s - self._timed_since_s) / SAMPLE_WRITES, now_s)
        if len(self._sent) > SAMPLE_WRITES and not self._pace.in_batches:
            self._timed_to = number + SAMPLE_WRITES
            self._timed_since_s = self._loop.time()

    def _on_batch_reply(self, batch: _Batch, data: bytes) -> None:
        stored = _BATCH_ACK(data)
        now_s = self._loop.time()
        batch.writes[-1][1].batch = None
        if stored is None or int(stored[2]) != len(batch.writes):
            _log.info("a batch of %d writes is sent again one by one: %r", len(batch.writes), data[:200])
            if _WRONG_SEQUENCE not in data:
                self._pace.rest(now_s)
            for token, write in batch.writes:
                if self._sent.get(token) is write and not self._send(token, write):
                    break  # the connection is down: all of them are sent again when it is up
            self._send_waiting()
            return
        self._batches += 1
        if batch.sent_s:
            self._pace.note_batch(now_s - batch.sent_s, len(batch.writes), now_s)
        first_seq = int(stored[1]) - len(batch.writes) + 1
        for i, (token, write) in enumerate(batch.writes):
            if self._sent.pop(token, None) is not None:
                self._finish(write, Ack(first_seq + i))
        if self._waiting:
            self._send_waiting()

    def _judge(self, write: _Write, data: bytes, raw_headers: bytes | None) -> Ack | None:
        """Decide what an answer other than the plain ack means; None = go on repeating."""
        if is_no_responders(data, raw_headers):
            return self._doubt(write, NotFound(f"no stream takes {write.subject}"))
        try:
            answer: dict[str, Any] = json.loads(data)
            error = answer.get("error")
            if error is None:
                return Ack(int(answer["seq"]), bool(answer.get("duplicate", False)))
            err_code = int(error.get("err_code", 0))
        except (ValueError, KeyError, AttributeError, TypeError):
            return Ack(0, False, Undecodable(f"{write.subject}: the answer is no ack: {data[:80]!r}"))
        if err_code in _TEMPORARY:
            write.due = self._now + RETRY_S
            return None
        expected = parse_headers(write.headers).get("Nats-Expected-Last-Subject-Sequence", "-1")
        mapped = error_of(
            write.subject,
            error,
            expected=int(expected) if expected.isdigit() else -1,
            size=len(write.payload),
            limit=self._conn.max_payload,
        )
        passes = err_code == _STORE_FAILED and _NEVER_STORED not in str(error.get("description"))
        return self._doubt(write, mapped) if passes else Ack(0, False, mapped)

    def _doubt(self, write: _Write, error: MeshError) -> Ack | None:
        """Believe an error that may be a passing one only when the server has said that there is no such stream."""
        if not write.doubted_since:
            write.doubted_since = self._now
        write.due = self._now + RETRY_S
        if self._now - write.doubted_since < self._patience_s:
            return None
        place = _queue_of(write.subject) or write.subject
        if self._absence.is_known(place, write.doubted_since):
            return Ack(0, False, error)
        self._absence.ask(place, write.subject, error)
        return None

    def _on_denied(self, subject: str) -> None:
        for token, write in [item for item in self._sent.items() if item[1].subject == subject]:
            del self._sent[token]
            self._finish(write, Ack(0, False, NotPermitted(subject)))

    def _finish_refused(self, write: _Write, error: MeshError) -> None:
        self._refused_locally -= 1
        self._finish(write, Ack(0, False, error))

    def _finish(self, write: _Write, ack: Ack) -> None:
        self._await_no_more(write)
        if write.on_ack is not None:
            try:
                write.on_ack(ack)
            except Exception:
                _log.exception("an on_ack callback failed, subject %s", write.subject)
        elif ack.error is not None:
            _log.error("a write failed for good: %s", ack.error)
        if self._changed is not None:
            self._changed.set()
            self._changed = None


def _may_be_object(write: _Write) -> bool:
    """Whether an object may stand for what is too large: not for what is one already."""
    return not is_reference(write.payload) and holder_of(write.subject) is not None


def _queue_of(subject: str) -> str:
    """The queue whose stream takes a subject; "" for any other."""
    if not subject.startswith("mesh.wf."):
        return ""
    return subject[8 : subject.find(".", 8)]


def _number(write: _Write) -> int:
    return write.number
