"""What is done when the event loop of a node stands still for good: there is code that nothing can interrupt.

A chain of `__call` metamethods is one instruction of Lua 5.4, and may go round for ever: no limit of a step sees it.
The node's lease would expire, another node would take the workflow over and stand still in its turn, and so on through
the mesh. So a thread looks whether the loop turns. When it has not for a while, and the processor was busy all the time
(a process that was stopped, or starved, is not stuck), the thread marks the workflow that was being run, over a
connection of its own, so that no node runs it again; then it ends the process, and whoever started it starts it again.

Invariants: nothing is marked but a workflow whose code was running when the loop stood still; a process that was
stopped for however long goes on.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import anyio

from mesh import codec
from mesh.connection import ConnectOptions, connect
from mesh.errors import MeshError
from mesh.events import MARK_STUCK
from mesh.jetstream import JetStream
from mesh.subjects import WorkflowKey

STUCK_S: Final = 10.0
LOOKS: Final = 20  # so many looks of the thread, and turns of the loop, within that time
BUSY_SHARE: Final = 0.5  # of the time that the processor must have worked for this process
MARK_S: Final = 5.0
EXIT_STATUS: Final = 70  # EX_SOFTWARE of sysexits.h

_log = logging.getLogger(__name__)


class Running(NamedTuple):
    """A run whose code is being executed."""

    key: WorkflowKey
    run: int


def is_stuck(stands_still_s: float, busy_s: float, limit_s: float) -> bool:
    """Whether a loop that has not turned for so long is stuck. busy_s: of the processor, for this process meanwhile."""
    return stands_still_s >= limit_s and busy_s >= BUSY_SHARE * limit_s


class Watchdog:
    """Watches the loop it runs on. running: what is being executed on it; asked from another thread.

    url, options: how to reach the server. end: ends the process.
    """

    def __init__(
        self,
        node_id: str,
        url: str | Sequence[str],
        options: ConnectOptions,
        running: Callable[[], Running | None],
        *,
        stuck_s: float = STUCK_S,
        end: Callable[[int], None] = os._exit,
    ) -> None:
        self._node_id = node_id
        self._url = url
        self._options = options
        self._running = running
        self._stuck_s = stuck_s
        self._end = end
        self._turned_s = (0.0, 0.0)  # when the loop has turned last, and what the processor had worked by then

    async def run(self) -> None:
        """Watch until cancelled; 0 seconds = never."""
        if not self._stuck_s:
            return
        over = threading.Event()
        self._turned_s = (time.monotonic(), time.process_time())
        thread = threading.Thread(target=self._watch, args=(over,), name="watchdog", daemon=True)
        thread.start()
        try:
            while True:
                self._turned_s = (time.monotonic(), time.process_time())
                await anyio.sleep(self._stuck_s / LOOKS)
        finally:
            over.set()

    def _watch(self, over: threading.Event) -> None:
        while not over.wait(self._stuck_s / LOOKS):
            turned_s, worked_s = self._turned_s
            if is_stuck(time.monotonic() - turned_s, time.process_time() - worked_s, self._stuck_s):
                self._give_up()
                return

    def _give_up(self) -> None:
        found = self._running()
        _log.critical(
            "node %s has stood still for %g s in %s, which nothing can interrupt; it ends itself", self._node_id,
            self._stuck_s, f"workflow {found.key.id!r}" if found is not None else "code that is no workflow's",
        )  # fmt: skip
        if found is not None:
            try:
                anyio.run(self._mark, found)
            except (MeshError, OSError, TimeoutError) as error:
                _log.critical("workflow %r cannot be marked: %s", found.key.id, error)
        self._end(EXIT_STATUS)

    async def _mark(self, found: Running) -> None:
        text = (
            f"its code ran for {self._stuck_s:g} s in one instruction that nothing can interrupt (a chain of __call "
            f"metamethods?), and node {self._node_id} had to end itself; mend the code and begin anew with `mesh reset "
            f"{found.key.id}`, or end it with `mesh terminate {found.key.id}`"
        )
        with anyio.fail_after(MARK_S):
            async with connect(self._url, name=f"{self._node_id} watchdog", options=self._options) as conn:
                await JetStream(conn).publish(found.key.mark(found.run, MARK_STUCK), codec.encode(text))
