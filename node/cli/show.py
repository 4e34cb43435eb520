"""`mesh show`: what a workflow is doing, what it waits for, and its history as a table; or how it was at an event.

Values are shown as they are in the history: what is secret should not be passed to a workflow.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from node.cli.apps import APP
from node.cli.connecting import Server, connection_options, run
from node.cli.live import show_live, until_enough, watch_option
from node.cli.printing import no_color, one_line, print_json, print_table, say, shortened, table_of
from node.cli.workflows import queue_option, run_option

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

    from mesh.client import Client, WorkflowHandle
    from node.cli.timeline import Line
    from node.workflows.looking_back import LookingBack

LAST_DEFAULT: Final = 200
# Of a view that has to fit on a screen: an event takes two lines at most, mostly.
LINES_PER_EVENT: Final = 2
WATCH_DETAIL_CHARACTERS_MAX: Final = 40
WATCH_EVENTS_MIN: Final = 3
WATCH_SPARE_LINES: Final = 4
# How much further in the rest of an indented line stands that has been folded.
HANG: Final = 3


@click.command()
@click.argument("workflow_id", metavar="ID")
@queue_option
@run_option
@click.option(
    "--at",
    type=click.IntRange(1),
    metavar="EVENT",
    help="Show it as it was at that event: its number in the history, or its stream sequence.",
)
@click.option("--app", type=APP, metavar="APP", help="Replay with the code in this directory, which needs no node.")
@click.option("--locals", "with_locals", is_flag=True, help="Show what variables hold; --at always does.")
@click.option("--events/--no-events", "with_events", default=True, help="Show the history, or leave it out.")
@click.option(
    "-n",
    "--last",
    type=click.IntRange(0),
    default=LAST_DEFAULT,
    show_default=True,
    metavar="COUNT",
    help="How many events to show, the newest; 0 for all.",
)
@watch_option
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print {id, queue, run, runs, runs_total, type, status, started, ended, duration_s, parent, attempt, memo, "
    "attrs, at, value, error, args, node, reason, unreadable, suspended_at, expected, got, waiting, "
    "listens, inbox, unread, children, stacks, tasks, tasks_total, coroutines, globals, ops, history_warning, note, "
    "events_total, events: [{n, seq, time, since_s, kind, ...}]}.",
)
@connection_options
def show(
    workflow_id: str,
    *,
    queue: str | None,
    run_number: int | None,
    at: int | None,
    app: Path | None,
    with_locals: bool,
    with_events: bool,
    last: int,
    watch: bool,
    every: float,
    as_json: bool,
    server: Server,
) -> None:
    """Show the workflow ID: its state, what it is waiting for, and the history of its newest run.

    One that goes on as a new run, is retried, reset or started once more has several; --run shows an older one.

    For each operation that is open: its attempt, the last error and when the next attempt is due. For each task of
    its Lua code: what it waits for, and at which line.

    With --at the history is replayed up to that event, also that of a workflow which has ended: what it waited for
    then, where its code stood, and what its variables held. Nothing is changed by that.
    """
    if watch and at is not None:
        raise click.UsageError("--watch and --at exclude each other: what is past does not change")
    if watch and run_number:
        raise click.UsageError("--watch and --run exclude each other: an older run does not change; leave --run out")

    async def main() -> None:
        from mesh.errors import NotFound
        from node.api.locating import find, is_scheduled

        async with server.client() as client:
            with server.deadline("the workflow"):
                handle = await find(client, server.url, workflow_id, queue, flags=server.hint)
            view = View(
                client, handle, server, app=app, run=run_number or 0, at=at, with_locals=with_locals or at is not None,
                with_events=with_events, last=last,
            )  # fmt: skip
            try:
                if watch:
                    await _watch(view, every, as_json=as_json)
                else:
                    view.print(await view.fetch(), as_json=as_json)
            except NotFound:
                if not await is_scheduled(client, handle):
                    raise
                say(f"{workflow_id} is scheduled by cron on queue {handle.key.queue} and has not run yet")

    run(main)


async def _watch(view: View, every_s: float, *, as_json: bool) -> None:
    """Show it whenever something has happened to it, until it has ended."""
    import anyio

    from mesh.groups import unwrapped
    from node.cli.news import News

    news = await News.of(view.client, view.handle)
    over = anyio.Event()

    async def look() -> dict[str, Any]:
        if news.looks:
            await news.wait(every_s)
        record = await news.look(view.fetch)
        if is_over(record):
            over.set()
        return record

    async def drawn(characters: int) -> RenderableType | None:
        return None if over.is_set() else view.drawn(await look(), characters)

    async def print_until_over() -> None:
        while not over.is_set():
            view.print(await look(), as_json=as_json)
            sys.stdout.flush()

    with unwrapped():
        async with anyio.create_task_group() as tasks:
            await tasks.start(news.run)
            if as_json or not sys.stdout.isatty():
                await until_enough(print_until_over)
            else:
                await show_live(drawn, every_s=0, print_once=print_until_over)
            tasks.cancel_scope.cancel()


def is_over(record: Mapping[str, Any]) -> bool:
    """Whether a workflow has ended, and no other run follows."""
    return record["status"] not in ("running", "suspended", "continued", "retried")


class View:
    """What is looked at, and how it is shown."""

    def __init__(
        self,
        client: Client,
        handle: WorkflowHandle,
        server: Server,
        *,
        app: Path | None = None,
        run: int = 0,
        at: int | None = None,
        with_locals: bool = False,
        with_events: bool = True,
        last: int = LAST_DEFAULT,
    ) -> None:
        self.client = client
        self.handle = handle
        self.with_locals = with_locals
        self._server = server
        self._run = run
        self._at = at
        self._with_events = with_events
        self._last = last
        self._app = app
        self._code: LookingBack | None = None

    async def fetch(self) -> dict[str, Any]:
        """The whole record."""
        from mesh.envelopes import Unopened
        from mesh.errors import CannotLookBack
        from node.api.describing import describe

        if self._app is not None and self._code is None:
            from node.app_code import looking_back_with
            from node.cli.apps import add_to_path

            add_to_path(self._app)
            self._code = looking_back_with(self._app, os.environ)
        try:
            with self._server.deadline("the workflow"):
                return await describe(self.client, self.handle.key, run=self._run, at=self._at, code=self._code)
        except CannotLookBack as error:
            # Without the keys the code in a directory cannot read the history either.
            if self._app is not None or isinstance(error.__cause__, Unopened):
                raise
            of_run = f" --run {self._run}" if self._run else ""
            command = f"mesh show {self.handle.key.id}{of_run} --at {self._at} --app APP{self._server.hint}"
            raise CannotLookBack(
                f"{error}; `{command}` replays it with the code in the directory APP, which needs no node"
            ) from error

    def _shown(self, record: dict[str, Any]) -> dict[str, Any]:
        """With as many events as are wanted."""
        events = record["events"] if self._with_events else []
        return {**record, "events": events[-self._last :] if self._last else events}

    def _lines(self, record: dict[str, Any]) -> list[Line]:
        """What stands above the history."""
        from node.cli.state_view import line, state_lines

        lines = state_lines(record, with_locals=self.with_locals, hint=self._server.hint)
        if record["note"]:
            lines.append(line((f"note: {one_line(record['note'])}", "dim")))
        hidden = record["events_total"] - len(record["events"])
        if self._with_events:
            lines.append(line(""))
            if hidden:
                lines.append(line(f"{hidden} earlier events are not shown; --last 0 shows all"))
        return lines

    def print(self, record: dict[str, Any], *, as_json: bool) -> None:
        """Print it once."""
        from node.cli.timeline import COLUMNS, SPARE, day_of, fitted, rows_of

        record = self._shown(record)
        if as_json:
            print_json(record)
            return
        print_lines(self._lines(record))
        if record["events"]:
            if not sys.stdout.isatty():
                print_table(COLUMNS, rows_of(record["events"], record["ops"]))
                return
            rows = rows_of(record["events"], record["ops"], day=day_of(record))
            columns, rows = fitted(COLUMNS, rows, shutil.get_terminal_size().columns)
            print_table(columns, rows, spare=SPARE)

    def drawn(self, record: dict[str, Any], characters: int) -> RenderableType:
        """The same for a view that is drawn again."""
        from rich.console import Console, Group
        from rich.text import Text

        from node.cli.timeline import COLUMNS, SPARE, day_of, fitted, rows_of

        record = self._shown(record)
        # What does not fit on the screen would be lost below: the newest events are what one waits for.
        room = shutil.get_terminal_size().lines - len(self._lines(record)) - WATCH_SPARE_LINES
        record["events"] = record["events"][-max(room // LINES_PER_EVENT, WATCH_EVENTS_MIN) :]
        console = Console(width=characters)
        lines = [part for parts in self._lines(record) for part in _folded(Text.assemble(*parts), console)]
        parts: list[RenderableType] = [*lines]
        if record["events"]:
            rows = [
                (*row[:-1], shortened(row[-1], WATCH_DETAIL_CHARACTERS_MAX))
                for row in rows_of(record["events"], record["ops"], day=day_of(record))
            ]
            parts.append(table_of(*fitted(COLUMNS, rows, characters), characters, spare=SPARE))
        return Group(*parts)


def print_lines(lines: Sequence[Line], *, hang: int = 0) -> None:
    """Print lines: with their styles on a terminal, else as they are.

    On a terminal, what is indented is folded between words, with an indent; lines from the margin are left whole, as
    results are there to be copied. hang: the indent of what is folded, then every line may be.
    """
    if not sys.stdout.isatty():
        for parts in lines:
            click.echo("".join(text for text, _ in parts))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(no_color=no_color(), highlight=False)
    for parts in lines:
        for part in _folded(Text.assemble(*parts), console, hang=hang):
            console.print(part, soft_wrap=True)


def _folded(text: Text, console: Console, *, hang: int = 0) -> Iterator[Text]:
    """A text in lines that fit; those after the first one are indented."""
    from rich.text import Text

    indent = hang or (len(text.plain) - len(text.plain.lstrip()) + HANG if text.plain[:1] == " " else 0)
    if not indent or len(text) <= console.width:
        yield text
        return
    indent = min(indent, console.width // 3)
    # The first line has the room of the indent, too: taken off while it is wrapped, and put in front again.
    first, rest = text.divide([indent])
    for i, part in enumerate(rest.wrap(console, console.width - indent)):
        part.rstrip()
        yield Text.assemble(first if i == 0 else " " * indent, part)
