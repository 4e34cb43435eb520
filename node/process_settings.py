"""The Python process of a node: its event loop, its garbage collector, its threads. For programs that are nothing else.

Not for the node itself: others may run one inside of theirs, and tests run several in one process.
"""

from __future__ import annotations

import gc
import importlib.util
import sys
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar, TypeVarTuple

# A thread that wants Python's lock gets it after this; the default of 5 ms would be the latency of every call.
SWITCH_INTERVAL_S: Final = 0.0005
GC_THRESHOLDS: Final = (50_000, 20, 20)

T = TypeVar("T")
Args = TypeVarTuple("Args")


def collect_garbage_rarely() -> None:
    """Have Python look for cycles of objects rarely. Importing makes much and drops little: it took a fifth of that."""
    gc.set_threshold(*GC_THRESHOLDS)


def run_as_a_node(main: Callable[[*Args], Awaitable[T]], *args: *Args) -> T:
    """Run a coroutine function with these arguments in an event loop, in a process that is set up for a node."""
    import anyio

    sys.setswitchinterval(SWITCH_INTERVAL_S)
    # Runs are many small objects that live long and form no cycles: looking through them again and again for garbage
    # cost a third of a busy node's time.
    gc.freeze()
    collect_garbage_rarely()
    # A step waits for the loop several times; uvloop's turns are shorter.
    uvloop = importlib.util.find_spec("uvloop") is not None
    return anyio.run(main, *args, backend_options={"use_uvloop": uvloop})
