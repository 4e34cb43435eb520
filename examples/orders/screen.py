"""How the demo looks: when, who, what for each fact, and at the bottom of a terminal the nodes as they are now.

Colours and the board only on a terminal; piped, it is plain lines. A line's time is when the demo came to know of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import anyio
from rich.console import Console
from rich.live import Live
from rich.rule import Rule
from rich.text import Text

REFRESH_S = 0.1
WIDTH_MAX = 100
MARGIN = 18  # of what is said, behind when and who
WHO_STYLES = {
    "client": "bold white",
    "server": "blue",
    "roster": "blue",
    "function": "magenta",
    "service": "magenta",
    "ledger": "magenta",
    "kill -9": "bold red",
}
NODE_STYLES = ("green", "yellow", "cyan")


class Screen:
    """Prints what happens. `board` gives the line at the bottom."""

    def __init__(self, nodes: tuple[str, ...]) -> None:
        terminal = Console(highlight=False)
        # A pipe has no width of its own.
        self._width = min(terminal.width, WIDTH_MAX) if terminal.is_terminal else WIDTH_MAX
        self._console = Console(highlight=False, width=self._width)
        self._styles = WHO_STYLES | dict(zip(nodes, NODE_STYLES, strict=False))
        self._began_s = time.monotonic()
        self.board: Callable[[], Text] = Text
        self._live = Live(console=self._console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        """Begin to draw the board."""
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _tb: TracebackType | None
    ) -> None:
        """Take the board away."""
        self._live.stop()

    def style(self, who: str) -> str:
        """Return the colour of a node, or of whoever else does something."""
        return self._styles.get(who, "")

    def say(self, who: str, text: str, *, style: str = "") -> None:
        """Print when, who, what; what does not fit into the line goes on in the next."""
        when = f"{time.monotonic() - self._began_s:7.3f}  "
        for part in Text(text, style=style).wrap(self._console, self._width - MARGIN):
            part.rstrip()
            line = Text().append(f"{when:<9}", "dim").append(f"{who:<9}", self.style(who)).append_text(part)
            self._console.print(line)
            when = who = ""

    def title(self, text: str) -> None:
        """Print a heading."""
        self._console.print()
        self._console.print(Rule(Text(text, style="bold"), align="left", style="dim"))

    def plain(self, text: str | Text = "") -> None:
        """Print a line without time; the terminal breaks it, so that commands can be copied."""
        self._console.print(text, soft_wrap=True)

    async def run(self) -> None:
        """Keep the board up to date until cancelled."""
        while True:
            if self._console.is_terminal:
                self._live.update(self.board(), refresh=True)
            await anyio.sleep(REFRESH_S)
