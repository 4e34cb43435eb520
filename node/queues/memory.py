"""The driver `queue.driver.memory`: messages in the memory of one node.

They are gone when the node ends, and other nodes do not see them: what is published on a node is consumed on that node,
or waits there until the queue is full.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio

from mesh.failure import Kind
from node.modules import Refused
from node.queues.driver import Delivery, QueueCounts, QueueMessage

BODY_BYTES_MAX = 1024 * 1024  # what the server takes by default, so that both drivers take the same


class MemoryQueue:
    """One queue. length_max: messages that are not settled, those with a handler included."""

    touch_every_s: float | None = None

    def __init__(self, name: str, length_max: int) -> None:
        self.name = name
        self.length_max = length_max
        self._ready: deque[Delivery] = deque()
        self._later: list[tuple[float, int, Delivery]] = []  # a heap by due time
        self._held = 0
        self._numbers = itertools.count(1)
        self._changed = anyio.Event()

    def __len__(self) -> int:
        return len(self._ready) + len(self._later) + self._held

    async def publish(self, message: QueueMessage) -> None:
        """Take a message, or refuse it when the queue is full."""
        if len(message.body) > BODY_BYTES_MAX:
            raise Refused(
                f"the message has {len(message.body)} bytes, at most {BODY_BYTES_MAX} are possible; send a reference",
                Kind.INVALID,
            )
        if len(self) >= self.length_max:
            raise Refused(
                f"queue {self.name} is full: {self.length_max} messages wait on this node (max_length)",
                Kind.INTERNAL,
                retryable=True,
            )
        self._ready.append(Delivery(message, 1, str(next(self._numbers))))
        self._wake()

    async def counts(self) -> QueueCounts:
        """Count the messages."""
        self._ripen()
        return QueueCounts(len(self), len(self._ready))

    @asynccontextmanager
    async def source(self, prefetch: int) -> AsyncIterator[_MemorySource]:
        """Get messages; what is held at the end is put back in front. Nothing has to be fetched ahead here."""
        source = _MemorySource(self)
        try:
            yield source
        finally:
            source.put_back()

    def _ripen(self) -> None:
        now = anyio.current_time()
        while self._later and self._later[0][0] <= now:
            self._ready.append(heapq.heappop(self._later)[2])

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


class _MemorySource:
    def __init__(self, queue: MemoryQueue) -> None:
        self._queue = queue
        self._held: dict[str, Delivery] = {}

    async def receive(self) -> Delivery:
        queue = self._queue
        while True:
            queue._ripen()
            if queue._ready:
                delivery = queue._ready.popleft()
                queue._held += 1
                self._held[delivery.ack] = delivery
                return delivery
            changed = queue._changed
            wait_s = queue._later[0][0] - anyio.current_time() if queue._later else None
            with anyio.move_on_after(wait_s):
                await changed.wait()

    def ack(self, delivery: Delivery) -> None:
        if self._held.pop(delivery.ack, None) is not None:
            self._queue._held -= 1

    def nack(self, delivery: Delivery, delay_s: float) -> None:
        if self._held.pop(delivery.ack, None) is not None:
            queue = self._queue
            queue._held -= 1
            again = replace(delivery, number=delivery.number + 1)
            heapq.heappush(queue._later, (anyio.current_time() + delay_s, next(queue._numbers), again))
            queue._wake()

    def give_back(self, delivery: Delivery) -> None:
        """All are put back together at the end, so that they keep their order."""

    def stop(self) -> None:
        """Nothing is fetched ahead."""

    def touch(self, deliveries: Collection[Delivery]) -> None:
        """Nobody else would take them."""

    def put_back(self) -> None:
        """Put back what is held, as it was."""
        held, self._held = self._held, {}
        self._queue._held -= len(held)
        self._queue._ready.extendleft(reversed(held.values()))
        self._queue._wake()
