"""How quickly a server stores what it is sent, and whether it is sent in batches for that.

Pure; time is an argument. A single server that flushes every message before it acknowledges it stores some thousand
messages a second, whatever is waiting; of an atomic batch (ADR-50) it flushes all messages together. Such a batch costs
a fixed few milliseconds, so on a server that flushes now and then only it makes everything slower. No server says how
it is set, so it is measured: batches are for a server whose acknowledgements come slowly one after the other although
many writes wait, and for as long as they are quicker.

Not here: what may be in a batch, and sending it (`mesh.outbox`).
"""

from __future__ import annotations

from typing import Final

# A server that does not flush needs 10 to 40 us for a message, even on a crowded machine; a flush takes longer.
SLOW_S: Final = 0.000_08
SAMPLE_WRITES: Final = 128  # fewer are read at once by a reader that is busy, which looks like a quick server
# One slow stretch may be anything: a neighbour on the same disk, a processor that was elsewhere.
NEWEST_COUNTS: Final = 0.25
NEWEST_BATCH_COUNTS: Final = 0.1
SAMPLES_MIN: Final = 4
# Batches that do not save at least this part of the time are not worth their trouble; asked again after a while.
WORTH_IT: Final = 0.8
REST_S: Final = 5.0
# Below this many the fixed cost of a batch is more than that of flushing each.
BATCH_MIN: Final = 32
BATCH_MAX: Final = 500  # the server takes 1,000; what comes later waits for all of it


class Pace:
    """What was measured of one server, in seconds a write. in_batches: whether writes are to be sent in batches."""

    __slots__ = ("_batches", "_not_before_s", "_samples", "batched_s", "in_batches", "single_s")

    def __init__(self) -> None:
        self.single_s = 0.0
        self.batched_s = 0.0
        self.in_batches = False
        self._samples = self._batches = 0
        self._not_before_s = 0.0

    def note_singles(self, per_write_s: float, now_s: float) -> None:
        """SAMPLE_WRITES writes that were all sent before were acknowledged one after the other, each after so long."""
        self._samples += 1
        self.single_s += (per_write_s - self.single_s) * (NEWEST_COUNTS if self._samples > 1 else 1.0)
        if self._samples >= SAMPLES_MIN and self.single_s > SLOW_S and now_s >= self._not_before_s:
            self.in_batches = True

    def note_batch(self, took_s: float, writes: int, now_s: float) -> None:
        """A batch of at least BATCH_MIN writes, before which nothing waited, was acknowledged after so long."""
        self._batches += 1
        per_write_s = took_s / writes
        self.batched_s += (per_write_s - self.batched_s) * (NEWEST_BATCH_COUNTS if self.batched_s else 1.0)
        if self._batches >= SAMPLES_MIN and self.batched_s > self.single_s * WORTH_IT:
            self.rest(now_s)

    def restart(self) -> None:
        """Forget what was measured: it may be another server from now on."""
        self.in_batches = False
        self.single_s = self.batched_s = self._not_before_s = 0.0
        self._samples = self._batches = 0

    def rest(self, now_s: float) -> None:
        """Batches are refused, or no better: send none for a while, and measure anew."""
        self.restart()
        self._not_before_s = now_s + REST_S
