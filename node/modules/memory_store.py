"""A `store.memory`: keys in the memory of this node.

Values are kept as bytes, so that nobody shares a table with the store. Full means full: a new key is refused until
another one goes; keys that are there can always be written.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anyio

from mesh import codec
from mesh.failure import Kind
from node.modules import Refused
from node.modules.stores import Condition, Held, Page, changed, exists
from node.registry import MemoryStoreEntry


@dataclass(frozen=True, slots=True)
class _Kept:
    value: bytes
    version: int
    expires_s: float | None


class MemoryStore:
    """The keys of one entry. clock: seconds of any origin."""

    def __init__(self, entry: MemoryStoreEntry, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._entry = entry
        self._clock = clock
        self._kept: dict[str, _Kept] = {}
        self._version = 0

    async def run(self) -> None:
        """Drop what has expired, every `cleanup_interval`, until cancelled."""
        while True:
            await anyio.sleep(self._entry.cleanup_interval_s)
            self.clean()

    def clean(self) -> None:
        """Drop what has expired."""
        now = self._clock()
        for key in [key for key, kept in self._kept.items() if _is_over(kept, now)]:
            del self._kept[key]

    def __len__(self) -> int:
        return len(self._kept)

    async def get(self, key: str) -> Held | None:
        """Return what a key holds."""
        kept = self._find(key)
        return None if kept is None else _held(key, kept)

    async def put(self, key: str, value: Any, ttl_s: float | None, condition: Condition) -> Held:
        """Set a key. Raises Refused when the condition does not hold or the store is full."""
        kept = self._find(key)
        if condition.absent and kept is not None:
            raise exists(key)
        if condition.version is not None and (kept is None or kept.version != condition.version):
            raise changed(key)
        if kept is None and len(self._kept) >= self._entry.size_max:
            self.clean()
            if len(self._kept) >= self._entry.size_max:
                raise Refused(
                    f"store {self._entry.id} is full: it has {self._entry.size_max} keys (max_size); delete some",
                    Kind.RATE_LIMITED, retryable=True,
                )  # fmt: skip
        self._version += 1
        written = _Kept(codec.pack(value), self._version, None if ttl_s is None else self._clock() + ttl_s)
        self._kept[key] = written
        return Held(key, value, written.version)

    async def delete(self, key: str) -> bool:
        """Remove a key; whether it was there."""
        return self._find(key) is not None and self._kept.pop(key, None) is not None

    async def list(self, prefix: str, after: str, limit: int) -> Page:
        """Return the first keys with this prefix that come after `after`."""
        now = self._clock()
        live = (key for key, kept in self._kept.items() if not _is_over(kept, now))
        keys = sorted(key for key in live if key > after and key.startswith(prefix))
        return Page(tuple(_held(key, self._kept[key]) for key in keys[:limit]), len(keys) > limit)

    def info(self) -> dict[str, Any]:
        """What the store is and can do."""
        return {
            "id": self._entry.id, "backend": "memory", "consistency": "local", "durable": False, "list": True,
            "versioned": True, "conditional_put": True, "ttl": True, "size": len(self._kept),
            "max_size": self._entry.size_max,
        }  # fmt: skip

    def _find(self, key: str) -> _Kept | None:
        kept = self._kept.get(key)
        if kept is not None and _is_over(kept, self._clock()):
            del self._kept[key]
            return None
        return kept


def _held(key: str, kept: _Kept) -> Held:
    return Held(key, codec.unpack(kept.value), kept.version)


def _is_over(kept: _Kept, now_s: float) -> bool:
    return kept.expires_s is not None and kept.expires_s <= now_s
