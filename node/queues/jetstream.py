"""The driver `queue.driver.jetstream`: messages in a work-queue stream, shared by all nodes of the mesh.

A source pulls: it asks for as many messages as its consumer has room for. What it holds it reports as being worked on;
when the node dies that ends, and after `ack_wait` the server gives the messages to another node. So a handler may run
twice for one message, and must be written for that.

Invariant: at most one pull is open, so no more than `prefetch` messages are held (a few more after a break).
"""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from typing import Final

import anyio

from mesh.connection import Connection, parse_headers, status_of
from mesh.errors import TEMPORARY, Disconnected, MeshError, NotFound, PayloadTooLarge
from mesh.failure import Kind
from mesh.jetstream import JetStream
from mesh.starting import publish_until_acked
from mesh.subjects import message_queue, parse_delivery
from node.modules import Refused
from node.queues.driver import Delivery, QueueCounts, QueueMessage
from store.message_queues import CONSUMER, ensure_message_queue, message_counts

# The server ends a pull by itself after this; one that was lost is noticed a little later.
PULL_S: Final = 10.0
PULL_LOST_S: Final = PULL_S + 2.0
RETRY_S: Final = 1.0
TOUCHES_PER_ACK_WAIT: Final = 3  # two may be lost
_RESERVED_HEADERS: Final = "nats-"
_HEARTBEAT: Final = 100

_log = logging.getLogger(__name__)


class JetStreamQueue:
    """One queue."""

    def __init__(
        self, js: JetStream, name: str, *, length_max: int, replicas: int, ack_wait_s: float, pull_s: float = PULL_S
    ) -> None:
        self.name = name
        self.touch_every_s: float | None = ack_wait_s / TOUCHES_PER_ACK_WAIT
        self.pull_s = pull_s
        self._js = js
        self._length_max = length_max
        self._replicas = replicas
        self._ack_wait_s = ack_wait_s
        self._stream = ""

    async def publish(self, message: QueueMessage) -> None:
        """Store a message. Returns when the server has it, however often that was asked."""
        for name in message.headers:
            if name.lower().startswith(_RESERVED_HEADERS):
                raise Refused(f"header {name}: names that begin with Nats- are the server's", Kind.INVALID)
        try:
            await self.ensure()
            try:
                await self._store(message)
            except NotFound:  # somebody has deleted the stream
                await self.ensure(again=True)
                await self._store(message)
        except PayloadTooLarge as error:
            raise Refused(str(error), Kind.INVALID) from None
        except MeshError as error:
            raise Refused(
                f"queue {self.name}: {error}", Kind.INTERNAL, retryable=isinstance(error, TEMPORARY)
            ) from None

    async def _store(self, message: QueueMessage) -> None:
        subject = message_queue(self.name)
        await publish_until_acked(self._js, subject, message.body, dict(message.headers), msg_id=message.id)

    async def counts(self) -> QueueCounts:
        """Count the messages, those held by other nodes included."""
        try:
            stored, held = await message_counts(self._js, self.name)
        except MeshError as error:
            raise Refused(f"queue {self.name}: {error}", Kind.INTERNAL, retryable=True) from None
        return QueueCounts(stored, max(stored - held, 0))

    async def ensure(self, *, again: bool = False) -> str:
        """Make the stream and the consumer, once; return the stream's name."""
        if again or not self._stream:
            self._stream = await ensure_message_queue(
                self._js, self.name, length_max=self._length_max, replicas=self._replicas, ack_wait_s=self._ack_wait_s
            )
        return self._stream

    @asynccontextmanager
    async def source(self, prefetch: int) -> AsyncIterator[_Source]:
        """Get messages; those that nobody has begun with are given back at the end.

        What the server sends in that very moment comes again after `ack_wait`, and so does what has a handler, which
        may still be running somewhere.

        Raises MeshError when the stream cannot be made.
        """
        await self.ensure(again=True)
        source = _Source(self, self._js, prefetch)
        try:
            yield source
        finally:
            source.close()


class _Source:
    def __init__(self, queue: JetStreamQueue, js: JetStream, prefetch: int) -> None:
        self._queue = queue
        self._js = js
        self._conn: Connection = js.conn
        self._prefetch = prefetch
        self._arrived: deque[Delivery] = deque()
        self._held: set[str] = set()  # ack subjects of what was received and is not settled
        self._unsent: dict[str, bytes] = {}
        self._pull = 0  # number of the latest pull
        self._left = 0  # messages it may still bring
        self._pull_open = False
        self._pull_until = 0.0
        self._gone = False
        self._stopped = False
        self._event = anyio.Event()
        self._inbox = f"{self._conn.new_inbox()}."
        self._subscription = self._conn.subscribe_direct(f"{self._inbox}*", self._on_message)
        self._off_state = self._conn.on_state(self._on_state)

    async def receive(self) -> Delivery:
        while not self._arrived:
            if not self._pull_open or anyio.current_time() > self._pull_until:
                await self._ask()
                continue
            event = self._event
            with anyio.move_on_after(max(self._pull_until - anyio.current_time(), 0.0) + 0.01):
                await event.wait()
        return self._arrived.popleft()

    def ack(self, delivery: Delivery) -> None:
        self._settle(delivery.ack, b"+ACK")

    def nack(self, delivery: Delivery, delay_s: float) -> None:
        self._settle(delivery.ack, b'-NAK {"delay": %d}' % round(delay_s * 1e9))

    def give_back(self, delivery: Delivery) -> None:
        """While a pull is open here the server would hand it straight back: it is noted until `stop`."""
        self._arrived.append(delivery)
        if self._stopped:
            self.stop()

    def touch(self, deliveries: Collection[Delivery]) -> None:
        for ack in (*(delivery.ack for delivery in deliveries), *(delivery.ack for delivery in self._arrived)):
            if ack in self._held:
                with suppress(Disconnected):
                    self._conn.publish_nowait(ack, b"+WPI")

    def stop(self) -> None:
        """End the pull, then give back what nobody has begun with."""
        self._stopped = True
        self._subscription.unsubscribe()
        while self._arrived:
            self._settle(self._arrived.popleft().ack, b"-NAK")

    def close(self) -> None:
        """Stop for good."""
        self.stop()
        self._off_state()

    async def _ask(self) -> None:
        """Open a pull for as many as there is room for. Waits a moment when that is not possible."""
        try:
            if self._gone:
                await self._queue.ensure(again=True)
                self._gone = False
            stream = await self._queue.ensure()
            room = max(self._prefetch - len(self._held), 1)
            wish = {"batch": room, "expires": round(self._queue.pull_s * 1e9)}
            self._pull += 1
            subject = f"{self._js.api_prefix}.CONSUMER.MSG.NEXT.{stream}.{CONSUMER}"
            self._conn.publish_nowait(subject, json.dumps(wish).encode(), f"{self._inbox}{self._pull}")
        except Disconnected:
            await self._conn.wait_connected()
            return
        except MeshError as error:
            _log.warning("queue %s cannot be read, trying again: %s", self._queue.name, error)
            await anyio.sleep(RETRY_S)
            return
        self._left = room
        self._pull_open = True
        self._pull_until = anyio.current_time() + self._queue.pull_s + (PULL_LOST_S - PULL_S)

    def _on_message(self, subject: str, reply: str, data: bytes, raw_headers: bytes | None) -> None:
        code, text = status_of(raw_headers)
        if code is not None:
            if code == _HEARTBEAT or not subject.endswith(f".{self._pull}"):
                return
            self._gone = self._gone or code == 503 or "Consumer" in text
            if self._gone:
                # Not at once: a server that has just come up has no consumers for a moment.
                self._pull_until = min(self._pull_until, anyio.current_time() + RETRY_S / 4)
            else:
                self._pull_open = False
            self._wake()
            return
        parsed = parse_delivery(reply)
        if parsed is None:
            _log.warning("queue %s: a message without a way to acknowledge it is ignored", self._queue.name)
            return
        number, seq = parsed
        headers = parse_headers(raw_headers)
        message = QueueMessage(
            headers.get("Nats-Msg-Id") or f"{self._queue.name}:{seq}",
            {name: value for name, value in headers.items() if not name.lower().startswith(_RESERVED_HEADERS)},
            self._conn.opened(message_queue(self._queue.name), data),
        )
        self._held.add(reply)
        self._arrived.append(Delivery(message, number, reply))
        self._left -= 1
        if self._left <= 0:
            self._pull_open = False
        self._wake()

    def _on_state(self, connected: bool) -> None:
        self._pull_open = False
        if connected:
            unsent, self._unsent = self._unsent, {}
            for ack, how in unsent.items():
                self._send(ack, how)
        self._wake()

    def _settle(self, ack: str, how: bytes) -> None:
        if ack in self._held:
            self._held.discard(ack)
            self._send(ack, how)

    def _send(self, ack: str, how: bytes) -> None:
        try:
            self._conn.publish_nowait(ack, how)
        except Disconnected:
            self._unsent[ack] = how

    def _wake(self) -> None:
        self._event.set()
        self._event = anyio.Event()
