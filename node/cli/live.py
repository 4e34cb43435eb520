"""Views that are drawn again and again (`--watch`): in place on a terminal, one after another elsewhere.

Ctrl-C ends them: that is how one leaves, and no failure.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from node.cli.printing import no_color
from node.cli.values import DURATION

if TYPE_CHECKING:
    from rich.console import RenderableType

EVERY_DEFAULT: Final = "2s"
SOONEST_S: Final = 0.1

Command = TypeVar("Command", bound=Callable[..., Any])


def watch_option(command: Command) -> Command:
    """Give a command `--watch` and `--every DURATION`: the parameters `watch` and `every` (seconds)."""
    watch = click.option("-w", "--watch", is_flag=True, help="Show it again and again until Ctrl-C.")
    every = click.option(
        "--every", type=DURATION, default=EVERY_DEFAULT, show_default=True, metavar="DURATION",
        help="How often --watch looks.",
    )  # fmt: skip
    return watch(every(command))


async def show_live(
    look: Callable[[int], Awaitable[RenderableType | None]],
    *,
    every_s: float,
    print_once: Callable[[], Awaitable[None]],
) -> None:
    """Show what `look` gives for a terminal of so many characters, until it gives None or Ctrl-C comes.

    print_once: prints one look where there is no terminal.
    """
    import anyio

    every_s = max(every_s, SOONEST_S)
    if not sys.stdout.isatty():
        while True:
            await print_once()
            await anyio.sleep(every_s)
    from rich.console import Console
    from rich.live import Live

    console = Console(no_color=no_color())
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while (shown := await look(console.width)) is not None:
            live.update(shown, refresh=True)
            await anyio.sleep(every_s)
