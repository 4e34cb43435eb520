"""`mesh archive`: the histories of ended workflows into files, before the mesh removes them.

A directory is an archive: files of histories as `mesh export` writes them, and `index.jsonl`, which says in which file
a history is. A file gets its name when it is complete and on disk, then its histories come into the index, and only
then are they removed from the mesh. So an archive that broke off is simply made again: what is in a file and not in the
index is entered first, and what is in the index is not archived again.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from mesh.errors import MeshError
from mesh.instants import iso
from mesh.listing import LIMIT_MAX, STATUSES, ListQuery
from node.cli.choosing import listed, listed_histories
from node.cli.connecting import Server, connection_options, run
from node.cli.printing import print_json_lines, say
from node.cli.values import AGE

if TYPE_CHECKING:
    from mesh.client import Client
    from mesh.envelopes import PayloadCodec
    from mesh.events import Event
    from mesh.history_files import HistoryHeader, RecordedHistory

INDEX: Final = "index.jsonl"
FILE_HISTORIES_MAX: Final = 10_000
FILE_BYTES_MAX: Final = 256 * 1024 * 1024  # of what the events carry, before it is compressed
OPEN: Final = ("running", "suspended")
ENDED: Final = tuple(status for status in STATUSES if status not in OPEN)
SHAPE: Final = "{file, histories, events, bytes, removed}"


class BadIndex(MeshError):
    """Raised when the index of an archive cannot be read."""

    code = "bad-index"

    def __init__(self, file: Path, line: int) -> None:
        super().__init__(
            f"{file}:{line}: no entry of an archive; delete the file to have it made again from the histories beside it"
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """One history in the index. started: of the run; two streams that followed each other number their runs alike.

    of: how many histories are in the file, so that entries that are missing are noticed.
    """

    file: str
    queue: str
    id: str
    run: int
    type: str
    status: str
    started: str
    ended: str
    events: int
    of: int

    @property
    def identity(self) -> int:
        """Tells the run from all others; a number, as an archive may have millions of them."""
        return hash((self.queue, self.id, self.run, self.started))


class Archive:
    """A directory of histories with its index. Raises BadIndex, BadHistoryFile."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._index = directory / INDEX
        self._known: set[int] = set()
        missing: Counter[str] = Counter()
        for entry in self._entries():
            self._known.add(entry.identity)
            missing[entry.file] = (missing[entry.file] or entry.of) - 1
        for path in sorted(directory.glob("*.jsonl.gz")):
            if missing.get(path.name, 1):
                self.enter([entry for entry in _entries_of(path) if not self.has(entry)])

    def has(self, entry: Entry) -> bool:
        """Whether a history is in the archive."""
        return entry.identity in self._known

    def new_path(self) -> Path:
        """Where to write the next file to."""
        stem = f"{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}"
        names = (f"{stem}{f'-{n}' if n else ''}.jsonl.gz" for n in range(1_000_000))
        return next(path for name in names if not (path := self.directory / name).exists())

    def enter(self, entries: list[Entry]) -> None:
        """Note what is in a file that is complete."""
        with self._index.open("a", encoding="ascii") as file:
            for entry in entries:
                file.write(json.dumps(asdict(entry)) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._known.update(entry.identity for entry in entries)

    def _entries(self) -> Iterator[Entry]:
        if not self._index.exists():
            return
        with self._index.open(encoding="ascii", errors="replace") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield Entry(**json.loads(line))
                except (ValueError, TypeError):
                    if line.endswith("\n"):
                        raise BadIndex(self._index, number) from None
                    # Broken off in the middle of a line: what it is about is entered again from its file.
        self._mend()

    def _mend(self) -> None:
        data = self._index.read_bytes()
        if data and not data.endswith(b"\n"):
            self._index.write_bytes(data[: data.rfind(b"\n") + 1])


def _entry(header: HistoryHeader, file: str, started_ns: int, ended_ns: int, of: int = 0) -> Entry:
    return Entry(
        file, header.queue, header.id, header.run, header.type, header.status, iso(started_ns), iso(ended_ns),
        header.events, of,
    )  # fmt: skip


def _entries_of(path: Path) -> list[Entry]:
    """What a file of histories holds."""
    from mesh.history_files import read_histories

    found = []
    for header, events in read_histories(path):
        first_ns = last_ns = 0
        for event in events:
            first_ns, last_ns = first_ns or event.at_ns, last_ns if event.kind == "attrs" else event.at_ns
        found.append(_entry(header, path.name, first_ns, last_ns))
    return [replace(entry, of=len(found)) for entry in found]


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--older-than", type=AGE, default="0s", metavar="AGE", help="Those that ended so long ago, such as 3d or 12h."
)
@click.option(
    "--status",
    "statuses",
    type=click.Choice(ENDED),
    multiple=True,
    metavar="STATUS",
    help="Those that ended so; repeatable.",
)
@click.option("--type", "type_", default="", metavar="NAME", help="Those of this type (namespace:name).")
@click.option("--queue", metavar="NAME", help="Those on this queue.")
@click.option("--purge", is_flag=True, help="Remove from the mesh what is safely in the archive.")
@click.option("--json", "as_json", is_flag=True, help=f"Print one object a line for each file: {SHAPE}.")
@connection_options
def archive(
    directory: Path,
    *,
    older_than: float,
    statuses: tuple[str, ...],
    type_: str,
    queue: str | None,
    purge: bool,
    as_json: bool,
    server: Server,
) -> None:
    """Write the histories of ended workflows to files in the directory DIR, each once however often it is called.

    DIR/index.jsonl says which history is in which file. `mesh replay` and `mesh import` read the files.

    \b
      mesh archive archive --older-than 3d --purge
      jq -r 'select(.id == "order-1") | .file' archive/index.jsonl
    """  # noqa: D301 - click reads the control character

    async def main() -> None:
        from node.cli.listing import open_lists
        from node.cli.progress import progress

        if directory.suffix in (".gz", ".jsonl"):
            raise click.UsageError(
                f"{directory} is to be a directory; for a single file, see `mesh export --all -o FILE`"
            )
        kept = Archive(directory)
        before = iso(time.time_ns() - round(older_than * 1e9))
        query = ListQuery(
            status=statuses or ENDED, type=type_, queue=queue or "", where=f"ended < {before}", order="ended",
            limit=LIMIT_MAX, all_runs=True,
        )  # fmt: skip
        total = _Totals()
        async with open_lists(server) as lists:
            with progress("archiving") as bar:
                found = listed_histories(lists.client, _not_yet(listed(lists, query), kept))
                while (written := await _write_file(found, kept, bar.advance, lists.client.conn.codec)) is not None:
                    path, entries = written
                    removed = await _remove(lists.client, entries) if purge else 0
                    total.add(path, entries, removed)
                    if as_json:
                        print_json_lines([total.newest])
            if purge:
                # What an earlier call has archived and was not asked to remove, or could not.
                total.removed += await _remove_archived(lists.client, listed(lists, query), kept)
        total.say(directory, purge=purge)

    run(main)


class _Totals:
    """What a call of the command came to."""

    def __init__(self) -> None:
        self.files = self.histories = self.removed = 0
        self.newest: dict[str, Any] = {}

    def add(self, path: Path, entries: list[Entry], removed: int) -> None:
        """Take notice of a file."""
        self.files += 1
        self.histories += len(entries)
        self.removed += removed
        self.newest = {
            "file": str(path), "histories": len(entries), "events": sum(entry.events for entry in entries),
            "bytes": path.stat().st_size, "removed": removed,
        }  # fmt: skip

    def say(self, directory: Path, *, purge: bool) -> None:
        """Say it in a sentence."""
        histories = "1 history" if self.histories == 1 else f"{self.histories} histories"
        files = "1 file" if self.files == 1 else f"{self.files} files"
        text = (
            f"archived {histories} in {files} in {directory}" if self.histories else "there is nothing new to archive"
        )
        say(text + (f", removed {self.removed} from the mesh" if purge else ""))


async def _not_yet(records: AsyncIterator[Mapping[str, Any]], kept: Archive) -> AsyncIterator[Mapping[str, Any]]:
    """What is not in the archive."""
    async for record in records:
        if not kept.has(_entry_of_record(record)):
            yield record


def _entry_of_record(record: Mapping[str, Any]) -> Entry:
    return Entry(
        "", record["queue"], record["id"], record["run"], record["type"], record["status"], record["started"],
        str(record["ended"]), 0, 0,
    )  # fmt: skip


async def _write_file(
    found: AsyncIterator[RecordedHistory], kept: Archive, advance: Any, keys: PayloadCodec | None
) -> tuple[Path, list[Entry]] | None:
    """Write the next file and enter what it holds; None when there is nothing left."""
    from mesh.history_files import dump_history, new_history_file, sealed_events

    recorded = await anext(found, None)
    if recorded is None:
        return None
    path, entries, size = kept.new_path(), [], 0
    with new_history_file(path) as file:
        while recorded is not None:
            dump_history(file, recorded.header, sealed_events(keys, recorded.header, recorded.events))
            events = recorded.events
            entries.append(_entry(recorded.header, path.name, events[0].at_ns, _ended_ns(events)))
            size += sum(len(event.data) for event in recorded.events)
            advance()
            if len(entries) >= FILE_HISTORIES_MAX or size >= FILE_BYTES_MAX:
                break
            recorded = await anext(found, None)
    entries = [replace(entry, of=len(entries)) for entry in entries]
    kept.enter(entries)
    return path, entries


def _ended_ns(events: list[Event]) -> int:
    """When a run ended: attributes that its last step has set may be recorded later."""
    return next(event.at_ns for event in reversed(events) if event.kind != "attrs")


async def _remove_archived(client: Client, records: AsyncIterator[Mapping[str, Any]], kept: Archive) -> int:
    entries = [entry async for record in records if kept.has(entry := _entry_of_record(record))]
    return await _remove(client, entries)


async def _remove(client: Client, entries: list[Entry]) -> int:
    """Remove runs that are archived, as far as nothing that stays needs them; return how many were removed.

    A run before them that is not archived keeps them, as does one after them that rests on them.
    """
    from mesh.subjects import WorkflowKey, token
    from store.purging import Purging
    from store.retention import EndFact, StartFact

    runs_by_key: dict[WorkflowKey, set[int]] = {}
    for entry in entries:
        runs_by_key.setdefault(WorkflowKey(entry.queue, entry.id), set()).add(entry.run)
    removed = 0
    for key, runs in runs_by_key.items():
        partition = await client.history(key.queue).partition_of(key)
        if partition is None:
            continue
        purging = Purging(client.conn, client.js, key.queue)

        def is_archived(start: StartFact | None, _end: EndFact, runs: set[int] = runs) -> bool:
            return start is not None and start.seq in runs

        up_to = await purging.removable(partition, token(key.id), is_archived)
        gone = [run for run in runs if run <= up_to]
        if gone:
            timers = await purging.timers(partition, [token(key.id)])
            if await purging.purge(partition, token(key.id), up_to, timers.get(token(key.id), ())):
                purging.tell(token(key.id), max(gone))
                removed += len(gone)
    return removed
