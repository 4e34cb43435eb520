"""Views that are drawn again and again (`--watch`): in place on a terminal, one after another elsewhere.

q, Ctrl-C and SIGTERM end them: that is how one leaves, and no failure. Whether the mesh answers may change meanwhile: a
list that cannot be had at the moment is asked for again.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from node.cli.printing import no_color, print_json_lines, print_table, say, table_of
from node.cli.values import DURATION

if TYPE_CHECKING:
    import anyio
    from rich.console import RenderableType

EVERY_DEFAULT: Final = "2s"
SOONEST_S: Final = 0.1
INTERVAL: Final = "--every"

Command = TypeVar("Command", bound=Callable[..., Any])


def watch_option(command: Command) -> Command:
    """Give a command `--watch` and `--every DURATION`: the parameters `watch` and `every` (seconds).

    `--watch 5s` is both (`with_interval`).
    """
    watch = click.option(
        "-w", "--watch", is_flag=True, help="Show it again and again until q or Ctrl-C; `--watch 5s` says how often."
    )
    every = click.option(
        INTERVAL, type=DURATION, default=EVERY_DEFAULT, show_default=True, metavar="DURATION",
        help="How often --watch looks.",
    )  # fmt: skip
    return watch(every(command))


def with_interval(command: click.Command, args: list[str]) -> list[str]:
    """The arguments of a command with `--watch 5s` written as `--watch --every 5s`, if it can be watched.

    click's own optional values would take a workflow's id for one.
    """
    if isinstance(command, click.Group):
        below = command.commands.get(args[0]) if args else None
        return [args[0], *with_interval(below, args[1:])] if below is not None else args
    if not any(parameter.name == "every" for parameter in command.params):
        return args
    out: list[str] = []
    for at, arg in enumerate(args):
        if arg == "--":
            return out + args[at:]
        name, equals, value = arg.partition("=")
        if name == "--watch" and equals:
            out += ["--watch", INTERVAL, value]
        elif out and out[-1] in ("--watch", "-w") and arg[:1].isdigit() and _is_duration(arg):
            out += [INTERVAL, arg]
        else:
            out.append(arg)
    return out


def _is_duration(text: str) -> bool:
    try:
        DURATION.convert(text, None, None)
    except click.BadParameter:
        return False
    return True


@dataclass(frozen=True, slots=True)
class ListView:
    """A list as a table; the fields are those of `print_table`. notes: lines for standard error."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    status_column: int = -1
    spare: Sequence[str] = ()
    last_characters: int = 0
    notes: Sequence[str] = ()


async def show_list(
    fetch: Callable[[], Awaitable[Sequence[Mapping[str, Any]]]],
    view: Callable[[Sequence[Mapping[str, Any]]], ListView],
    *,
    empty: str,
    as_json: bool,
    watch: bool,
    every_s: float,
) -> None:
    """Print a list once, or show it until it is enough (--watch). empty: what to say when there is nothing."""

    async def print_once() -> None:
        records = await fetch()
        if as_json:
            print_json_lines(records)
            return
        shown = view(records)
        if records:
            print_table(
                shown.columns, shown.rows, status_column=shown.status_column, spare=shown.spare,
                last_characters=shown.last_characters,
            )  # fmt: skip
        for note in shown.notes if records else [empty]:
            say(note)

    if not watch:
        await print_once()
        return
    if as_json:
        await until_enough(lambda: _again_and_again(print_once, every_s))
        return

    async def look(characters: int) -> RenderableType | None:
        from rich.console import Group
        from rich.text import Text

        records = await fetch()
        if not records:
            return Text(empty)
        shown = view(records)
        table = table_of(
            shown.columns, shown.rows, characters, status_column=shown.status_column, spare=shown.spare,
            last_characters=shown.last_characters,
        )  # fmt: skip
        return Group(table, *(Text(note, "dim") for note in shown.notes))

    await show_live(look, every_s=every_s, print_once=print_once)


async def show_live(
    look: Callable[[int], Awaitable[RenderableType | None]],
    *,
    every_s: float,
    print_once: Callable[[], Awaitable[None]],
) -> None:
    """Show what `look` gives for a terminal of so many characters, until it gives None or somebody has seen enough.

    print_once: prints one look where there is no terminal.
    """
    if not sys.stdout.isatty():
        await until_enough(lambda: _again_and_again(print_once, every_s))
    else:
        await until_enough(lambda: _draw(look, every_s))


async def _again_and_again(print_once: Callable[[], Awaitable[None]], every_s: float) -> None:
    import anyio

    while True:
        fault = await _unless_away(print_once)
        if fault is not None:
            say(f"mesh: {fault}; trying again")
        sys.stdout.flush()
        await anyio.sleep(max(every_s, SOONEST_S))


async def _draw(look: Callable[[int], Awaitable[RenderableType | None]], every_s: float) -> None:
    import anyio
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    # What the connection logs is said in the view, in its place.
    logging.getLogger().addHandler(logging.NullHandler())
    console = Console(no_color=no_color())
    shown: RenderableType = Text("")

    async def look_once() -> bool:
        nonlocal shown
        found = await look(console.width)
        if found is not None:
            shown = found
        return found is not None

    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            goes_on: list[bool] = []

            async def note(goes_on: list[bool] = goes_on) -> None:
                goes_on.append(await look_once())

            fault = await _unless_away(note)
            if fault is not None:
                live.update(Group(shown, Text(f"{fault}; trying again", "red")), refresh=True)
            elif not all(goes_on):
                return
            else:
                live.update(shown, refresh=True)
            await anyio.sleep(max(every_s, SOONEST_S))


async def _unless_away(do: Callable[[], Awaitable[None]]) -> str | None:
    """Do something; why the mesh could not be asked, None when it could."""
    from mesh.errors import Disconnected, NoResponders, RequestTimeout

    try:
        await do()
    except (Disconnected, NoResponders, RequestTimeout) as error:
        return str(error)
    return None


async def until_enough(show: Callable[[], Awaitable[None]]) -> None:
    """Show something until it ends by itself, or q, Ctrl-C or SIGTERM comes."""
    import anyio

    from mesh.groups import unwrapped

    with unwrapped(), _reading_keys() as keys:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_end_on_signal, tasks.cancel_scope)
            if keys is not None:
                tasks.start_soon(_end_on_q, keys, tasks.cancel_scope)
            await show()
            tasks.cancel_scope.cancel()


async def _end_on_signal(scope: anyio.CancelScope) -> None:
    import anyio

    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()
            return


async def _end_on_q(keys: int, scope: anyio.CancelScope) -> None:
    import anyio

    while True:
        await anyio.wait_readable(keys)
        pressed = os.read(keys, 64)
        if not pressed or b"q" in pressed.lower():
            scope.cancel()
            return


@contextmanager
def _reading_keys() -> Iterator[int | None]:
    """Have single keys read instead of lines while the block runs, where somebody sits before a terminal."""
    if not (sys.stdout.isatty() and sys.stdin.isatty()):
        yield None
        return
    import termios
    import tty

    keys = sys.stdin.fileno()
    if os.tcgetpgrp(keys) != os.getpgrp():
        yield None  # in the background: touching the terminal would stop us
        return
    before = termios.tcgetattr(keys)
    tty.setcbreak(keys)
    try:
        yield keys
    finally:
        termios.tcsetattr(keys, termios.TCSADRAIN, before)
