"""Worker threads for Lua functions: each lane is a thread with a Lua VM of its own.

Lua runs without Python's global lock, so lanes run in parallel, and a busy loop in a function stalls its lane only. A
call stays on the lane where it began; while it waits for something outside, its lane does other work.

Short calls share one lane: threads that hand Python's lock to and fro for work of microseconds only slow each other
(16 lanes ran 1,600 calls a second where one runs more than 15,000). A lane that is busy with one piece of work for
longer than `SLOW_S` gets no new work, and what waits behind it moves to another lane, a new one if need be.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple

from node.machine.vm import LuaMachine, LuaVM

LANES_MAX: Final = 32
SLOW_S: Final = 0.003
# A function's own data between two waits; the VM is thrown away when it is used up.
LANE_MEMORY_BYTES_MAX: Final = 256 * 1024 * 1024
FUNCTION_INSTRUCTIONS_MAX: Final = 2_000_000_000  # some 40 s of pure computing between two waits

_log = logging.getLogger(__name__)

Done = Callable[[Any, BaseException | None], None]


class Work(NamedTuple):
    """Something to run on a lane; done(result, error) is called on the event loop. bound: on this lane only."""

    run: Callable[[Lane], Any]
    done: Done
    bound: bool


class Lane:
    """One thread with its VM. Only its own thread touches `vm` and `idle`."""

    def __init__(self, number: int, post: Callable[[Lane, Work, Any, BaseException | None], None]) -> None:
        self.load = 0  # pieces of work queued or running; touched by the event loop only
        self.busy_since = 0.0  # monotonic seconds when the present piece began, 0 when there is none
        self._vm: LuaVM | None = None
        self.idle: dict[str, list[LuaMachine]] = {}
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        self._post = post
        self._thread = threading.Thread(target=self._run, name=f"lua-lane-{number}", daemon=True)
        self._thread.start()

    @property
    def vm(self) -> LuaVM:
        """The VM. It is made on the lane's own thread: the event loop would stand still meanwhile."""
        if self._vm is None:
            self._vm = LuaVM(
                memory_bytes_max=LANE_MEMORY_BYTES_MAX, instructions_max=FUNCTION_INSTRUCTIONS_MAX, step_cpu_s=None
            )
        return self._vm

    def make_vm(self) -> None:
        """Make the VM if there is none."""
        _ = self.vm

    def submit(self, run: Callable[[Lane], Any], done: Done) -> None:
        """Queue work that belongs to this lane: it goes on with a machine that lives here."""
        self.put(Work(run, done, True))

    def put(self, work: Work) -> None:
        """Queue work."""
        self.load += 1
        self._queue.put(work)

    def is_slow(self, now: float) -> bool:
        """Whether this lane has been busy with one piece of work for long."""
        since = self.busy_since
        return since > 0.0 and now - since > SLOW_S

    def take_back(self) -> list[Work]:
        """Take what has not begun out of the queue, except what belongs to this lane."""
        movable, bound = [], []
        try:
            while True:
                work = self._queue.get_nowait()
                if work is None or work.bound:
                    bound.append(work)
                else:
                    movable.append(work)
        except Empty:
            pass
        for work in bound:
            self._queue.put(work)
        self.load -= len(movable)
        return movable

    def stop(self) -> None:
        """End the thread once its queue is worked off."""
        self._queue.put(None)

    def renew(self) -> None:
        """Throw the VM away, with everything in it."""
        self._vm = None
        self.idle = {}

    def _run(self) -> None:
        get, do = self._queue.get, self._do
        while (work := get()) is not None:
            do(work)
            del (
                work
            )  # it holds machines, and with them their VM: an idle lane must not keep one that it has thrown away

    def _do(self, work: Work) -> None:
        try:
            self.make_vm()  # not counted as work: what waits behind it need not go elsewhere
            self.busy_since = time.monotonic()
            result = work.run(self)
        except BaseException as error:  # handed to the event loop, whoever it is for
            self._post(self, work, None, error)
        else:
            self._post(self, work, result, None)
        self.busy_since = 0.0


class Lanes:
    """The lanes of a node. Made and used on the event loop."""

    def __init__(self, lanes_max: int = LANES_MAX) -> None:
        self._lanes_max = lanes_max
        self._lanes: list[Lane] = []
        self._loop = asyncio.get_running_loop()
        self._results: deque[tuple[Lane, Work, Any, BaseException | None]] = deque()
        self._woken = False
        self._watching: asyncio.TimerHandle | None = None
        self._closed = False

    def submit(self, run: Callable[[Lane], Any], done: Done) -> None:
        """Run new work on whichever lane is free soon."""
        self._pick().put(Work(run, done, False))
        if self._watching is None:
            self._watching = self._loop.call_later(SLOW_S, self._watch)

    def close(self) -> None:
        """End all lanes once they have nothing to do."""
        self._closed = True
        if self._watching is not None:
            self._watching.cancel()
        for lane in self._lanes:
            lane.stop()

    def _pick(self) -> Lane:
        now = time.monotonic()
        for lane in self._lanes:
            if not lane.is_slow(now):
                return lane
        if len(self._lanes) < self._lanes_max:
            lane = Lane(len(self._lanes), self._finished)
            self._lanes.append(lane)
            return lane
        return min(self._lanes, key=lambda lane: lane.load)

    def _watch(self) -> None:
        """Move what waits behind a slow piece of work to other lanes."""
        self._watching = None
        if self._closed:
            return
        now = time.monotonic()
        for lane in [lane for lane in self._lanes if lane.load > 1 and lane.is_slow(now)]:
            for work in lane.take_back():
                self._pick().put(work)
        if any(lane.load for lane in self._lanes):
            self._watching = self._loop.call_later(SLOW_S, self._watch)

    def _finished(self, lane: Lane, work: Work, result: Any, error: BaseException | None) -> None:
        # Called on the lane's thread. One wake-up of the loop serves all results that are there by then.
        self._results.append((lane, work, result, error))
        if not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return

    def _deliver(self) -> None:
        self._woken = False
        results = self._results
        while results:
            lane, work, result, error = results.popleft()
            lane.load -= 1
            try:
                work.done(result, error)
            except Exception:
                _log.exception("a finished piece of work could not be handed back")
