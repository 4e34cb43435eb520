"""Handing the messages of a queue to a function, and settling them by what comes of it.

A handler that succeeds acknowledges its message, one that fails has it delivered again after a pause that doubles, up
to a number of times; then the message goes to the dead-letter queue, or is logged and dropped. A handler may settle its
message itself before it ends: then its outcome does not matter any more. The first settlement counts.

Not here: where messages are kept (`memory`, `jetstream`), finding queues by id (`node.modules.queue`).
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import anyio
import anyio.abc

from mesh import codec
from mesh.envelopes import may_open_later, why_closed
from mesh.errors import Undecodable
from mesh.failure import Failure, Kind
from mesh.groups import unwrapped
from node.modules import Refused
from node.queues.driver import Delivery, Driver, QueueMessage, Source
from node.registry import ConsumerEntry, RedeliverySpec

MESSAGE_KEY: Final = "@queue.message"  # read by node/lua/queue.lua; the code of functions cannot set it
REASON_CHARS_MAX: Final = 1000  # of a dead letter's header
DEAD_QUEUE: Final = "Dead-Letter-Queue"
DEAD_REASON: Final = "Dead-Letter-Reason"
DEAD_DELIVERIES: Final = "Dead-Letter-Deliveries"

# Function id, arguments, context values -> outcome bytes.
Call = Callable[[str, list[Any], Mapping[str, Any]], Awaitable[bytes]]
Publish = Callable[[str, QueueMessage], Awaitable[None]]
UNOPENED_AGAIN_S: Final = 5.0  # for a message whose key is not there

_log = logging.getLogger(__name__)


def pause_s(redelivery: RedeliverySpec, number: int) -> float | None:
    """How long after the failure of delivery `number` a message comes again; None = it is given up."""
    if redelivery.deliveries_max and number >= redelivery.deliveries_max:
        return None
    # The exponent is bounded: a queue without a limit may get to numbers whose power is too large for a float.
    return min(redelivery.delay_s * 2.0 ** min(number - 1, 64), redelivery.delay_max_s)


@dataclass(slots=True)
class Held:
    """A delivery of this node. exhausted: its handler refused it for the last time, it is given up when that ends."""

    delivery: Delivery
    settled: bool = False
    exhausted: bool = False


class Consumer:
    """One consumer on this node. `run` it; `drain` before its end lets handlers finish."""

    def __init__(
        self,
        entry: ConsumerEntry,
        queue_id: str,
        driver: Driver,
        redelivery: RedeliverySpec,
        *,
        node_id: str,
        call: Call,
        publish: Publish,
        held: dict[str, Held],
    ) -> None:
        self._entry = entry
        self._queue_id = queue_id
        self._driver = driver
        self._redelivery = redelivery
        self._node_id = node_id
        self._call = call
        self._publish = publish
        self._all_held = held  # of all consumers of the node, by a secret number
        self._mine: dict[str, Held] = {}
        self._source: Source | None = None
        self._prefetch = max(entry.prefetch, entry.concurrency)
        self._handlers = anyio.CapacityLimiter(entry.concurrency)
        self._draining = False
        self._changed = anyio.Event()
        self._receiving = anyio.CancelScope()

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Consume until cancelled. Ready once messages can arrive. Raises MeshError when the queue cannot be made."""
        with unwrapped():
            async with self._driver.source(self._prefetch) as source, anyio.create_task_group() as tasks:
                self._source = source
                task_status.started()
                if self._driver.touch_every_s is not None:
                    tasks.start_soon(self._touch, self._driver.touch_every_s)
                with self._receiving:
                    await self._receive(source, tasks)
                source.stop()
                await anyio.sleep_forever()  # draining: handlers go on

    async def drain(self, timeout_s: float) -> None:
        """Take no more messages and wait for the handlers that run."""
        self._draining = True
        self._receiving.cancel()
        with anyio.move_on_after(timeout_s):
            while self._mine:
                await self._changed.wait()

    def settle(self, held: Held, how: str) -> None:
        """Settle a message by the will of its handler. Raises Refused when it is settled already."""
        if held.settled:
            raise Refused("the message is settled already", Kind.INVALID)
        held.settled = True
        delay_s = pause_s(self._redelivery, held.delivery.number)
        if self._source is None:
            return
        if how == "ack":
            self._source.ack(held.delivery)
        elif delay_s is None:
            held.exhausted = True
        else:
            self._source.nack(held.delivery, delay_s)

    def holds(self, number: str) -> bool:
        """Whether a delivery is this consumer's."""
        return number in self._mine

    async def _receive(self, source: Source, tasks: anyio.abc.TaskGroup) -> None:
        while not self._draining:
            if len(self._mine) >= self._prefetch:
                await self._changed.wait()
                continue
            delivery = await source.receive()
            number = secrets.token_hex(8)
            self._mine[number] = self._all_held[number] = Held(delivery)
            tasks.start_soon(self._handle, source, number)

    async def _touch(self, every_s: float) -> None:
        while True:
            await anyio.sleep(every_s)
            if self._source is not None:
                self._source.touch([held.delivery for held in self._mine.values()])

    async def _handle(self, source: Source, number: str) -> None:
        held = self._mine[number]
        begun = False
        try:
            async with self._handlers:
                if not self._draining:
                    begun = True
                    await self._handle_one(source, number, held)
        finally:
            if not begun:
                source.give_back(held.delivery)
            del self._mine[number]
            self._all_held.pop(number, None)
            self._changed.set()
            self._changed = anyio.Event()

    async def _handle_one(self, source: Source, number: str, held: Held) -> None:
        delivery = held.delivery
        message = delivery.message
        limit = self._redelivery.deliveries_max
        if may_open_later(message.body):
            # However often it comes: it is sound, and it is only this node that cannot read it yet.
            _log.error("consumer %s: message %s is %s", self._entry.id, message.id, why_closed(message.body))
            held.settled = True
            source.nack(delivery, UNOPENED_AGAIN_S)
            return
        if limit and delivery.number > limit:  # the nodes that had it were gone before they could say anything
            await self._give_up(source, held, "its node was lost each time")
            return
        try:
            body = codec.decode(message.body)
        except Undecodable as error:
            await self._give_up(source, held, f"its body cannot be read: {error}")
            return
        if self._entry.auto_ack:
            held.settled = True
            source.ack(delivery)
        handle = {
            "id": message.id, "headers": dict(message.headers), "queue": self._queue_id,
            "node": self._node_id, "delivery": number,
        }  # fmt: skip
        failure = await self._failure_of(body, handle)
        if failure is not None:
            _log.warning(
                "consumer %s: message %s failed, delivery %d: %s", self._entry.id, message.id, delivery.number, failure
            )
        if held.exhausted:
            await self._give_up(source, held, "its handler called nack()")
        if held.settled:
            return
        if failure is None:
            held.settled = True
            source.ack(delivery)
            return
        delay_s = pause_s(self._redelivery, delivery.number)
        if delay_s is None:
            await self._give_up(source, held, str(failure))
            return
        held.settled = True
        source.nack(delivery, delay_s)

    async def _failure_of(self, body: Any, handle: Mapping[str, Any]) -> Failure | None:
        try:
            ok, value = codec.decode_outcome(await self._call(self._entry.func, [body], {MESSAGE_KEY: handle}))
        except Exception as error:  # the platform's failure is no reason to lose the message
            return Failure(f"{self._entry.func} could not be called: {error}", Kind.INTERNAL)
        return None if ok else value

    async def _give_up(self, source: Source, held: Held, reason: str) -> None:
        delivery, message = held.delivery, held.delivery.message
        dead_letter = self._redelivery.dead_letter
        where = f"goes to {dead_letter}" if dead_letter else "is dropped"
        _log.error(
            "consumer %s: message %s of %s %s after %d deliveries: %s",
            self._entry.id, message.id, self._queue_id, where, delivery.number, reason,
        )  # fmt: skip
        if dead_letter:
            headers = {
                **message.headers,
                DEAD_QUEUE: self._queue_id,
                DEAD_REASON: " ".join(reason.split())[:REASON_CHARS_MAX],
                DEAD_DELIVERIES: str(delivery.number),
            }
            try:
                await self._publish(dead_letter, QueueMessage(message.id, headers, message.body))
            except Refused as refused:
                _log.warning("message %s stays in %s for now: %s", message.id, self._queue_id, refused)
                held.settled = True
                source.nack(delivery, self._redelivery.delay_max_s)
                return
        held.settled = True
        source.ack(delivery)
