"""Runs a Python module as `python -m` does, with a wall clock that somebody outside may set.

    MESH_CHAOS_CLOCK=FILE python -m tests.chaos.clock node node APP --id n1

The file holds how many seconds this process's clock is ahead, as a double; whoever writes it makes the clock jump. All
that is asked of Python for the time of day is shifted; the monotonic clock, timeouts and the event loop are not, as on
a machine whose clock is set by hand.
"""

from __future__ import annotations

import datetime
import mmap
import os
import runpy
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

FILE: Final = "MESH_CHAOS_CLOCK"
_AHEAD: Final = struct.Struct("d")


def set_ahead(file: Path, seconds: float) -> None:
    """Set the clock of the process that goes by this file."""
    # In place: the process has the file mapped.
    mode = "r+b" if file.exists() else "w+b"
    with file.open(mode) as opened:
        opened.write(_AHEAD.pack(seconds))


def shift_clock(file: Path) -> None:
    """Have this process go by the file from now on. To be called before anything takes `time.time` for itself."""
    with file.open("r+b") as opened:
        page = mmap.mmap(opened.fileno(), _AHEAD.size)
    real_time, real_time_ns, real_datetime = time.time, time.time_ns, datetime.datetime

    def ahead_s() -> float:
        seconds: float = _AHEAD.unpack_from(page)[0]
        return seconds

    class ShiftedDatetime(real_datetime):  # type: ignore[valid-type, misc]  # its methods answer with objects of itself
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return cls.fromtimestamp(time.time(), tz)

        @classmethod
        def utcnow(cls) -> Any:
            return cls.fromtimestamp(time.time(), datetime.UTC).replace(tzinfo=None)

        @classmethod
        def today(cls) -> Any:
            return cls.fromtimestamp(time.time())

    patches: dict[str, Callable[[], Any]] = {
        "time": lambda: real_time() + ahead_s(),
        "time_ns": lambda: real_time_ns() + round(ahead_s() * 1e9),
    }
    for name, function in patches.items():
        setattr(time, name, function)
    setattr(datetime, "datetime", ShiftedDatetime)  # noqa: B010 - mypy does not let a type be assigned


def main() -> None:
    """Run the module that the arguments name."""
    file, (module, *arguments) = os.environ.get(FILE), sys.argv[1:]
    if file:
        shift_clock(Path(file))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
