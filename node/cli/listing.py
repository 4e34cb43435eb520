"""`mesh ls` and `mesh count`: which workflows there are, and how many.

Answered by a node that keeps a projection. When none does, the streams are read into one in memory, by the same code:
that takes a while with many workflows, and needs no node at all.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import click

from mesh.errors import MeshError, NotPermitted, RequestTimeout
from mesh.instants import parse_iso_ns
from mesh.listing import COUNTED, LIMIT_MAX, ORDER_DEFAULT, ORDERS, STATUSES, BadQuery, Lag, ListPage, ListQuery
from node.cli.connecting import Server, connection_options, run
from node.cli.live import show_live, watch_option
from node.cli.printing import away, print_json_lines, print_table, say, span, table_of

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mesh.client import Client
    from store.projecting import Projecting

# Said only when what is listed may miss what the person has just done.
LAG_MESSAGES_SAID: Final = 100
LAG_S_SAID: Final = 5.0
PROGRESS_EVERY_S: Final = 0.1
PAGE_TIMEOUT_S: Final = 15.0  # longer than the longest query is allowed to take
COUNT_TIMEOUT_S: Final = 5.0
SPARE: Final = ("queue", "parent", "attempt", "type", "duration")
SECRETS: Final = frozenset({"user", "password", "token", "jwt", "seed"})  # not repeated in what is proposed
RECORD: Final = "{id, queue, run, type, status, started, ended, duration_s, parent, attempt, memo, attrs}"

all_runs_option = click.option("--all-runs", is_flag=True, help="Every run, not only the newest one of each ID.")


@click.command()
@click.option("--status", type=click.Choice(STATUSES), multiple=True, help="Only in this state. Repeatable.")
@click.option("--type", "type_", default="", metavar="NAME", help="Only workflows of this type (namespace:name).")
@click.option("--queue", default="", metavar="NAME", help="Only on this queue.")
@click.option("--id", "id_", default="", metavar="PREFIX", help="Only those whose ID begins like this.")
@click.option("--where", default="", metavar="TEXT", help="Only those that fit; see below.")
@click.option(
    "--order", default=ORDER_DEFAULT, show_default=True, metavar="FIELD",
    help=f"{', '.join(ORDERS)}; with - in front (or ' desc' behind) the largest first.",
)  # fmt: skip
@click.option("-n", "--limit", type=click.IntRange(0), default=50, show_default=True, help="How many; 0 for all.")
@click.option("--cursor", default="", metavar="TEXT", help="Go on behind the page that this cursor came with.")
@all_runs_option
@watch_option
@click.option("--json", "as_json", is_flag=True, help=f"Print one object a line: {RECORD}.")
@connection_options
def ls(
    *,
    status: tuple[str, ...],
    type_: str,
    queue: str,
    id_: str,
    where: str,
    order: str,
    limit: int,
    cursor: str,
    all_runs: bool,
    watch: bool,
    every: float,
    as_json: bool,
    server: Server,
) -> None:
    """List workflows, the newest first.

    \b
      mesh ls --status running --status suspended
      mesh ls --where 'attrs.customer = "c-1" and started > -2h' --order duration
      mesh ls --where 'type like "shop:*" and not (status in (completed, canceled) or attempt > 1)'

    \b
    Fields: id type status queue started ended duration attempt parent run
            attrs.NAME (search attributes), memo.NAME
    Operators: = != < <= > >= in (a, b) like "pre*"; and, or, not, ( )
    Values: texts, with quotes when they have blanks; numbers; true, false, null;
            times (2026-11-25, 2026-11-25T10:00:00Z, -2h for two hours ago); durations (500ms, 1h30m)
    """  # noqa: D301 - click reads the control character
    query = checked_query(
        ListQuery(
            status=status,
            type=type_,
            queue=queue,
            id=id_,
            where=where,
            order=order,
            cursor=cursor,
            all_runs=all_runs,
            limit=min(limit or LIMIT_MAX, LIMIT_MAX),
        )
    )

    async def main() -> None:
        async with open_lists(server) as lists:

            async def look(characters: int) -> RenderableType:
                page = await _listed(lists, query, limit or LIMIT_MAX, server)
                columns, rows = _table(page.workflows, all_runs=all_runs)
                return table_of(columns, rows, characters, status_column=2, spare=_spare(columns))

            async def once() -> None:
                page = await _listed(lists, query, limit, server)
                if as_json:
                    print_json_lines(page.workflows)
                elif page.workflows:
                    columns, rows = _table(page.workflows, all_runs=all_runs)
                    print_table(columns, rows, status_column=2, spare=_spare(columns))
                else:
                    say("no workflow fits" if _restricts(query) else "there are no workflows")
                _say_lag(page.lag)
                if page.next and not watch:
                    say(f"there are more: {_command(cursor=page.next)}")

            await _show(look, once, watch=watch, as_json=as_json, every_s=every)

    run(main)


@click.command()
@click.option(
    "--by", type=click.Choice(COUNTED), multiple=True, help="What to count by; repeatable.  [default: type, status]"
)
@all_runs_option
@watch_option
@click.option("--json", "as_json", is_flag=True, help="Print one object a line: {type, status, queue, workflows}.")
@connection_options
def count(*, by: tuple[str, ...], all_runs: bool, watch: bool, every: float, as_json: bool, server: Server) -> None:
    """Count workflows by type and status, or by what --by says."""
    fields = tuple(dict.fromkeys(by)) or ("type", "status")

    async def main() -> None:
        async with open_lists(server) as lists:

            async def ask() -> list[Mapping[str, Any]]:
                return list(await lists.counts(fields, all_runs))

            async def look(characters: int) -> RenderableType:
                columns, rows = _count_table(fields, await ask())
                return table_of(columns, rows, characters, status_column=_status_column(fields))

            async def once() -> None:
                counts = await ask()
                if as_json:
                    print_json_lines(counts)
                elif counts:
                    columns, rows = _count_table(fields, counts)
                    print_table(columns, rows, status_column=_status_column(fields))
                else:
                    say("there are no workflows")

            await _show(look, once, watch=watch, as_json=as_json, every_s=every)

    run(main)


# -- where the answers come from -------------------------------------------------------------------------------------


class Lists:
    """Answers of a node that keeps a projection or, once there was none, of one in memory."""

    def __init__(self, client: Client, in_memory: Callable[[], Awaitable[Projecting]]) -> None:
        self.client = client
        self._in_memory = in_memory
        self._own: Projecting | None = None

    async def page(self, query: ListQuery) -> ListPage:
        """One page. Raises BadQuery."""
        from mesh.lists import ask_page

        if self._own is None:
            try:
                return await ask_page(self.client.conn, query, timeout_s=PAGE_TIMEOUT_S)
            except MeshError as error:
                self._own = await self._instead(error)
        return await self._own.list(query)

    async def counts(self, by: tuple[str, ...], all_runs: bool) -> Sequence[Mapping[str, Any]]:
        """How many there are, by some fields."""
        from mesh.listing import summed
        from mesh.lists import ask_counts

        if self._own is None:
            try:
                return await ask_counts(self.client.conn, by, all_runs=all_runs, timeout_s=COUNT_TIMEOUT_S)
            except MeshError as error:
                self._own = await self._instead(error)
        return summed(await self._own.counts(all_runs=all_runs), by)

    async def _instead(self, error: MeshError) -> Projecting:
        """Read the streams, where no node answers that keeps a list; raise whatever else went wrong."""
        from mesh.lists import NoProjection

        # One that hangs is asked as long as the server believes in its connection.
        if isinstance(error, RequestTimeout):
            say("the node that keeps the list does not answer; the streams are read instead")
        elif not isinstance(error, NoProjection):
            raise error
        return await self._in_memory()


class NoList(MeshError):
    """Raised when nobody keeps a list, and this user may not read what it is made of."""

    code = "no-list"

    def __init__(self, subject: str) -> None:
        super().__init__(
            f"no node keeps a list of workflows, and this user may not read the streams instead ({subject}); run a node"
            " with --projection FILE"
        )


@asynccontextmanager
async def open_lists(server: Server) -> AsyncIterator[Lists]:
    """Connect, and be ready to list what there is."""
    import anyio

    from mesh.groups import unwrapped
    from store.projecting import Projecting
    from store.streams import queue_names

    with unwrapped():
        async with server.client() as client, anyio.create_task_group() as tasks:

            async def in_memory() -> Projecting:
                with server.deadline("JetStream"):
                    await client.js.api("INFO")
                    try:
                        await queue_names(client.js)
                    except NotPermitted as error:
                        raise NoList(error.subject) from None
                projecting = Projecting(client.conn, client.js, None)
                await tasks.start(projecting.run)
                await _until_read(projecting, server.timeout_s)
                return projecting

            yield Lists(client, in_memory)
            tasks.cancel_scope.cancel()


async def _until_read(projecting: Projecting, patience_s: float) -> None:
    """Wait until the streams are read, and show on a terminal how far that is.

    Raises RequestTimeout when nothing has come for so long: who may not read them would wait for ever.
    """
    import anyio
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from mesh.errors import RequestTimeout

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    on_terminal = sys.stderr.isatty()
    before, since = projecting.progress(), anyio.current_time()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not on_terminal) as bar:
        task = bar.add_task("no node keeps a list: reading the streams", total=None)
        while not projecting.is_caught_up():
            now = projecting.progress()
            if now != before:
                before, since = now, anyio.current_time()
            elif anyio.current_time() - since > patience_s:
                raise RequestTimeout("the streams of the queues", patience_s)
            bar.update(task, completed=now.taken_in, total=now.taken_in + now.left or None)
            await anyio.sleep(PROGRESS_EVERY_S if on_terminal else PROGRESS_EVERY_S / 10)


async def _listed(lists: Lists, query: ListQuery, limit: int, server: Server) -> ListPage:
    """So many workflows, all with limit 0, however many pages that takes."""
    found: list[Mapping[str, Any]] = []
    while True:
        left = limit - len(found) if limit else LIMIT_MAX
        try:
            page = await lists.page(replace(query, limit=min(left, LIMIT_MAX)))
        except BadQuery as error:
            raise click.UsageError(str(error)) from None
        found += page.workflows
        if not page.next or (limit and len(found) >= limit):
            return replace(page, workflows=tuple(found))
        query = replace(query, cursor=page.next)


async def _show(
    look: Callable[[int], Awaitable[RenderableType]],
    once: Callable[[], Awaitable[None]],
    *,
    watch: bool,
    as_json: bool,
    every_s: float,
) -> None:
    """Print once, or again and again with `--watch`: over what was there, where people look at it."""
    if watch and not as_json:
        await show_live(look, every_s=every_s, print_once=once)
    elif watch:
        await _for_ever(once, every_s)
    else:
        await once()


async def _for_ever(once: Callable[[], Awaitable[None]], every_s: float) -> None:
    import anyio

    while True:
        await once()
        await anyio.sleep(max(every_s, 0.1))


# -- how they look ---------------------------------------------------------------------------------------------------


def _table(workflows: Sequence[Mapping[str, Any]], *, all_runs: bool) -> tuple[list[str], list[list[str]]]:
    """What helps to tell the workflows apart: columns in which all would be the same are left out.

    all_runs: with the numbers of their runs, by which `mesh show --run` finds them.
    """
    now_ns = time.time_ns()
    columns = ["id", "type", "status", "started", "duration"]
    several_queues = len({record["queue"] for record in workflows}) > 1
    extra = [
        name
        for name, wanted in (
            ("run", all_runs),
            ("attempt", any(record["attempt"] > 1 for record in workflows)),
            ("parent", any(record["parent"] for record in workflows)),
            ("queue", several_queues),
        )
        if wanted
    ]
    rows = []
    for record in workflows:
        started_ns = parse_iso_ns(record["started"])
        lasted_s = record["duration_s"]
        duration = span(lasted_s if lasted_s is not None else max(now_ns - started_ns, 0) / 1e9)
        rows.append([
            record["id"], record["type"], record["status"], away(started_ns, now_ns), duration,
            *("" if record[name] is None else str(record[name]) for name in extra),
        ])  # fmt: skip
    return columns + extra, rows


def _spare(columns: Sequence[str]) -> list[str]:
    return [name for name in SPARE if name in columns]


def _count_table(fields: Sequence[str], counts: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    rows = [[*(str(count[name]) for name in fields), f"{count['workflows']:,}"] for count in counts]
    if len(rows) > 1 and sys.stdout.isatty():
        rows.append([*("" for _ in fields), f"{sum(count['workflows'] for count in counts):,}"])
    return [*fields, "workflows"], rows


def _status_column(fields: Sequence[str]) -> int:
    return fields.index("status") if "status" in fields else -1


def checked_query(query: ListQuery) -> ListQuery:
    """The query, or a wrong usage that says what is wrong with it."""
    from store.filters import parse_filter

    try:
        parse_filter(query.where, time.time_ns())
        return query.checked()
    except BadQuery as error:
        raise click.UsageError(str(error)) from None


def _restricts(query: ListQuery) -> bool:
    return bool(query.status or query.type or query.queue or query.id or query.where or query.cursor)


def _say_lag(lag: Lag) -> None:
    if lag.messages >= LAG_MESSAGES_SAID or lag.seconds >= LAG_S_SAID:
        say(f"the list is behind: {lag.messages:,} messages, {lag.seconds:.1f} s; what is newer is missing")


def _command(**changed: str) -> str:
    """This command line with other values of some options."""
    ctx = click.get_current_context()
    words = [ctx.info_name or "ls"]
    for param in ctx.command.params:
        name = param.name or ""
        value = changed.get(name, ctx.params.get(name))
        said = name in changed or ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if not said or not isinstance(param, click.Option) or name in SECRETS:
            continue
        flag = max(param.opts, key=len)
        if param.is_flag:
            words.append(flag)
            continue
        for one in value if isinstance(value, tuple) else (value,):
            words += [flag, shlex.quote(str(one))]
    return f"mesh {' '.join(words)}"
