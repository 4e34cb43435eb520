"""Which histories a command is about: ids, or all workflows that fit.

Shared by the commands that read histories: `mesh replay`, `mesh export`, `mesh archive`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from mesh.errors import NotFound
from mesh.history_files import RecordedHistory, fetch_history
from mesh.listing import LIMIT_MAX, STATUSES, ListQuery
from mesh.subjects import WorkflowKey

if TYPE_CHECKING:
    from mesh.client import Client
    from node.cli.connecting import Server
    from node.cli.listing import Lists

FETCHES_AT_ONCE: Final = 16

Command = TypeVar("Command", bound=Callable[..., Any])


def choice_options(command: Command) -> Command:
    """Give a command `--all`, `--status`, `--type`, `--where` and `--queue`; see `query_of`."""
    options = (
        click.option("--all", "everything", is_flag=True, help="All workflows that fit the options below."),
        click.option("--status", "statuses", type=click.Choice(STATUSES), multiple=True, metavar="STATUS",
                     help="Those of this status; repeatable."),
        click.option("--type", "type_", default="", metavar="NAME", help="Those of this type (namespace:name)."),
        click.option("--where", default="", metavar="TEXT", help="Those that fit, as for `mesh ls`."),
        click.option("--queue", metavar="NAME", help="Queue of the workflow, or those on this queue."),
    )  # fmt: skip
    decorated: Any = command
    for option in reversed(options):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]  # click's decorators are typed for one signature at a time


def query_of(
    ids: Sequence[str], everything: bool, *, statuses: tuple[str, ...], type_: str, where: str, queue: str | None
) -> ListQuery | None:
    """What is asked for with --all; None when ids are given. Raises UsageError."""
    if ids and everything:
        raise click.UsageError("give ids or --all, not both")
    if everything:
        from node.cli.listing import checked_query

        return checked_query(
            ListQuery(status=statuses, type=type_, where=where, queue=queue or "", order="started", limit=LIMIT_MAX)
        )
    if not ids:
        raise click.UsageError("say which: an ID, or --all")
    if statuses or type_ or where:
        raise click.UsageError("--status, --type and --where choose among --all")
    return None


async def named_histories(
    client: Client, server: Server, ids: Iterable[str], queue: str | None, run: int = 0
) -> AsyncIterator[RecordedHistory]:
    """The histories of workflows by their ids: the newest run, or the one that is named. Raises NotFound."""
    from node.api.locating import find

    for workflow_id in ids:
        with server.deadline("the history"):
            handle = await find(client, server.url, workflow_id, queue, flags=server.hint)
            recorded = await fetch_history(client.history(handle.key.queue), handle.key, run)
        yield recorded


async def listed(lists: Lists, query: ListQuery) -> AsyncIterator[Mapping[str, Any]]:
    """The records of all workflows that fit, page by page."""
    while True:
        page = await lists.page(query)
        for record in page.workflows:
            yield record
        if not page.next:
            return
        query = replace(query, cursor=page.next)


async def listed_histories(client: Client, records: AsyncIterator[Mapping[str, Any]]) -> AsyncIterator[RecordedHistory]:
    """The histories of runs that are listed, in order, some read at the same time.

    A run that has been removed meanwhile is left out.
    """
    import anyio

    from mesh.groups import unwrapped

    found: dict[int, RecordedHistory] = {}

    async def fetch(i: int, record: Mapping[str, Any]) -> None:
        key = WorkflowKey(record["queue"], record["id"])
        try:
            found[i] = await fetch_history(client.history(key.queue), key, record["run"])
        except NotFound:
            return

    while True:
        page = [record async for _, record in _first(records, FETCHES_AT_ONCE)]
        found.clear()
        with unwrapped():
            async with anyio.create_task_group() as tasks:
                for i, record in enumerate(page):
                    tasks.start_soon(fetch, i, record)
        for i in sorted(found):
            yield found[i]
        if len(page) < FETCHES_AT_ONCE:
            return


async def _first(records: AsyncIterator[Mapping[str, Any]], count: int) -> AsyncIterator[tuple[int, Mapping[str, Any]]]:
    """The next so many."""
    for i in range(count):
        try:
            yield i, await anext(records)
        except StopAsyncIteration:
            return
