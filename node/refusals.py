"""Log lines about what is refused: enough of them to see that it happens and how, however much of it comes.

Whoever may publish can send any amount of nonsense. Of each sort a few lines are logged in a while, the next one says
how many were left out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

LINES_MAX: Final = 5
EVERY_S: Final = 10.0


@dataclass(slots=True)
class _Sort:
    """Lines of one sort since `began_s`."""

    began_s: float
    lines: int = 0
    left_out: int = 0


class Refusals:
    """Logs what one part of a node refuses. The sorts are its own texts, so there are few of them."""

    def __init__(self, log: logging.Logger, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._sorts: dict[str, _Sort] = {}

    def note(self, text: str, *args: object, extra: Mapping[str, object] | None = None) -> None:
        """Log a warning, unless there were too many with the same text. text: with `%s` for what varies."""
        now = self._clock()
        sort = self._sorts.get(text)
        if sort is None:
            sort = self._sorts[text] = _Sort(now)
        elif now - sort.began_s >= EVERY_S:
            if sort.left_out:
                self._log.warning(f"{text}, and %d like it before", *args, sort.left_out, extra=extra)
                sort.began_s, sort.lines, sort.left_out = now, 1, 0
                return
            sort.began_s, sort.lines = now, 0
        if sort.lines >= LINES_MAX:
            sort.left_out += 1
            return
        sort.lines += 1
        self._log.warning(text, *args, extra=extra)
