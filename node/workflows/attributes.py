"""The search attributes and the memo of one run: as they are, and as its history says they are. Pure.

A run does not read its record of them: what its code has set follows from the events before. The record is for those
who list workflows, and only the newest is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mesh import codec


class Attributes:
    """What a run was started with, and what its code has set since."""

    __slots__ = ("_at_start", "_recorded", "memo", "search")

    def __init__(self, search: Mapping[str, Any], memo: Mapping[str, Any]) -> None:
        self.search = dict(search)
        self.memo = dict(memo)
        self._at_start = search, memo
        self._recorded: bytes | None = None  # None while there is only what the start says

    def set(self, payload: bytes) -> bool:
        """Set what the code has asked for; whether that changes anything."""
        values = codec.unpack(payload)
        before = self.record()
        if isinstance(values, Mapping):  # an empty Lua table arrives as an empty list
            self.search.update(values.get("search") or {})
            self.memo.update(values.get("memo") or {})
        return self.record() != before

    def record(self) -> bytes:
        """The body of the event that says what they are now."""
        return codec.encode({"search": self.search, "memo": self.memo})

    def recorded(self, record: bytes) -> None:
        """Take notice of the newest record in the history."""
        self._recorded = record

    @property
    def are_recorded(self) -> bool:
        """Whether whoever reads the history's start and its newest record knows them as they are."""
        if self._recorded is not None:
            return self._recorded == self.record()
        return (self.search, self.memo) == self._at_start
