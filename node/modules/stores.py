"""What a store is to the module `store`: keys with values, versions and times to live, wherever they are kept.

The kinds are `node.modules.memory_store` and `node.modules.kv_store`; both answer the same, and pass the same tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol

from mesh.failure import Kind
from node.modules import Refused

KEY_BYTES_MAX: Final = 1000  # encoded for a subject it may be three times as long, and the server takes 4,096
LIST_LIMIT: Final = 100
LIST_LIMIT_MAX: Final = 1000
TTL_S_MAX: Final = 100 * 365 * 86_400  # the server counts nanoseconds in 64 bits


@dataclass(frozen=True, slots=True)
class Held:
    """A key and what it holds. version: grows with every write to the store."""

    key: str
    value: Any
    version: int

    def shown(self) -> dict[str, Any]:
        """The entry as code sees it; the version is a text that means nothing to it."""
        return {"key": self.key, "value": self.value, "version": str(self.version)}


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries in the order of their keys, and whether there are more."""

    items: tuple[Held, ...]
    has_more: bool


@dataclass(frozen=True, slots=True)
class Condition:
    """When a write is to happen. absent: only if the key is not there; version: only if that is its version."""

    absent: bool = False
    version: int | None = None


ALWAYS: Final = Condition()


class Store(Protocol):
    """One store. All of it raises Refused."""

    async def get(self, key: str) -> Held | None:
        """Return what a key holds, None if it is absent or its time is over."""
        ...

    async def put(self, key: str, value: Any, ttl_s: float | None, condition: Condition) -> Held:
        """Set a key; ttl_s None: for ever."""
        ...

    async def delete(self, key: str) -> bool:
        """Remove a key; whether it was there."""
        ...

    async def list(self, prefix: str, after: str, limit: int) -> Page:
        """Return the first keys with this prefix that come after `after`."""
        ...

    def info(self) -> dict[str, Any]:
        """What the store is and can do."""
        ...


def exists(key: str) -> Refused:
    """The refusal of a write that is for absent keys."""
    return Refused(f"the key {key!r} exists already", Kind.ALREADY_EXISTS)


def changed(key: str) -> Refused:
    """The refusal of a write that is for another version."""
    return Refused(f"the key {key!r} is not at that version any more; read it again", Kind.CONFLICT, retryable=True)
