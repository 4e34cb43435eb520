"""What a node counts while it works: plain numbers, changed on the event loop and read there when somebody asks.

Pure. How they are published is in `node.telemetry.metrics`, which reads them once per scrape. The counting itself is on
the hot path of every step, so it is an addition to a number or to a list and nothing more: no lock, no clock, no label
object. Only what happens live is counted; a replay counts as one replay and as nothing else.

Invariant: the number of different labels of one thing is bounded, whatever names Lua code makes up.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

# A label that is not bounded by the registry (a workflow or function that somebody named and that does not exist).
LABELS_MAX: Final = 1000
OTHER: Final = "(other)"

# Seconds. From the shortest step there is to what somebody waits for; histograms of one sort have the same limits, so
# that they can be added up over the nodes of a mesh.
STEP_S: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0,
)  # fmt: skip
LONG_S: Final = (
    0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0, 604_800.0, 2_592_000.0,
)  # fmt: skip
SHORT_S: Final = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
)  # fmt: skip

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Histogram:
    """How often something took how long. counts: one for each limit, and one for what was above the last."""

    __slots__ = ("bounds_s", "counts", "total_s")

    def __init__(self, bounds_s: tuple[float, ...] = STEP_S) -> None:
        self.bounds_s = bounds_s
        self.counts = [0] * (len(bounds_s) + 1)
        self.total_s = 0.0

    def observe(self, seconds: float) -> None:
        """Count one that took so long; a limit itself belongs below it."""
        self.counts[bisect_left(self.bounds_s, seconds)] += 1
        self.total_s += seconds

    def observe_none(self) -> None:
        """The same for one that took no time at all."""
        self.counts[0] += 1

    def copy(self) -> Histogram:
        """The same as it is now."""
        copied = Histogram(self.bounds_s)
        copied.counts = self.counts[:]
        copied.total_s = self.total_s
        return copied


class ByLabel(dict[Key, Value], Generic[Key, Value]):
    """A value for each label, made when it is asked for first; past `labels_max` all new labels share one.

    other: the label that they share.
    """

    def __init__(self, make: Callable[[], Value], other: Key, labels_max: int = LABELS_MAX) -> None:
        super().__init__()
        self._make = make
        self._other = other
        self._labels_max = labels_max

    def __missing__(self, key: Key) -> Value:
        if len(self) >= self._labels_max and key != self._other:
            return self[self._other]
        value = self[key] = self._make()
        return value


class Counter:
    """A number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class QueueCounts:
    """What the engine of one queue counts. The labels: workflow type, outcome, function, in the order of the names."""

    def __init__(self) -> None:
        self.started: ByLabel[str, Counter] = ByLabel(Counter, OTHER)
        self.ended: ByLabel[tuple[str, str], Counter] = ByLabel(Counter, (OTHER, OTHER))
        self.durations: ByLabel[str, Histogram] = ByLabel(lambda: Histogram(LONG_S), OTHER)
        self.steps: ByLabel[tuple[str, str], Histogram] = ByLabel(Histogram, (OTHER, OTHER))
        self.retries: ByLabel[str, Counter] = ByLabel(Counter, OTHER)
        self.nondeterminism: ByLabel[str, Counter] = ByLabel(Counter, OTHER)
        self.history_warnings: ByLabel[str, Counter] = ByLabel(Counter, OTHER)
        self.activations = Histogram(SHORT_S)
        self.replays = Histogram(SHORT_S)
        self.replayed_events = 0
        # By how a partition came: nobody had it (it is new, or was handed over), or its owner was lost.
        self.takeovers = {"free": Histogram(), "lost": Histogram()}


class FunctionCounts:
    """What a function host counts of one function. waits: from when a call was taken to when it began."""

    __slots__ = ("completed", "failed", "passed_on", "waits")

    def __init__(self) -> None:
        self.completed = Histogram()
        self.failed = Histogram()
        self.waits = Histogram()
        self.passed_on = 0
