"""`mesh export` and `mesh import`: histories into files, and from files into a mesh."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from node.cli.choosing import Wanted, check_choice, choice_options
from node.cli.connecting import Server, connection_options, run
from node.cli.printing import say
from node.cli.workflows import queue_option

if TYPE_CHECKING:
    from mesh.client import Client
    from mesh.history_files import BinaryFile, RecordedHistory


@click.command("export")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@choice_options
@queue_option
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
    types: tuple[str, ...],
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
    check_choice(ids, everything, statuses, types)
    if run_number and len(ids) != 1:
        raise click.UsageError("--run is the run of one ID")

    async def main() -> None:
        from mesh.history_files import dump_history, new_history_file
        from node.cli.progress import progress

        count = events = 0
        with ExitStack() as stack:
            async with server.client() as client:
                found = histories(
                    client, server, ids, Wanted(statuses, types, queue), run_number, everything=everything
                )
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
        where = "" if output == "-" else f" to {output}"
        if count == 0:
            say("there is no such workflow, nothing was written")
        elif not (output == "-" and sys.stdout.isatty()):
            say(f"wrote {'1 history' if count == 1 else f'{count} histories'} of {events} events{where}")

    run(main)


async def histories(
    client: Client,
    server: Server,
    ids: tuple[str, ...] | list[str],
    wanted: Wanted,
    run_number: int | None,
    *,
    everything: bool,
) -> AsyncIterator[RecordedHistory]:
    """The histories that a command line names. Raises NotFound."""
    from mesh.history_files import fetch_history
    from node.cli.choosing import fetch_all, queues_of, walk
    from node.cli.locating import find

    for workflow_id in ids:
        with server.deadline("the history"):
            handle = await find(client, server.url, workflow_id, wanted.queue)
            recorded = await fetch_history(client.history(handle.key.queue), handle.key, run_number or 0)
        yield recorded
    for queue in await queues_of(client, server.url, wanted.queue) if everything else ():
        async for recorded in fetch_all(client, walk(client, queue, wanted)):
            yield recorded
