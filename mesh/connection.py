"""The one connection of a process to NATS: publish, subscribe, and staying connected.

nats-py makes the handshake (`mesh.handshake`). Reading, writing, subscriptions and reconnecting are here, and requests
in `mesh.requests`, because the client's own are slow (a queue, a task and a parsed message object per message) and have
sharp edges in 2.16: a PONG for a flush that gave up ends its reading for good, a callback that raises does the same,
cancellation is swallowed, and what is published while it is disconnected is sent later. Every (re)connect is a new
handshake, so nothing of a broken connection is carried over but the subscriptions.

Invariants:
- Nothing is buffered while disconnected, and what had not been written when a connection broke is dropped: a write
  either goes out on the connection it was made on or never.
- `epoch` counts connections. A request in flight fails at once with Disconnected when its connection breaks.
- Handlers and listeners are plain functions called from the read loop; what they raise is logged and harms nobody.
- With a codec, no payload with values of users in it leaves unencrypted: what is published on a subject that has a
  context (`mesh.envelopes.context_of`), and what is published with a context, goes out in an envelope. Only what is
  passed on for somebody else (`as_it_came`) is not ours to encrypt: it would look as if its author had the keys.
- Pending writes are bounded: past WRITE_BUFFER_BYTES_MAX a publish raises Disconnected (seen WRITE_NOW_BYTES and a
  message later at the latest). `drain_writes` waits for room.

Not here: which servers there are and the way to one (`mesh.dialling`), who waits for the answer to a request
(`mesh.requests`), JetStream (`mesh.jetstream`), writes that are repeated until acknowledged (`mesh.outbox`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple, TypeVar

import anyio
import anyio.lowlevel

from mesh.dialling import Dialler, addresses_of
from mesh.envelopes import ENCRYPTED, ENVELOPE, ENVELOPE_BYTES, Closed, Opened, answer_context, context_of
from mesh.errors import Disconnected, MeshError, NotFound, NotPermitted, PayloadTooLarge, Undecodable
from mesh.handshake import READ_BYTES, ConnectOptions, Link
from mesh.redaction import without_secrets
from mesh.requests import Reply, Requests
from mesh.wire import (
    CRLF,
    PING,
    PONG,
    SUBJECT_BYTES_MAX,
    Handler,
    Headers,
    Parser,
    check_subject,
    denied_subject,
    encode_headers,
    parse_headers,
    status_of,
)

__all__ = [
    "ConnectOptions",
    "Connection",
    "DirectSubscription",
    "Handler",
    "Headers",
    "Reply",
    "connect",
    "encode_headers",
    "parse_headers",
    "status_of",
]

# What the server has not taken yet. It is far more than a server that reads ever leaves, and little enough to hold.
WRITE_BUFFER_BYTES_MAX = 64 * 1024 * 1024
# `drain_writes` returns at once below this.
WRITE_BUFFER_BYTES_HIGH = 1024 * 1024
# Written at once and not only at the end of the loop's turn, so that the server works while we go on.
WRITE_NOW_BYTES = 64 * 1024
# Batches of a stream's messages that are read at a time (`mesh.stream_reads.READ_BYTES` each).
READS_AT_ONCE = 8
# How long a polite end waits for the last bytes to leave.
CLOSE_S = 1.0

_log = logging.getLogger(__name__)

T = TypeVar("T")


@asynccontextmanager
async def connect(
    url: str | Sequence[str], *, name: str, options: ConnectOptions | None = None
) -> AsyncIterator[Connection]:
    """Connect, stay connected while the block runs, and close after it.

    url: one address, several separated by commas, or a sequence of them; `nats://` or `tls://`. Other servers of the
    cluster are learnt from the server. Raises Unreachable if the first connection fails (see `patience_s`).
    """
    options = options or ConnectOptions()
    for path in (options.creds, options.nkey, options.tls_ca, options.tls_cert, options.tls_key):
        if path and not await anyio.Path(path).is_file():
            raise NotFound(f"there is no file {path}, which the connection's options name")
    connection = Connection(Dialler(addresses_of(url), name, options), options)
    failure: Exception | None = None
    first = await connection._dialler.dial(options.patience_s)
    # The error of the block leaves as itself, not wrapped into the group of our own task.
    async with anyio.create_task_group() as tasks:
        connection._up(first)
        tasks.start_soon(connection._stay_connected, first)
        try:
            yield connection
        except Exception as error:
            failure = error
        finally:
            await connection._say_goodbye()
            tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


class DirectSubscription:
    """A subscription whose handler is called straight from the read loop; it lives through reconnects."""

    __slots__ = ("_connection", "handler", "queue", "sid", "subject")

    def __init__(self, connection: Connection, sid: bytes, subject: str, queue: str, handler: Handler) -> None:
        self._connection = connection
        self.sid = sid
        self.subject = subject
        self.queue = queue
        self.handler = handler

    def unsubscribe(self) -> None:
        """End it: the handler is not called again, not even for what has come in already. Repeating is harmless."""
        self._connection._remove(self)


class Statistics(NamedTuple):
    """What a connection is doing at the moment."""

    connected: bool
    epoch: int
    subscriptions: int
    requests_in_flight: int
    pending_bytes: int


class Connection(Requests):
    """A connection that is made by `connect` and stays up or comes back until that block ends."""

    def __init__(self, dialler: Dialler, options: ConnectOptions) -> None:
        super().__init__(options.inbox_prefix)
        self.name = dialler.name
        self.epoch = 0
        self.max_payload = 1024 * 1024
        self.payload_bytes_max = options.payload_bytes_max  # of one that may become an object (`mesh.objects`)
        self.reads = anyio.CapacityLimiter(READS_AT_ONCE)
        self.server_info: Mapping[str, object] = {}  # what the server has said of itself last (its INFO)
        self._dialler = dialler
        self._options = options
        self.codec = options.codec
        self._closed = False
        self._why_down = "it has not been connected yet"
        self._link: Link | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._congested = False
        self._write_scheduled = False
        self._heard = False
        self._up_event = anyio.Event()
        self._pongs: deque[asyncio.Future[None] | None] = deque()
        self._handlers: dict[bytes, Handler] = {}
        self._subscriptions: dict[bytes, DirectSubscription] = {}
        self._sid_last = 0
        self._state_listeners: list[Callable[[bool], None]] = []
        self._denied_listeners: list[Callable[[str], None]] = []
        self._denied_subscriptions: set[str] = set()
        self.subscribe_direct(f"{self._inbox}*", self._on_reply)

    # ---- state -----------------------------------------------------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        """Whether a server is connected at this moment."""
        return self._writer is not None

    @property
    def address(self) -> str:
        """Return the address of the server, without passwords; the last one while disconnected."""
        return without_secrets(self._link.address if self._link else self._dialler.first)

    async def wait_connected(self) -> None:
        """Wait until a server is connected. Raises Disconnected when the connection was closed for good."""
        while self._writer is None:
            if self._closed:
                raise self._disconnected()
            await self._up_event.wait()

    def on_state(self, listener: Callable[[bool], None]) -> Callable[[], None]:
        """Call listener(connected) at every change from now on; return a function that ends it.

        True comes after the subscriptions have been sent again, False after the requests in flight have failed.
        """
        self._state_listeners.append(listener)
        return lambda: _discard(self._state_listeners, listener)

    def on_denied(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """Call listener(subject) when the server does not permit a publish; return a function that ends it."""
        self._denied_listeners.append(listener)
        return lambda: _discard(self._denied_listeners, listener)

    def check_permitted(self, subscriptions: Iterable[DirectSubscription]) -> None:
        """Raise NotPermitted if the server has refused one of these; it has said so by the next `flush`."""
        for subscription in subscriptions:
            if subscription.subject in self._denied_subscriptions:
                raise NotPermitted(subscription.subject, "subscribe")

    def statistics(self) -> Statistics:
        """Return what the connection is doing."""
        return Statistics(
            self.is_connected, self.epoch, len(self._subscriptions), len(self._waiters), self._pending_bytes()
        )

    @property
    def js_api_prefix(self) -> str:
        """The beginning of the subjects of the JetStream API, as this user reaches it."""
        domain = self._options.js_domain
        return f"$JS.{domain}.API" if domain else self._options.js_api_prefix

    @property
    def js_keys_prefix(self) -> str:
        """What is put before the subject of a key that is written: to another domain they get only below its API."""
        return f"{self.js_api_prefix}." if self._options.js_domain else ""

    # ---- publish ---------------------------------------------------------------------------------------------------

    def publish_nowait(
        self,
        subject: str,
        payload: bytes = b"",
        reply: str = "",
        headers: Headers | None = None,
        *,
        context: str = "",
        as_it_came: bool = False,
    ) -> None:
        """Send a message; it is written together with the others of this turn of the loop.

        context: what the payload is bound to when it is encrypted, by default what follows from the subject.
        as_it_came: it is somebody else's and is not encrypted.

        Raises Disconnected when there is no connection or the server does not take what it was sent, PayloadTooLarge,
        InvalidName. That the server got it is not known before a `flush`, that a stream stored it never.
        """
        if self._writer is None or self._congested:
            self._check_writable()
        both = subject + reply
        if not subject or " " in both or not both.isprintable() or len(both) > SUBJECT_BYTES_MAX // 4:
            check_subject(both)
            check_subject(subject)
        if self.codec is not None and not as_it_came:
            payload = self.sealed(context or context_of(subject, reply), payload)
        size = len(payload)
        if headers is None:
            if size > self.max_payload:
                raise PayloadTooLarge(subject, size, self.max_payload)
            line = f"PUB {subject} {reply} {size}\r\n".encode()
        else:
            block = headers if isinstance(headers, bytes) else encode_headers(headers)
            size += len(block)
            if size > self.max_payload:
                raise PayloadTooLarge(subject, size, self.max_payload)
            line = f"HPUB {subject} {reply} {len(block)} {size}\r\n".encode() + block
        self._out += (line, payload, CRLF)
        self._out_bytes += size + 64
        if not self._write_scheduled:
            self._write_scheduled = True
            self._loop.call_soon(self._write_out)
        if self._out_bytes > WRITE_NOW_BYTES:
            self._write_out()

    @property
    def message_bytes_max(self) -> int:
        """How large a payload without headers may be that goes out in one message, encrypted or not."""
        return self.max_payload - (ENVELOPE_BYTES if self.codec is not None else 0)

    def sealed(self, context: str, payload: bytes) -> bytes:
        """The payload as it leaves; unchanged without a codec or a context, when it is empty or an envelope already."""
        if self.codec is None or not context or not payload or payload[:2] == ENVELOPE:
            return payload
        return self.codec.seal(context, payload)

    def opened(self, context: str, data: bytes) -> bytes:
        """What came in as it was before it was encrypted; an envelope that cannot be opened stays one."""
        if data[:3] != ENCRYPTED or self.codec is None:
            return data
        opened = self.codec.open(context, data)
        return opened if isinstance(opened, Closed) else Opened(opened)

    async def drain_writes(self) -> None:
        """Wait until there is room to write again; always lets other tasks run. Raises Disconnected."""
        await anyio.lowlevel.checkpoint()
        writer = self._writer
        if writer is None:
            raise self._disconnected()
        self._write_out()
        try:
            await writer.drain()
        except OSError as error:
            raise self._disconnected() from error

    async def flush(self, timeout_s: float = 5.0) -> None:
        """Wait until the server has processed all that was sent before, and we all that it had sent until then.

        Raises RequestTimeout, Disconnected.
        """
        if self._writer is None:
            raise self._disconnected()
        done: asyncio.Future[None] = self._loop.create_future()
        self._pongs.append(done)
        self._out.append(PING)
        self._write_out()
        # The future stays in its place when we give up: its PONG comes all the same and must not answer another.
        await self._within(timeout_s, done, "PING")

    # ---- subscribe -------------------------------------------------------------------------------------------------

    def subscribe_direct(self, subject: str, handler: Handler, *, queue: str = "") -> DirectSubscription:
        """Call handler(subject, reply, data, raw_headers) for every message, from the read loop.

        The handler must not block; what it raises is logged. While disconnected the subscription is only noted; it is
        made, and made again, at each connect. What is published while we are disconnected is missed.
        """
        check_subject(subject)
        if queue:
            check_subject(queue)
        self._sid_last += 1
        subscription = DirectSubscription(self, b"%d" % self._sid_last, subject, queue, handler)
        self._subscriptions[subscription.sid] = subscription
        self._handlers[subscription.sid] = handler
        if self._writer is not None:
            self._send(_subscribe_line(subscription))
        return subscription

    def _opened_answer(self, subject: str, data: bytes) -> bytes:
        # What a stream answers with was bound to the subject it is stored under: see `mesh.stream_reads`.
        if data[:3] != ENCRYPTED or subject.startswith(("$", self.js_api_prefix)):
            return data
        return self.opened(answer_context(subject), data)

    # ---- the read loop's side --------------------------------------------------------------------------------------

    def _on_line(self, line: bytes) -> None:
        if line.startswith(b"PING"):
            self._send(PONG)
        elif line.startswith(b"PONG"):
            waiting = self._pongs.popleft() if self._pongs else None
            if waiting is not None and not waiting.done():
                waiting.set_result(None)
        elif line.startswith(b"INFO"):
            self._note_info(json.loads(line[5:]))
        elif line.startswith(b"-ERR"):
            self._on_server_error(line[5:].decode("utf-8", "replace"))
        elif not line.startswith(b"+OK"):
            raise Undecodable(f"unknown line {line[:80]!r}")

    def _on_server_error(self, text: str) -> None:
        """Note what the server complains of. If it is serious the server hangs up by itself, and we see that."""
        denied = denied_subject(text)
        if denied is None:
            _log.warning("the server %s reports %s", self.address, text)
            return
        action, subject = denied
        if action == "publish":
            concerned = self._requests_to(subject)
            # Whoever waits for it says it; what nobody waits for would be lost without a word.
            level = logging.INFO if concerned else logging.ERROR
            _log.log(level, "the server %s does not permit a publish: %s", self.address, subject)
            self._fail_requests(concerned, lambda: NotPermitted(subject))
            _call_all(self._denied_listeners, subject)
            return
        self._denied_subscriptions.add(subject)
        if subject.startswith(self._inbox):
            hint = "answers to requests would arrive there: pass the prefix of your role, such as "
            hint += "--inbox-prefix _INBOX_client (NATS_INBOX_PREFIX)"
            self._let_no_answer_come(NotPermitted(subject, "subscribe", hint))
        else:
            _log.error("the server %s does not permit a subscription: %s", self.address, subject)

    def _note_info(self, info: dict[str, object]) -> None:
        self.server_info = info
        limit = info.get("max_payload")
        if isinstance(limit, int):
            self.max_payload = limit
        others = info.get("connect_urls")
        if isinstance(others, list):
            self._dialler.learn(others)

    # ---- the write side --------------------------------------------------------------------------------------------

    def _send(self, line: bytes) -> None:
        self._out.append(line)
        self._out_bytes += len(line)
        if not self._write_scheduled:
            self._write_scheduled = True
            self._loop.call_soon(self._write_out)

    def _write_out(self) -> None:
        self._write_scheduled = False
        if self._writer is not None and self._out:
            data, self._out = self._out, []
            self._out_bytes = 0
            if self._writer.transport.is_closing():
                return  # it broke; whoever reads notices in a moment, and what was to be sent is lost with the rest
            self._writer.writelines(data)
            self._congested = self._pending_bytes() > WRITE_BUFFER_BYTES_MAX

    def _check_writable(self) -> None:
        if self._writer is None:
            raise self._disconnected()
        pending = self._pending_bytes()
        self._congested = pending > WRITE_BUFFER_BYTES_MAX
        if self._congested:
            raise Disconnected(f"{self.address} does not take what it is sent: {pending} bytes wait; drain_writes()")

    def _pending_bytes(self) -> int:
        return self._out_bytes + (self._writer.transport.get_write_buffer_size() if self._writer else 0)

    def _remove(self, subscription: DirectSubscription) -> None:
        if self._subscriptions.pop(subscription.sid, None) is not None:
            del self._handlers[subscription.sid]
            if self._writer is not None:
                self._send(b"UNSUB %s\r\n" % subscription.sid)

    # ---- up, down and up again -------------------------------------------------------------------------------------

    async def _stay_connected(self, link: Link) -> None:
        try:
            while not self._closed:
                reason = await self._serve(link)
                self._down(reason)
                link.writer.transport.abort()
                if self._closed:
                    break
                link = await self._dialler.dial(math.inf)
                self._up(link)
                _log.info("connected again to %s, connection %d", self.address, self.epoch)
        finally:
            self._closed = True
            self._down("it was closed")
            self._up_event.set()
            link.writer.transport.abort()
            with anyio.CancelScope(shield=True), suppress(OSError):
                await link.writer.wait_closed()

    async def _serve(self, link: Link) -> str:
        """Read and ping until the connection breaks; return why it did."""
        reason = ""
        async with anyio.create_task_group() as tasks:

            async def ping() -> None:
                nonlocal reason
                unanswered = 0
                while unanswered <= self._options.pings_outstanding_max:
                    self._heard = False
                    self._pongs.append(None)
                    self._send(PING)
                    await anyio.sleep(self._options.ping_interval_s)
                    unanswered = 0 if self._heard else unanswered + 1
                reason = f"silent for {unanswered * self._options.ping_interval_s:g} s"
                tasks.cancel_scope.cancel()

            tasks.start_soon(ping)
            reason = await self._read(link)
            tasks.cancel_scope.cancel()
        return reason

    async def _read(self, link: Link) -> str:
        feed = Parser(self._handlers, self._on_line).feed
        read = link.reader.read
        try:
            while data := await read(READ_BYTES):
                self._heard = True
                feed(data)
        except (OSError, Undecodable) as error:
            return str(error) or type(error).__name__
        return "the server hung up"

    def _up(self, link: Link) -> None:
        link.writer.transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES_HIGH)
        self._link = link
        self._note_info(link.info)
        self._writer = link.writer
        self.epoch += 1
        self._denied_subscriptions.clear()
        self._unanswerable = None
        self._out = [_subscribe_line(subscription) for subscription in self._subscriptions.values()]
        self._write_out()
        self._up_event.set()
        _call_all(self._state_listeners, True)

    def _down(self, reason: str) -> None:
        if self._writer is None:
            return
        self._why_down = reason
        self._writer = None
        self._out.clear()
        self._out_bytes = 0
        self._up_event = anyio.Event()
        if not self._closed:
            _log.warning("the connection to %s broke: %s", self.address, reason)
        pongs, self._pongs = self._pongs, deque()
        for waiting in pongs:
            if waiting is not None and not waiting.done():
                waiting.set_exception(self._disconnected())
        self._fail_requests(list(self._waiters), self._disconnected)
        _call_all(self._state_listeners, False)

    def _disconnected(self) -> Disconnected:
        return Disconnected(f"not connected to {self.address}: {self._why_down}")

    async def _say_goodbye(self) -> None:
        """Let what was sent arrive, then close. The PONG also means that no unread data makes the close a reset."""
        with anyio.move_on_after(CLOSE_S, shield=True), suppress(MeshError, OSError):
            await self.flush(CLOSE_S)
            self._closed = True
            if self._writer is not None:
                self._writer.close()
                await self._writer.wait_closed()
        self._closed = True


def _subscribe_line(subscription: DirectSubscription) -> bytes:
    return b"SUB %s %s %s\r\n" % (subscription.subject.encode(), subscription.queue.encode(), subscription.sid)


def _call_all(listeners: list[Callable[[T], None]], fact: T) -> None:
    for listener in list(listeners):
        try:
            listener(fact)
        except Exception:
            _log.exception("a connection listener failed")


def _discard(listeners: list[Callable[[T], None]], listener: Callable[[T], None]) -> None:
    with suppress(ValueError):
        listeners.remove(listener)
