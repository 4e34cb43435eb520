"""What a new owner of a partition must look at. Pure.

A checkpoint says: at stream sequence S every open run of this partition was quiet (whatever wakes it comes through the
stream by itself), except those listed as busy. So a new owner reads what came after S, without running anything, and
then loads the runs that were busy and those that something happened to. Sleeping ones are not touched, however many.

A checkpoint that is old or missing costs time, never correctness.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mesh.events import Event, decode_end

# A checkpoint with more busy runs than this, or with more in their ids, is not worth its bytes, or is more than a
# server takes: the older one stays good.
BUSY_MAX = 10_000
BUSY_BYTES_MAX = 512 * 1024
# So many busy runs, and so much in their ids, are written a second for one partition: every node hears of them.
BUSY_PER_S = 1000
BUSY_BYTES_PER_S = 50 * 1024


def is_worth_saving(busy: Sequence[str]) -> bool:
    """Whether a checkpoint with these busy runs (id tokens) may be saved."""
    return len(busy) <= BUSY_MAX and sum(map(len, busy)) <= BUSY_BYTES_MAX


def rest_s(busy: Sequence[str]) -> float:
    """How long to wait after such a checkpoint before the partition's next one."""
    return max(len(busy) / BUSY_PER_S, sum(map(len, busy)) / BUSY_BYTES_PER_S)


class CatchUp:
    """Collects which runs need attention while a partition's events since the checkpoint go by."""

    def __init__(self, busy: Iterable[str]) -> None:
        self._attention = dict.fromkeys(busy)
        self._newest_run: dict[str, int] = {}

    def note(self, event: Event) -> None:
        """Take notice of one event, in stream order."""
        id_token = event.id_token
        if event.kind == "attrs":
            return  # nothing follows from it, and it may come after the end
        if event.kind == "end" and not decode_end(event.data).may_go_on:
            # An end that was written again may name a run before the one that is open now.
            newest = self._newest_run.get(id_token)
            if newest is not None and event.run >= newest:
                self._attention.pop(id_token, None)
            return
        run = event.seq if event.kind == "start" else event.run
        if run > self._newest_run.get(id_token, 0):
            self._newest_run[id_token] = run
        # Again at the end: the latest news come last, and runs are loaded most recent first.
        self._attention.pop(id_token, None)
        self._attention[id_token] = None

    def attention(self) -> list[str]:
        """The id tokens of the runs to load, those with the latest news first."""
        return list(reversed(self._attention))
