"""A progress bar for what takes long, on standard error and only when that is a terminal.

    with progress("reading histories", total) as bar:
        for history in histories:
            ...
            bar.advance()

Scripts, pipes and logs see nothing of it. The bar appears after a moment, so that what is quick leaves no flicker, and
is gone when the block ends: what was done is said by the command itself.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from node.cli.printing import no_color

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

SHOWN_AFTER_S: Final = 0.3
REDRAWS_PER_S: Final = 8.0


class Progress:
    """How far something is. Made by `progress`."""

    def __init__(self, title: str, total: int | None, *, visible: bool, shown_after_s: float) -> None:
        self.title = title
        self.total = total
        self.done = 0
        self._visible = visible
        self._begun_s = time.monotonic()
        self._shown_after_s = shown_after_s
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None
        self._drawn_s = 0.0

    def advance(self, n: int = 1) -> None:
        """Note that n more are done."""
        self.update(self.done + n)

    def update(self, done: int, total: int | None = None) -> None:
        """Note how many are done, and how many there are if that has become known or has changed."""
        self.done = done
        if total is not None:
            self.total = total
        if not self._visible:
            return
        now_s = time.monotonic()
        # rich redraws from a thread of its own, which a busy loop would starve: here it is drawn when there is news.
        is_last = self.total is not None and done >= self.total
        if self._bar is None:
            if now_s - self._begun_s >= self._shown_after_s and not is_last:
                self._show()
        elif now_s - self._drawn_s >= 1 / REDRAWS_PER_S or is_last:
            self._draw(now_s)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True, no_color=no_color())
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        # Results that are printed meanwhile stay above the bar on a terminal, and stay on standard output elsewhere.
        shares_terminal = sys.stdout.isatty()
        self._bar = Progress(
            *columns, console=console, transient=True, auto_refresh=False, redirect_stdout=shares_terminal
        )
        self._task = self._bar.add_task(self.title, total=self.total)
        self._bar.start()
        self._draw(time.monotonic())

    def _draw(self, now_s: float) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self.done, total=self.total)
            self._bar.refresh()
            self._drawn_s = now_s


@contextmanager
def progress(title: str, total: int | None = None, *, shown_after_s: float = SHOWN_AFTER_S) -> Iterator[Progress]:
    """Show how far something is while the block runs. total: None while it is not known.

    shown_after_s: what takes less long is not worth a bar.
    """
    bar = Progress(title, total, visible=sys.stderr.isatty(), shown_after_s=shown_after_s)
    try:
        yield bar
    finally:
        bar.close()
