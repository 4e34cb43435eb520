"""What a test says a function comes to: an answer, a failure, a host that dies, or nothing ever.

    sim.function("app.api:charge_card", [fail("bank is down"), lost(), {"charge_id": "ch-1"}])

Pure values. What follows from them is in `node.testing.functions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mesh.duration import SECOND, BadDuration, parse_duration_ns
from mesh.failure import Kind


@dataclass(frozen=True, slots=True)
class Answer:
    """A call that succeeds with a value, so much virtual time after it began."""

    value: Any
    after_ns: int


class FunctionFails(Exception):
    """A call that fails: what `fail` makes, to be raised by a replacement or listed among its outcomes.

    kind, retryable, details: of the error that the calling code gets.
    """

    def __init__(
        self, message: str, kind: str, retryable: bool | None, details: Mapping[str, Any], after_ns: int
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.retryable = retryable
        self.details = details
        self.after_ns = after_ns


@dataclass(frozen=True, slots=True)
class HostLost:
    """A call whose host dies, so much virtual time after it began."""

    after_ns: int


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """A call that goes on for ever: its timeouts end it, or whoever asks it to stop."""


Outcome = Answer | FunctionFails | HostLost | NoAnswer


def answer(value: Any = None, *, after: str | float = 0) -> Answer:
    """The call succeeds with a value. after: how long it takes in virtual time, Go text or seconds."""
    return Answer(value, duration_ns(after))


def fail(
    message: str,
    *,
    kind: str = Kind.INTERNAL,
    retryable: bool | None = None,
    details: Mapping[str, Any] | None = None,
    after: str | float = 0,
) -> FunctionFails:
    """The call fails. To be raised, or given as an outcome.

    retryable: False makes it final; None leaves it to the caller's retry policy, which retries.
    """
    return FunctionFails(message, kind, retryable, details or {}, duration_ns(after))


def lost(*, after: str | float = 0) -> HostLost:
    """The host of the call dies in the middle of it.

    A call that may run once only ends with kind `UnknownOutcome`, any other is made again.
    """
    return HostLost(duration_ns(after))


def hang() -> NoAnswer:
    """The call never comes to an end."""
    return NoAnswer()


def duration_ns(given: str | float) -> int:
    """A duration in nanoseconds, from Go text (`1h30m`) or a number of seconds. Raises BadDuration."""
    ns = parse_duration_ns(given, number_unit_ns=SECOND)
    if ns < 0:
        raise BadDuration(given, f"time only goes forward, {given!r} would go back")
    return ns
