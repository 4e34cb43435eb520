"""What a new owner of a partition must look at. Pure.

A checkpoint says: at stream sequence S every open run of this partition was quiet (whatever wakes it comes through the
stream by itself), except those listed as busy. So a new owner reads what came after S, without running anything, and
then loads the runs that were busy and those that something happened to. Sleeping ones are not touched, however many.

A checkpoint that is old or missing costs time, never correctness.
"""

from __future__ import annotations

from collections.abc import Iterable

from mesh.events import Event, decode_end

# A checkpoint with more busy runs than this is not worth its bytes: the older one stays good.
BUSY_MAX = 1000


class CatchUp:
    """Collects which runs need attention while a partition's events since the checkpoint go by."""

    def __init__(self, busy: Iterable[str]) -> None:
        self._attention = dict.fromkeys(busy)

    def note(self, event: Event) -> None:
        """Take notice of one event, in stream order."""
        # Again at the end: the latest news come last, and runs are loaded most recent first.
        self._attention.pop(event.id_token, None)
        if event.kind != "end" or decode_end(event.data).next_start:
            self._attention[event.id_token] = None

    def attention(self) -> list[str]:
        """The id tokens of the runs to load, those with the latest news first."""
        return list(reversed(self._attention))
