"""How late the event loop comes to what is due: the time that everything on a node waits for everything else.

A timer is set, and how long after its time it is called is the lag. One that comes on time costs a few microseconds.
"""

from __future__ import annotations

import asyncio
from typing import Final

import anyio

from node.telemetry.counts import SHORT_S, Histogram

EVERY_S: Final = 0.1


class LoopLag:
    """Measures the loop it runs on. lags: what was measured, in seconds."""

    def __init__(self) -> None:
        self.lags = Histogram(SHORT_S)

    async def run(self) -> None:
        """Measure until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + EVERY_S
            await anyio.sleep(EVERY_S)
            # A loop may be a clock tick early, which is not late.
            self.lags.observe(max(0.0, loop.time() - due_s))
