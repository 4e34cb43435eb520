"""How many activities of a worker a node runs at once, and how many it begins in a second (contract 2.2).

Pure: a token bucket and a counter, time is an argument. Not here: whose limit it is, and what waits
(`node.functions.limits`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

BURST_S: Final = 0.1  # what may begin together after a pause: the share of so many seconds


@dataclass(slots=True)
class Throttle:
    """The limits of one worker on one node. per_second: None = no limit."""

    at_once: int
    per_second: float | None = None
    running: int = 0
    _tokens: float = field(default=0.0, init=False)
    _counted_s: float | None = field(default=None, init=False)

    def wait_s(self, now_s: float) -> float | None:
        """How long until another one may begin: 0.0 = now; None = not before one of those under way leaves."""
        if self.running >= self.at_once:
            return None
        if self.per_second is None:
            return 0.0
        self._refill(self.per_second, now_s)
        # A hair's breadth less than a token is one: sums of floats.
        return 0.0 if self._tokens >= 1 - 1e-9 else (1 - self._tokens) / self.per_second

    def begin(self) -> None:
        """One begins, as `wait_s` has allowed."""
        self.running += 1
        self._tokens -= 1

    def leave(self) -> None:
        """One has ended."""
        self.running -= 1

    def _refill(self, per_second: float, now_s: float) -> None:
        most = max(1.0, per_second * BURST_S)
        if self._counted_s is None:
            self._tokens = most
        else:
            self._tokens = min(most, self._tokens + max(0.0, now_s - self._counted_s) * per_second)
        self._counted_s = now_s
