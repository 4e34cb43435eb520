"""Worker threads for Lua functions: each lane is a thread with a Lua VM of its own.

Lua runs without Python's global lock, so lanes run in parallel, and a busy loop in a function stalls its lane only. A
call stays on the lane where it began; while it waits for something outside, its lane does other work.

Work goes to a lane through a queue; results come back to the event loop in batches, one wake-up for many.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final

from node.machine import LuaMachine, LuaVM

LANES_MAX: Final = 16
# A function's own data between two waits; the VM is thrown away when it is used up.
LANE_MEMORY_BYTES_MAX: Final = 256 * 1024 * 1024
FUNCTION_INSTRUCTIONS_MAX: Final = 2_000_000_000  # some 40 s of pure computing between two waits

_log = logging.getLogger(__name__)

Work = Callable[["Lane"], Any]
Done = Callable[[Any, BaseException | None], None]


class Lane:
    """One thread with its VM. Only its own thread touches `vm` and `idle`."""

    def __init__(self, number: int, post: Callable[[Done, Any, BaseException | None], None]) -> None:
        self.load = 0  # work queued or running; touched by the event loop only
        self.vm = self._new_vm()
        self.idle: dict[str, list[LuaMachine]] = {}
        self._queue: SimpleQueue[tuple[Work, Done] | None] = SimpleQueue()
        self._post = post
        self._thread = threading.Thread(target=self._run, name=f"lua-lane-{number}", daemon=True)
        self._thread.start()

    def submit(self, work: Work, done: Done) -> None:
        """Queue work; done(result, error) is called on the event loop."""
        self.load += 1
        self._queue.put((work, done))

    def stop(self) -> None:
        """End the thread once its queue is worked off."""
        self._queue.put(None)

    def renew(self) -> None:
        """Throw the VM away, with everything in it."""
        self.vm = self._new_vm()
        self.idle = {}

    @staticmethod
    def _new_vm() -> LuaVM:
        return LuaVM(memory_bytes_max=LANE_MEMORY_BYTES_MAX, instructions_max=FUNCTION_INSTRUCTIONS_MAX)

    def _run(self) -> None:
        get, post = self._queue.get, self._post
        while True:
            item = get()
            if item is None:
                return
            work, done = item
            try:
                result = work(self)
            except BaseException as error:  # noqa: BLE001 - handed to the event loop, whoever it is for
                post(done, None, error)
            else:
                post(done, result, None)


class Lanes:
    """The lanes of a node. Lanes are made when all others have work, up to a number."""

    def __init__(self, lanes_max: int = LANES_MAX) -> None:
        self._lanes_max = lanes_max
        self._lanes: list[Lane] = []
        self._loop = asyncio.get_running_loop()
        self._results: deque[tuple[Done, Any, BaseException | None, Lane]] = deque()
        self._woken = False

    def pick(self) -> Lane:
        """The lane for new work: one with nothing to do, a new one, or the one with the least."""
        best: Lane | None = None
        for lane in self._lanes:
            if lane.load == 0:
                return lane
            if best is None or lane.load < best.load:
                best = lane
        if best is None or len(self._lanes) < self._lanes_max:
            return self._add()
        return best

    def close(self) -> None:
        """End all lanes once they have nothing to do."""
        for lane in self._lanes:
            lane.stop()

    def _add(self) -> Lane:
        lane: Lane

        def post(done: Done, result: Any, error: BaseException | None) -> None:  # noqa: ANN401
            self._results.append((done, result, error, lane))
            if not self._woken:
                self._woken = True
                try:
                    self._loop.call_soon_threadsafe(self._deliver)
                except RuntimeError:  # the loop is closed: nobody waits any more
                    return

        lane = Lane(len(self._lanes), post)
        self._lanes.append(lane)
        return lane

    def _deliver(self) -> None:
        self._woken = False
        results = self._results
        while results:
            done, result, error, lane = results.popleft()
            lane.load -= 1
            try:
                done(result, error)
            except Exception:
                _log.exception("a finished piece of work could not be handed back")
