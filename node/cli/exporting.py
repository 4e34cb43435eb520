"""`mesh export` and `mesh import`: histories into files, and from files into a mesh."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from node.cli.choosing import choice_options, listed, listed_histories, named_histories, query_of
from node.cli.connecting import Server, connection_options, run
from node.cli.printing import say

if TYPE_CHECKING:
    from mesh.client import Client
    from mesh.history_files import BinaryFile, RecordedHistory
    from mesh.listing import ListQuery


@click.command("export")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@choice_options
@click.option("--run", "run_number", type=click.IntRange(1), metavar="RUN", help="An older run of the ID.")
@click.option(
    "-o", "--output", default="-", show_default=True, metavar="FILE", help="Where to; `.gz` is compressed, - is stdout."
)
@connection_options
def export_histories(
    ids: tuple[str, ...],
    *,
    everything: bool,
    statuses: tuple[str, ...],
    type_: str,
    where: str,
    queue: str | None,
    run_number: int | None,
    output: str,
    server: Server,
) -> None:
    """Write the histories of the workflows ID to a file, as JSON lines: a header, then one line for each event.

    Of each workflow the newest run. The file is what `mesh replay` checks code against, and what `mesh import` reads.

    \b
      mesh export order-1 | jq .
      mesh export --all --status failed -o failed.jsonl.gz
    """  # noqa: D301 - click reads the control character
    query = query_of(ids, everything, statuses=statuses, type_=type_, where=where, queue=queue)
    if run_number and len(ids) != 1:
        raise click.UsageError("--run is the run of one ID")

    async def main() -> None:
        from mesh.history_files import dump_history, new_history_file
        from node.cli.progress import progress

        count = events = 0
        with ExitStack() as stack:
            async with chosen_histories(server, ids, query, queue, run_number or 0) as (_, found):
                file: BinaryFile | None = None
                bar = stack.enter_context(progress("exporting"))
                async for recorded in found:
                    if file is None:  # not before something is found: a mistyped id must not leave an empty file
                        file = (
                            sys.stdout.buffer if output == "-" else stack.enter_context(new_history_file(Path(output)))
                        )
                    dump_history(file, recorded.header, recorded.events)
                    count += 1
                    events += recorded.header.events
                    bar.advance()
                if output == "-":
                    sys.stdout.buffer.flush()
        where_to = "" if output == "-" else f" to {output}"
        if count == 0:
            say("no workflow fits, nothing was written")
        elif not (output == "-" and sys.stdout.isatty()):
            say(f"wrote {'1 history' if count == 1 else f'{count} histories'} of {events} events{where_to}")

    run(main)


@asynccontextmanager
async def chosen_histories(
    server: Server, ids: tuple[str, ...] | list[str], query: ListQuery | None, queue: str | None, run_number: int = 0
) -> AsyncIterator[tuple[Client, AsyncIterator[RecordedHistory]]]:
    """Connect, and give out the histories that a command line names."""
    if query is None:
        async with server.client() as client:
            yield client, named_histories(client, server, ids, queue, run_number)
        return
    from node.cli.listing import open_lists

    async with open_lists(server) as lists:
        yield lists.client, listed_histories(lists.client, listed(lists, query))
