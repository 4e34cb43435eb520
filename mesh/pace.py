"""How quickly a server stores what it is sent, and whether it is sent in batches for that.

Pure; time is an argument. A single server that flushes every message before it acknowledges it stores some thousand
messages a second, whatever is waiting; of an atomic batch (ADR-50) it flushes all messages together. Such a batch costs
a fixed few milliseconds, so on a server that flushes now and then only it makes everything slower. No server says how
it is set, so it is measured: batches are for a server whose acknowledgements come slowly one after the other although
many writes wait, and for as long as they are quicker.

Not here: what may be in a batch, and sending it (`mesh.outbox`).
"""

from __future__ import annotations

from collections import deque
from typing import Final

# A server that does not flush needs 10 to 40 us for a message, even on a crowded machine; a flush takes longer.
SLOW_S: Final = 0.000_08
SAMPLE_WRITES: Final = 128  # fewer are read at once by a reader that is busy, which looks like a quick server
# Acknowledgements come in bursts, so a sample by itself says little: the mean of so many does, twice in a row, as
# anything may have stood still once (a neighbour on the same disk, a processor that was elsewhere).
SAMPLES: Final = 8
SLOW_TIMES: Final = 2
# Of the newest batches the one in the middle counts: one behind the writes of others takes as long as these.
BATCHES: Final = 9
# Batches that do not save at least this part of the time are not worth their trouble; asked again after a while.
WORTH_IT: Final = 0.8
REST_S: Final = 5.0
# Below this many the fixed cost of a batch is more than that of flushing each.
BATCH_MIN: Final = 32
BATCH_MAX: Final = 500  # the server takes 1,000; what comes later waits for all of it


class Pace:
    """What was measured of one server, in seconds a write. in_batches: whether writes are to be sent in batches."""

    __slots__ = ("_batches", "_not_before_s", "_samples", "_slow_times", "_sum_s", "in_batches", "single_s")

    def __init__(self) -> None:
        self.single_s = 0.0
        self.in_batches = False
        self._samples = self._slow_times = 0
        self._sum_s = 0.0
        self._batches: deque[float] = deque(maxlen=BATCHES)
        self._not_before_s = 0.0

    @property
    def batched_s(self) -> float:
        """What a write takes in a batch; 0 when none was timed."""
        return sorted(self._batches)[len(self._batches) // 2] if self._batches else 0.0

    def note_singles(self, per_write_s: float, now_s: float) -> None:
        """SAMPLE_WRITES writes that were all sent before were acknowledged one after the other, each after so long."""
        self._samples += 1
        self._sum_s += per_write_s
        if self._samples < SAMPLES:
            return
        self.single_s = self._sum_s / SAMPLES
        self._samples, self._sum_s = 0, 0.0
        self._slow_times = self._slow_times + 1 if self.single_s > SLOW_S else 0
        if self._slow_times >= SLOW_TIMES and now_s >= self._not_before_s:
            self.in_batches = True

    def note_batch(self, took_s: float, writes: int, now_s: float) -> None:
        """A batch of at least BATCH_MIN writes, before which nothing waited, was acknowledged after so long."""
        self._batches.append(took_s / writes)
        if len(self._batches) == BATCHES and self.batched_s > self.single_s * WORTH_IT:
            self.rest(now_s)

    def restart(self) -> None:
        """Forget what was measured: it may be another server from now on."""
        self.in_batches = False
        self.single_s = self._sum_s = self._not_before_s = 0.0
        self._samples = self._slow_times = 0
        self._batches.clear()

    def rest(self, now_s: float) -> None:
        """Batches are refused, or no better: send none for a while, and measure anew."""
        self.restart()
        self._not_before_s = now_s + REST_S
