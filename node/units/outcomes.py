"""Outcomes that the node itself gives to what units ask for, and texts as Lua takes them."""

from __future__ import annotations

from typing import Final

from mesh import codec
from mesh.failure import Failure, Kind

TRUE: Final = codec.encode_success(True)


def failed(message: str, kind: str, *, retryable: bool | None = False) -> bytes:
    """An outcome that is a failure."""
    return codec.encode_failure(Failure(message, kind, retryable))


def mailbox_full(pid: str, unread_max: int) -> bytes:
    """The outcome of a message to a process that takes no more for now."""
    text = f"mailbox full: process {pid} has {unread_max} messages that it has not read"
    return failed(text, Kind.UNAVAILABLE, retryable=True)


def lua_text(text: str) -> bytes:
    """A text as `LiveUnit.post` takes it."""
    return text.encode("utf-8", "surrogateescape")
