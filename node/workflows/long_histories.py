"""Histories that grow long: what a run's code has been given so far is what every replay of it has to go through.

Pure. A workflow that goes on for ever should continue as new now and then; here is when people are told so.
"""

from __future__ import annotations

from node.workflows.run import Run


class LongHistories:
    """Says which histories are long. events_max, bytes_max: what one may have."""

    def __init__(self, events_max: int, bytes_max: int) -> None:
        self._events_max = events_max
        self._bytes_max = bytes_max

    def is_long(self, events: int, payload_bytes: int) -> bool:
        """Whether a history of that length counts as long."""
        return events > self._events_max or payload_bytes > self._bytes_max

    def has_become_long(self, run: Run, events: int, payload_bytes: int) -> bool:
        """Whether what was applied last has made a run's history long. events, payload_bytes: before that."""
        if run.length <= self._events_max and run.size <= self._bytes_max:
            return False
        return not self.is_long(events, payload_bytes)

    def warning(self, run: Run) -> str:
        """What to tell people about a run's history, "" when it is not long."""
        if not self.is_long(run.length, run.size):
            return ""
        limits = f"limits {self._events_max}, {self._bytes_max}"
        return (
            f"the history is long: {run.length} events, {run.size} bytes ({limits}); each replay goes through it: "
            "let the workflow continue as new with process.upgrade"
        )
