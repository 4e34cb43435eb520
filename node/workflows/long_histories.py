"""Histories that grow long: what a run's code has been given so far is what every replay of it has to go through.

Pure. A workflow that goes on for ever should continue as new now and then; here is when people are told so.
"""

from __future__ import annotations

from typing import NamedTuple

from node.workflows.run import Run


class HistoryLength(NamedTuple):
    """How much a run has been given: events, and bytes of what they carried."""

    events: int
    payload_bytes: int


class LongHistories:
    """Says which histories are long. events_max, bytes_max: what one may have. crossings: how many became long here."""

    def __init__(self, events_max: int, bytes_max: int) -> None:
        self.crossings = 0
        self._events_max = events_max
        self._bytes_max = bytes_max

    def is_long(self, length: HistoryLength) -> bool:
        """Whether a history of that length counts as long."""
        return length.events > self._events_max or length.payload_bytes > self._bytes_max

    def has_become_long(self, before: HistoryLength, run: Run) -> bool:
        """Whether a run's history has become long by what was applied last, and counts it."""
        crossed = self.is_long(HistoryLength(run.length, run.size)) and not self.is_long(before)
        self.crossings += crossed
        return crossed

    def warning(self, run: Run) -> str:
        """What to tell people about a run's history, "" when it is not long."""
        if not self.is_long(HistoryLength(run.length, run.size)):
            return ""
        limits = f"limits {self._events_max}, {self._bytes_max}"
        return (
            f"the history is long: {run.length} events, {run.size} bytes ({limits}); each replay goes through it: "
            "let the workflow continue as new with process.upgrade"
        )
