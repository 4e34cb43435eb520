"""`mesh export` and `mesh import`: histories into files, and from files into a mesh."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from node.cli.choosing import choice_options, listed, listed_histories, named_histories, query_of
from node.cli.connecting import Server, connection_options, run
from node.cli.printing import say

if TYPE_CHECKING:
    from mesh.client import Client
    from mesh.events import Event
    from mesh.history_files import BinaryFile, HistoryHeader, RecordedHistory
    from mesh.listing import ListQuery

IMPORTED = "{id, queue, run, type, status, events, origin: {id, queue, run}}"


@click.command("export")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@choice_options
@click.option("--run", "run_number", type=click.IntRange(1), metavar="RUN", help="An older run of the ID.")
@click.option(
    "-o", "--output", default="-", show_default=True, metavar="FILE", help="Where to; `.gz` is compressed, - is stdout."
)
@click.option("--decrypt", is_flag=True, help="Write what is encrypted in the mesh as it was before; needs --keys.")
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
    decrypt: bool,
    server: Server,
) -> None:
    """Write the histories of the workflows ID to a file, as JSON lines: a header, then one line for each event.

    Of each workflow the newest run. The file is what `mesh replay` checks code against, and what `mesh import` reads.
    With --keys it is encrypted, and both need the keys, too.

    \b
      mesh export order-1 | jq .
      mesh export --all --status failed -o failed.jsonl.gz
    """  # noqa: D301 - click reads the control character
    query = query_of(ids, everything, statuses=statuses, type_=type_, where=where, queue=queue)
    if decrypt and not server.keys:
        raise click.UsageError("--decrypt needs the keys: --keys FILE")
    if run_number and len(ids) != 1:
        raise click.UsageError("--run is the run of one ID")

    async def main() -> None:
        from mesh.history_files import dump_history, new_history_file, sealed_events
        from node.cli.progress import progress

        count = events = 0
        with ExitStack() as stack:
            async with chosen_histories(server, ids, query, queue, run_number or 0) as (client, found):
                keys = client.conn.codec if not decrypt else None
                file: BinaryFile | None = None
                bar = stack.enter_context(progress("exporting"))
                async for recorded in found:
                    if file is None:  # not before something is found: a mistyped id must not leave an empty file
                        file = (
                            sys.stdout.buffer if output == "-" else stack.enter_context(new_history_file(Path(output)))
                        )
                    written = sealed_events(keys, recorded.header, recorded.events)
                    dump_history(file, recorded.header, written)
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


@click.command("import")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--queue", metavar="NAME", help="Write them to this queue instead of their own.")
@click.option("--as", "as_id", metavar="ID", help="Write the one history under this id.")
@click.option("--resume", is_flag=True, help="Let those that have not ended go on in this mesh.")
@click.option("--json", "as_json", is_flag=True, help=f"Print one object a line for each history: {IMPORTED}.")
@connection_options
def import_histories(
    files: tuple[str, ...], *, queue: str | None, as_id: str | None, resume: bool, as_json: bool, server: Server
) -> None:
    """Write the histories in a FILE of `mesh export` into the mesh, to look at them with all its tools; - is stdin.

    They keep their ids and their times. An id that the mesh has is refused; a history that was imported before is
    left as it is, so that an import that broke off can be repeated. A workflow that has not ended is only
    written with --resume: it goes on, its calls that are open are made again, while the original goes on in its own
    mesh unless it was ended there.

    \b
      mesh import histories.jsonl.gz
      mesh import order-1.jsonl --as order-1-copy && mesh show order-1-copy --at 17
    """  # noqa: D301 - click reads the control character
    if resume and as_id is not None:
        raise click.UsageError("--resume keeps the id: others answer to it; --as is for histories to look at")
    for name in files:
        if name != "-" and (not Path(name).exists() or Path(name).is_dir()):
            raise click.UsageError(
                f"there is no file {name}; `mesh export --all -o FILE` writes one, - is standard input"
            )

    async def main() -> None:
        from mesh.history_files import opened_events
        from mesh.importing import AlreadyImported, Importer
        from mesh.subjects import WorkflowKey
        from node.api.locating import workers
        from node.cli.printing import print_json_lines
        from node.cli.progress import progress

        count = events_written = there = 0
        async with server.client() as client:
            await workers(client, server.url)  # an empty mesh is told as such
            importer = Importer(client.js)
            with progress("importing") as bar:
                histories = _in_files(files)
                for header, recorded in histories if as_id is None else _only_one(histories):
                    events = opened_events(client.conn.codec, header, recorded)
                    key = WorkflowKey(queue or header.queue, as_id or header.id)
                    try:
                        run_number = await importer.add(header, events, key, resume=resume)
                        count += 1
                        events_written += header.events
                    except AlreadyImported as error:
                        run_number = error.run
                        there += 1
                    bar.advance()
                    if as_json:
                        origin = {"id": header.id, "queue": header.queue, "run": header.run}
                        record = {"id": key.id, "queue": key.queue, "run": run_number, "type": header.type}
                        print_json_lines([
                            record | {"status": header.status, "events": header.events, "origin": origin}
                        ])  # fmt: skip
        before = f", {there} {'was' if there == 1 else 'were'} there already" if there else ""
        say(f"imported {'1 history' if count == 1 else f'{count} histories'} of {events_written} events{before}")

    run(main)


def _only_one(
    histories: Iterator[tuple[HistoryHeader, Iterator[Event]]],
) -> Iterator[tuple[HistoryHeader, Iterator[Event]]]:
    """The one history there is. Raises UsageError when there are more, before anything is done with the first."""
    for header, events in histories:
        kept = list(events)
        if next(histories, None) is not None:
            raise click.UsageError("--as is for a file of one history; this one has more")
        yield header, iter(kept)


def _in_files(files: tuple[str, ...]) -> Iterator[tuple[HistoryHeader, Iterator[Event]]]:
    from mesh.history_files import read_histories, scan_histories

    for name in files:
        yield from scan_histories(sys.stdin.buffer, "standard input") if name == "-" else read_histories(name)
