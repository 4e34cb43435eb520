"""Following a stream: every message that fits, in order, once, however often the connection breaks.

An ordered consumer (ADR-17) of our own: a short-lived push consumer in the server's memory that is thrown away and
made anew behind the last message whenever something is missing: a gap in its numbering, two heartbeats that did not
come, a reconnect. nats-py's takes 17 s for that after a server restart, gives up silently, and drops messages when the
reader is slow.

Invariants:
- `deliver` is called in stream order, without a gap and without a repetition, from the start sequence on.
- The server is told to go on (flow control) only after what came before has been handed over, so a paused follower
  holds at most the server's window (32 MB) in memory. One that is to hold less (`held_bytes_max`) lets go of all of it
  instead, and of its consumer, and reads it again when it goes on.
- What is delivered is opened (`mesh.envelopes`), as far as the connection's codec can.
- A user who may not make consumers gets the same by reading on from the stream's leader, a little later.
- A stream that ends before what was delivered already, or has another message in the place of the last one that was,
  has lost messages or is another one: StreamRegressed, and nothing more is delivered. In a cluster that is believed
  only when it has been said for a while: a server that was cut off answers from the past for a moment. What `deliver`
  raises ends the follower too.

Run it in a task group of its owner: `await tasks.start(follower.run)` returns when the consumer exists.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import NamedTuple, NoReturn

import anyio
from anyio.abc import TaskStatus

from mesh.connection import Connection, DirectSubscription, parse_headers
from mesh.envelopes import ENVELOPE
from mesh.errors import (
    TEMPORARY,
    Disconnected,
    MeshError,
    NoResponders,
    NotPermitted,
    NotReady,
    RequestTimeout,
    Undecodable,
)
from mesh.jetstream import JetStream

IDLE_HEARTBEAT_S = 0.5
# What a message that is held takes beside its payload.
HELD_EACH_BYTES = 512
# A consumer whose follower is gone without saying so goes after this.
INACTIVE_S = 5.0
POLL_S = 0.25
# A cluster without a leader does not answer; then it is tried again under another name.
CREATE_TIMEOUT_S = 2.0
RETRY_FIRST_S = 0.05
RETRY_MAX_S = 1.0
# How long a server may refuse or not know the stream, once it was followed: a cluster may take a moment. One that says
# that it is not ready is waited for.
PATIENCE_S = 10.0

_log = logging.getLogger(__name__)


class StreamRegressed(MeshError):
    """Raised when a stream has lost messages that were delivered already, or was made anew.

    last_seq: up to where the stream is, as far as can be told, what it was. replaced: others came in their places.
    """

    code = "stream-regressed"

    def __init__(self, stream: str, delivered_seq: int, last_seq: int, *, replaced: bool = False) -> None:
        self.stream = stream
        self.delivered_seq = delivered_seq
        self.last_seq = last_seq
        found = f"has others than before behind {last_seq}" if replaced else f"ends at {last_seq}"
        super().__init__(
            f"stream {stream} {found}, but {delivered_seq} was delivered already: the server has lost "
            "messages or the stream was made anew; load the state again from its beginning"
        )


class Delivered(NamedTuple):
    """One message of the stream. pending: how many that fit are behind it in the stream, as the server saw it."""

    subject: str
    seq: int
    timestamp_ns: int
    data: bytes
    raw_headers: bytes | None
    pending: int


class Statistics(NamedTuple):
    """Where a follower is. consumers: how many it has needed so far; held: messages that wait for `resume`."""

    seq: int
    consumers: int
    held: int


class Follower:
    """Follows a stream from start_seq on; `deliver` is a plain function, called from the read loop.

    on_renewed: called when another consumer had to be made, as the server was away for one.

    filter_subjects: as stored, wildcards allowed; none = all. headers_only: without payloads.
    before_ns: the timestamp of the message before start_seq, which was delivered once; 0 = not known.
    held_bytes_max: what it may hold while it is paused; None = what the server sends.
    """

    def __init__(
        self,
        conn: Connection,
        js: JetStream,
        stream: str,
        filter_subjects: Sequence[str],
        start_seq: int,
        deliver: Callable[[Delivered], None],
        *,
        before_ns: int = 0,
        headers_only: bool = False,
        idle_heartbeat_s: float = IDLE_HEARTBEAT_S,
        consumer_prefix: str = "follow",
        on_renewed: Callable[[], None] = lambda: None,
        held_bytes_max: int | None = None,
    ) -> None:
        self._conn = conn
        self._js = js
        self._stream = stream
        self._filters = list(filter_subjects)
        self._deliver = deliver
        self._on_renewed = on_renewed
        self._headers_only = headers_only
        self._heartbeat_s = idle_heartbeat_s
        self._prefix = consumer_prefix
        # Sequence of the last message taken, and its number in the present consumer.
        self._seq = max(start_seq, 1) - 1
        # The message that another one must not stand in for, with its timestamp; (0, 0) = not known.
        self._known = (self._seq, before_ns) if before_ns else (0, 0)
        self._consumer_seq = 0
        self._has_gap = False
        self._consumer = ""
        self._consumers = 0
        self._subscription: DirectSubscription | None = None
        self._heard = False
        self._wake = anyio.Event()
        self._failure: Exception | None = None
        # Messages and flow control replies in their order, while paused.
        self._held: deque[Delivered | str] = deque()
        self._held_bytes = 0
        self._held_bytes_max = math.inf if held_bytes_max is None else held_bytes_max
        self._paused = False
        self._let_go = False  # there was too much to hold, and there is no consumer
        self._missed = False  # something else than that has cost it its consumer
        # Sequence and timestamp of the last message that was delivered.
        self._handed = (self._seq, before_ns)
        self._checking = False  # whether the tail of the stream is being looked at; nothing is delivered meanwhile
        self._ended = False
        # What was in the stream when the consumer began, as a number of its messages; None = not known yet.
        self._backlog: int | None = None
        self.caught_up = anyio.Event()

    @property
    def last_seq(self) -> int:
        """Return the sequence of the last message taken from the server, the one before start_seq at first."""
        return self._seq

    def statistics(self) -> Statistics:
        """Return where it is."""
        return Statistics(self._seq, self._consumers, sum(isinstance(item, Delivered) for item in self._held))

    def pause(self) -> None:
        """Deliver nothing more until `resume`. May be called from within `deliver`."""
        self._paused = True

    def resume(self) -> None:
        """Deliver what was held, and go on; stops when `deliver` pauses again."""
        self._paused = False
        while self._held and not self._paused and not self._ended and not self._checking:
            item = self._held.popleft()
            if isinstance(item, str):
                self._tell_to_go_on(item)
            else:
                self._held_bytes -= _held_bytes(item)
                self._hand_over(item)
        if self._let_go and not self._paused:
            self._wake.set()

    async def catch_up(self, timeout_s: float) -> None:
        """Wait until all that was in the stream when it began has been delivered. Raises RequestTimeout."""
        with anyio.move_on_after(timeout_s):
            await self.caught_up.wait()
            return
        raise RequestTimeout(self._stream, timeout_s)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Follow until cancelled; report started when the consumer exists.

        Raises NotFound if there is no such stream, StreamRegressed, and what `deliver` raises. A connection that is
        down is waited for.
        """
        remove = self._conn.on_state(self._on_state)
        try:
            try:
                await self._begin(first=True)
            except NotPermitted:
                self._drop_subscription()
                task_status.started()
                await self._read_on()
            task_status.started()
            while True:
                await self._until_something_is_missing()
                if self._failure is not None:
                    raise self._failure
                if self._let_go and self._paused:
                    self._wake = anyio.Event()  # it was another connection, which is of no use yet
                    continue
                self._let_go = False
                await self._begin(first=False)
        finally:
            self._ended = True
            self._held_bytes = 0
            self._held.clear()  # whoever deliver belongs to may know this follower for longer
            remove()
            self._drop_consumer()

    # ---- watching --------------------------------------------------------------------------------------------------

    async def _until_something_is_missing(self) -> None:
        # A timer and no task that wakes up every time: a node follows dozens of partitions, and all their heartbeats
        # come about the same time.
        loop = asyncio.get_running_loop()
        silent = 0
        timer: asyncio.TimerHandle

        def look() -> None:
            nonlocal silent, timer
            # However long our own loop was blocked, that is one interval, and what came meanwhile is read in the next.
            silent = 0 if self._heard or self._let_go else silent + 1
            self._heard = False
            if silent < 2:
                timer = loop.call_later(self._heartbeat_s, look)
                return
            _log.warning("no heartbeat of consumer %s of stream %s", self._consumer, self._stream)
            self._miss()

        self._heard = False
        timer = loop.call_later(self._heartbeat_s, look)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()

    def _on_state(self, connected: bool) -> None:
        if connected:
            self._miss()

    def _miss(self) -> None:
        self._missed = True
        self._wake.set()

    # ---- making a consumer -----------------------------------------------------------------------------------------

    async def _begin(self, *, first: bool) -> None:
        """Make a consumer that begins behind the last message taken; try until there is one."""
        wait_s = RETRY_FIRST_S
        since = anyio.current_time()
        regressed_since: float | None = None
        while True:
            await self._conn.wait_connected()
            self._wake = anyio.Event()
            try:
                return await self._make_consumer()
            except StreamRegressed as error:
                if regressed_since is None:
                    regressed_since = anyio.current_time()
                if not self._js.has_copies or anyio.current_time() - regressed_since > PATIENCE_S:
                    raise
                _log.info("not believed yet: %s", error)
                await anyio.sleep(wait_s)
                continue
            except (Disconnected, RequestTimeout, NoResponders) as error:
                _log.info("stream %s cannot be followed yet: %s", self._stream, error)
            except NotReady as error:
                # A cluster has no leader for as long as most of its servers are away.
                if first and anyio.current_time() - since > PATIENCE_S:
                    raise
                _log.info("stream %s cannot be followed yet: %s", self._stream, error)
            except MeshError:
                if first or anyio.current_time() - since > PATIENCE_S:
                    raise
            regressed_since = None
            await anyio.sleep(wait_s)
            wait_s = min(2 * wait_s, RETRY_MAX_S)

    async def _make_consumer(self) -> None:
        """Make a consumer, and see at the same time whether the stream still has what was delivered.

        What the consumer delivers meanwhile waits for that. Raises StreamRegressed.
        """
        self._drop_consumer()
        seq, known, held = self._seq, self._known, len(self._held)
        self._checking = True
        try:
            await self._both(lambda: self._check_tail(seq, known), lambda: self._create(seq + 1))
        except BaseException:
            self._drop_consumer()
            self._seq, self._known = seq, known
            while len(self._held) > held:
                item = self._held.pop()
                self._held_bytes -= 0 if isinstance(item, str) else _held_bytes(item)
            raise
        finally:
            self._checking = False
        self._consumers += 1
        if self._missed and self._consumers > 1:
            self._on_renewed()
        self._missed = False
        if not self._paused:
            self.resume()
        self._check_caught_up()

    async def _both(self, *actions: Callable[[], Awaitable[None]]) -> None:
        """Do both at the same time, the other one no more when one has failed; raise the error of one of them."""
        failures: list[MeshError] = []

        async def attempt(action: Callable[[], Awaitable[None]]) -> None:
            try:
                await action()
            except MeshError as error:
                failures.append(error)
                tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            for action in actions:
                tasks.start_soon(attempt, action)
        if failures:
            raise failures[0]

    async def _create(self, start_seq: int) -> None:
        inbox = self._conn.new_inbox()
        self._consumer = f"{self._prefix}-{secrets.token_hex(8)}"
        self._consumer_seq = 0
        self._has_gap = False
        self._backlog = None
        self._subscription = self._conn.subscribe_direct(inbox, self._on_message)
        config: dict[str, object] = {
            "name": self._consumer,
            "deliver_subject": inbox,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": start_seq,
            "ack_policy": "none",
            "replay_policy": "instant",
            "max_deliver": 1,
            "mem_storage": True,
            "num_replicas": 1,
            "flow_control": True,
            "idle_heartbeat": int(self._heartbeat_s * 1_000_000_000),
            "inactive_threshold": int(INACTIVE_S * 1_000_000_000),
            "headers_only": self._headers_only,
        }
        if self._filters:
            config["filter_subjects"] = self._filters
        answer = await self._js.api(
            f"CONSUMER.CREATE.{self._stream}.{self._consumer}",
            {"stream_name": self._stream, "config": config, "action": "create"},
            timeout_s=CREATE_TIMEOUT_S,
        )
        # Messages may have come before this answer.
        self._backlog = int(answer["num_pending"]) + int(answer["delivered"]["consumer_seq"])

    async def _check_tail(self, seq: int, known: tuple[int, int]) -> None:
        """See whether the stream still has what was delivered. Raises StreamRegressed.

        The last message is one for all: a server loses from the end, and gives the same numbers again.
        """
        known_seq, known_ns = known
        # A consumer may begin behind the end of the stream, so the server would not complain and we would wait.
        last_seq = (await self._js.stream_info(self._stream)).last_seq
        if last_seq < seq:
            kept = await self._last_not_after(known_ns, last_seq + 1) if known_ns else last_seq
            raise StreamRegressed(self._stream, seq, kept, replaced=kept < last_seq)
        if not known_ns:
            return
        try:
            message = await self._js.get_seq(self._stream, known_seq, from_leader=True, as_stored=True)
        except NotPermitted:
            return  # somebody who only watches
        if message is None or message.timestamp_ns == known_ns:
            return  # deleted, as messages are in the end
        kept = await self._last_not_after(known_ns, known_seq)
        raise StreamRegressed(self._stream, known_seq, kept, replaced=True)

    async def _last_not_after(self, time_ns: int, before_seq: int) -> int:
        """The last message before a sequence that is no newer than a time: what came after a loss is newer."""
        low, high = 0, before_seq
        while high - low > 1:
            middle = (low + high) // 2
            message = await self._js.get_next(self._stream, middle, ">", from_leader=True, as_stored=True)
            if message is None or message.seq >= high or message.timestamp_ns > time_ns:
                high = middle
            else:
                low = message.seq
        return low

    def _drop_consumer(self) -> None:
        """End the present consumer; messages of it that are on their way are not taken any more."""
        if not self._drop_subscription():
            return
        # Not waited for, but with a reply subject: the server ignores a deletion without one.
        subject = f"{self._js.api_prefix}.CONSUMER.DELETE.{self._stream}.{self._consumer}"
        with suppress(Disconnected):
            token = self._conn.request_nowait(subject, b"", lambda *_: self._conn.forget(token))

    def _drop_subscription(self) -> bool:
        if self._subscription is None:
            return False
        self._subscription.unsubscribe()
        self._subscription = None
        return True

    # ---- without a consumer ----------------------------------------------------------------------------------------

    async def _read_on(self) -> NoReturn:
        """Read what comes, message by message, from the leader: a replica that lags behind would show a gap.

        For people who watch; a node that follows streams may make consumers.
        """
        _log.info("stream %s is read on, as this user may make no consumer of it", self._stream)
        since = anyio.current_time()
        while True:
            try:
                await self._read_up_to_now()
                since = anyio.current_time()
            except StreamRegressed:
                if not self._js.has_copies or anyio.current_time() - since > PATIENCE_S:
                    raise
            except NotPermitted:
                raise
            except TEMPORARY:
                if anyio.current_time() - since > PATIENCE_S:
                    raise
                await self._conn.wait_connected()
            if self._failure is not None:
                raise self._failure
            await anyio.sleep(POLL_S)

    async def _read_up_to_now(self) -> None:
        # Two filters are asked one after the other, so only what both have been asked about is handed over.
        horizon = (await self._js.stream_info(self._stream)).last_seq
        if horizon < self._seq:
            raise StreamRegressed(self._stream, self._seq, horizon)
        while self._failure is None:
            while self._paused:  # noqa: ASYNC110 - rare, and not worth an event for each pause
                await anyio.sleep(POLL_S)
            found = [
                message
                for subjects in self._filters or [">"]
                if (message := await self._js.get_next(self._stream, self._seq + 1, subjects, from_leader=True))
            ]
            first = min(found, key=lambda message: message.seq, default=None)
            if first is None or first.seq > horizon:
                break
            self._seq = first.seq
            data = b"" if self._headers_only else first.data
            self._hand_over(
                Delivered(first.subject, first.seq, first.timestamp_ns, data, first.raw_headers, horizon - first.seq)
            )
        self._seq = max(self._seq, horizon)
        self.caught_up.set()

    # ---- messages --------------------------------------------------------------------------------------------------

    def _on_message(self, subject: str, reply: str, data: bytes, raw_headers: bytes | None) -> None:
        self._heard = True
        if not reply.startswith("$JS.ACK."):
            self._on_control(reply, raw_headers)
            return
        if self._has_gap:
            return
        seq, consumer_seq, timestamp_ns, pending = position_of(reply)
        if consumer_seq != self._consumer_seq + 1:
            self._on_gap(f"message {self._consumer_seq + 1}")
            return
        self._consumer_seq = consumer_seq
        self._seq = seq
        self._known = (seq, timestamp_ns)
        if data[:2] == ENVELOPE:
            data = self._js.opened(subject, data)
        message = Delivered(subject, seq, timestamp_ns, data, raw_headers, pending)
        if self._paused or self._held or self._checking:
            self._hold(message)
        else:
            self._hand_over(message)

    def _hold(self, message: Delivered) -> None:
        self._held.append(message)
        self._held_bytes += _held_bytes(message)
        if self._paused and not self._checking and self._held_bytes > self._held_bytes_max:
            self._held.clear()
            self._held_bytes = 0
            self._seq = self._handed[0]
            self._known = self._handed if self._handed[1] else (0, 0)
            self._let_go = True
            self._drop_consumer()

    def _on_control(self, reply: str, raw_headers: bytes | None) -> None:
        """Answer flow control in its turn; compare a heartbeat's number with ours."""
        if reply:
            self._in_turn(reply)
            return
        headers = parse_headers(raw_headers)
        sent = headers.get("Nats-Last-Consumer")
        if sent is not None and int(sent) != self._consumer_seq:
            self._on_gap(f"messages up to {sent}")
            return
        stalled = headers.get("Nats-Consumer-Stalled")
        if stalled:
            self._in_turn(stalled)
        elif sent is not None and not self._held and not self._checking:
            # Heartbeats come when there is nothing to send.
            self.caught_up.set()

    def _in_turn(self, flow_control: str) -> None:
        if self._paused or self._held or self._checking:
            self._held.append(flow_control)
        else:
            self._tell_to_go_on(flow_control)

    def _tell_to_go_on(self, flow_control: str) -> None:
        with suppress(Disconnected):
            self._conn.publish_nowait(flow_control)

    def _on_gap(self, missing: str) -> None:
        """Take nothing more of this consumer.

        A server that was restarted makes it anew under its name and counts from one again, without what was deleted
        meanwhile: the number that was missing comes then, and is that of a later message.
        """
        self._has_gap = True
        if not self._wake.is_set():
            _log.warning("stream %s, consumer %s: %s did not come", self._stream, self._consumer, missing)
            self._miss()

    def _hand_over(self, message: Delivered) -> None:
        if self._failure is not None or self._ended:
            return
        self._handed = (message.seq, message.timestamp_ns)
        try:
            self._deliver(message)
        except Exception as error:
            self._failure = error
            self._wake.set()
            return
        if message.pending == 0:
            self.caught_up.set()
        elif self._backlog is not None and self._consumer_seq >= self._backlog:
            self._check_caught_up()

    def _check_caught_up(self) -> None:
        is_all = self._backlog is not None and self._consumer_seq >= self._backlog
        if is_all and not self._held and not self._checking:
            self.caught_up.set()


def _held_bytes(message: Delivered) -> int:
    return len(message.data) + HELD_EACH_BYTES


def position_of(reply: str) -> tuple[int, int, int, int]:
    """Return (stream sequence, consumer sequence, timestamp in ns, pending) of a JetStream message's reply subject.

    `$JS.ACK.<stream>.<consumer>.<tries>.<seq>.<consumer seq>.<ns>.<pending>`, or with a domain and an account behind
    ACK and perhaps one more token at the end (ADR-15).
    """
    tokens = reply.split(".")
    try:
        if len(tokens) == 9:
            return int(tokens[5]), int(tokens[6]), int(tokens[7]), int(tokens[8])
        return int(tokens[7]), int(tokens[8]), int(tokens[9]), int(tokens[10])
    except (IndexError, ValueError) as error:
        raise Undecodable(f"{reply} is no reply subject of a JetStream message") from error
