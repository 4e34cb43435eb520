"""Failures of users' code, as values.

A `Failure` is what a function, workflow or message carries when the user's code said no. It becomes an outcome in a
history. Platform errors (`mesh.errors`) never do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from reprlib import repr as short  # as deep as anybody has nested it
from typing import Any, Final


class Kind(StrEnum):
    """The error kinds of the Lua API; UNKNOWN is the empty text."""

    UNKNOWN = ""
    INVALID = "Invalid"
    NOT_FOUND = "NotFound"
    ALREADY_EXISTS = "AlreadyExists"
    PERMISSION_DENIED = "PermissionDenied"
    UNAVAILABLE = "Unavailable"
    INTERNAL = "Internal"
    CANCELED = "Canceled"
    CONFLICT = "Conflict"
    TIMEOUT = "Timeout"
    RATE_LIMITED = "RateLimited"


# What a call has failed with whose host is gone: whether it was carried out is unknown.
HOST_LOST: Final = "HostLost"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why user code failed. `retryable` is None when nobody said."""

    message: str
    kind: str = Kind.UNKNOWN
    retryable: bool | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    stack: str = ""

    def to_wire(self) -> dict[str, Any]:
        """The map that goes over the wire: only the fields that are set."""
        wire: dict[str, Any] = {"message": self.message, "kind": str(self.kind)}
        if self.retryable is not None:
            wire["retryable"] = self.retryable
        if self.details:
            wire["details"] = dict(self.details)
        if self.stack:
            wire["stack"] = self.stack
        return wire

    @classmethod
    def from_wire(cls, wire: object) -> Failure:
        """Read a failure from its map; anything missing or of a wrong type is read as not said."""
        if not isinstance(wire, Mapping):
            return cls(message=_text(wire), kind=Kind.INTERNAL)
        retryable = wire.get("retryable")
        details = wire.get("details")
        return cls(
            message=_text(wire.get("message")),
            kind=_text(wire.get("kind")),
            retryable=retryable if isinstance(retryable, bool) else None,
            details=details if isinstance(details, Mapping) else {},
            stack=_text(wire.get("stack")),
        )

    def __str__(self) -> str:
        """Kind and message, as a person reads it."""
        return f"{self.kind}: {self.message}" if self.kind else self.message


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if value is None else short(value)
