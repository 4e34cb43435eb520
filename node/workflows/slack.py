"""Memory that was freed and not given back: what thousands of workflows held before they left memory.

The C library keeps what is freed between what is still in use. A node that has put a million workflows to sleep would
hold the peak of every moment for good, in holes too small for the next ones.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Final

import anyio.to_thread

EVICTIONS_MIN: Final = 2000
EVERY_S: Final = 10.0  # it takes some milliseconds, in which whoever needs memory waits


class Slack:
    """Gives memory back after many evictions."""

    def __init__(self) -> None:
        self._evictions = 0
        self._not_before_s = 0.0

    async def give_back(self, evictions: int, now_s: float) -> bool:
        """Give back what is free, if so many evictions so far make that worth it; return whether it was."""
        if evictions - self._evictions < EVICTIONS_MIN or now_s < self._not_before_s:
            return False
        self._evictions, self._not_before_s = evictions, now_s + EVERY_S
        await anyio.to_thread.run_sync(give_back)
        return True


def give_back() -> None:
    """Give back what the C library keeps although it is free, where it can."""
    if sys.platform == "linux":
        # musl and others have no such function, and need none.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
