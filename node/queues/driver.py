"""What a message queue is to those who use it: messages, deliveries, and the two protocols a driver fulfils.

Invariants of every driver: a message is delivered until it is acknowledged; what is negatively acknowledged is
delivered again after a delay, with a higher number; what a source held when it was closed is delivered again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class QueueMessage:
    """A message. body: as its queue's codec wrote it."""

    id: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Delivery:
    """One time that a message is handed out. number: from 1. ack: what the driver knows this delivery by."""

    message: QueueMessage
    number: int
    ack: str


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """messages: all that are not settled. ready: not delivered yet, or (in memory) to be delivered again by now."""

    messages: int
    ready: int


class Source(Protocol):
    """Where one consumer gets its messages from. Used by one task, except that settling never waits."""

    async def receive(self) -> Delivery:
        """Wait for the next message."""
        ...

    def ack(self, delivery: Delivery) -> None:
        """The message is done with."""
        ...

    def nack(self, delivery: Delivery, delay_s: float) -> None:
        """The message is to come again, not before the delay is over."""
        ...

    def give_back(self, delivery: Delivery) -> None:
        """Nobody has begun with this one and nobody here will: it is for others, at once."""
        ...

    def stop(self) -> None:
        """Fetch no more. What was received can still be settled. Repeating is harmless."""
        ...

    def touch(self, deliveries: Collection[Delivery]) -> None:
        """These are still being worked on."""
        ...


class Driver(Protocol):
    """One queue of a driver."""

    touch_every_s: float | None  # how often to `touch` what is held; None = never

    async def publish(self, message: QueueMessage) -> None:
        """Take a message. Raises Refused."""
        ...

    async def counts(self) -> QueueCounts:
        """Count its messages."""
        ...

    def source(self, prefetch: int) -> AbstractAsyncContextManager[Source]:
        """Get messages while the context lasts; prefetch: how many the consumer holds at most."""
        ...
