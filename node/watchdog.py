"""What is done when the event loop of a node stands still for good: there is code that nothing can interrupt.

A chain of `__call` metamethods is one instruction of Lua 5.4, and may go round for ever: no limit of a step sees it.
The node's lease would expire, another node would take the workflow over and stand still in its turn, and so on through
the mesh. So a thread looks whether the loop turns. When one turn has taken too much of the processor's time (a process
that was stopped, or starved, is not stuck), the thread marks the workflow that was being run, over a connection of its
own, so that no node runs it again; then it ends the process, and whoever started it starts it again.

Invariants: nothing is marked but a workflow whose code was running when the loop stood still; a process that was
stopped for however long goes on. The mark is there before the lease of the node is over, where the processor is free.

The parts of a node let the loop turn after some tens of milliseconds of work, or one step, whichever comes later; so
what takes longer is that step.
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

# Of the processor's time, for one turn of the loop. Several times what the longest step may take, and less than what a
# lease has left when it has just not been renewed.
STUCK_S: Final = 2.0
LOOKS: Final = 20  # so many looks of the thread, and turns of the loop, within that time
MARK_S: Final = 5.0
EXIT_STATUS: Final = 70  # EX_SOFTWARE of sysexits.h

_log = logging.getLogger(__name__)


class Running(NamedTuple):
    """A run whose code is being executed."""

    key: WorkflowKey
    run: int


def is_stuck(worked_s: float, limit_s: float) -> bool:
    """Whether a loop is stuck of which one turn has taken so much of the processor's time."""
    return worked_s >= limit_s


def _clock_of_this_thread() -> Callable[[], float]:
    """What tells any thread the processor's time of this one; of the whole process where the system cannot tell."""
    try:
        clock_id = time.pthread_getcpuclockid(threading.get_ident())
    except (AttributeError, OSError):
        return time.process_time
    return lambda: time.clock_gettime(clock_id)


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
        self._turned_s = 0.0  # what the processor had worked for the loop when it turned last

    async def run(self) -> None:
        """Watch until cancelled; 0 seconds = never."""
        if not self._stuck_s:
            return
        over, clock = threading.Event(), _clock_of_this_thread()
        self._turned_s = clock()
        thread = threading.Thread(target=self._watch, args=(over, clock), name="watchdog", daemon=True)
        thread.start()
        try:
            while True:
                self._turned_s = clock()
                await anyio.sleep(self._stuck_s / LOOKS)
        finally:
            over.set()

    def _watch(self, over: threading.Event, clock: Callable[[], float]) -> None:
        while not over.wait(self._stuck_s / LOOKS):
            if is_stuck(clock() - self._turned_s, self._stuck_s):
                self._give_up()
                return

    def _give_up(self) -> None:
        found = self._running()
        _log.critical(
            "node %s has computed for %g s without a pause in %s, which nothing can interrupt; it ends itself",
            self._node_id, self._stuck_s,
            f"workflow {found.key.id!r}" if found is not None else "code that is no workflow's",
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
