"""`mesh replay`: does an app's code fit recorded histories? They are replayed against it, nothing is called."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from node.cli.apps import APP
from node.cli.choosing import choice_options, query_of
from node.cli.connecting import Server, connection_options, run
from node.cli.printing import print_json_lines, say

if TYPE_CHECKING:
    from mesh.client import Client
    from mesh.envelopes import PayloadCodec
    from mesh.history_files import RecordedHistory
    from node.checking import AppChecker, Verdict

SHAPE = (
    "{id, queue, run, type, status, events, ok, event, seq, line, expected, got, message, stack: [...], notes: [...], "
    "unread}"
)


@click.command()
@click.argument("what", metavar="ID|FILE...", nargs=-1)
@click.argument("app", metavar="APP", type=APP)
@choice_options
@click.option("--run", "run_number", type=click.IntRange(1), metavar="RUN", help="An older run of the ID.")
@click.option("--strict", is_flag=True, help="Let what is noted, such as another result, count as a mismatch.")
@click.option("--json", "as_json", is_flag=True, help=f"Print one object a line for each history: {SHAPE}.")
@connection_options
def replay(
    what: tuple[str, ...],
    app: Path,
    *,
    everything: bool,
    statuses: tuple[str, ...],
    type_: str,
    where: str,
    queue: str | None,
    run_number: int | None,
    strict: bool,
    as_json: bool,
    server: Server,
) -> None:
    """Check the code in the directory APP against histories: of the workflow ID, or in a FILE of `mesh export`.

    Each is replayed against the code. Where the code asks for something else than the history has, that is told with
    the number of the event and the line of Lua. Nothing is called and nothing is written. Exit status 1 when one does
    not fit, or could not be read as its key is missing. Open are the workflows of the statuses running and suspended.

    \b
      mesh replay order-1 app
      mesh replay --all --status running app
      mesh replay --all --status running --status suspended app
      mesh export --all -o histories.jsonl.gz && mesh replay histories.jsonl.gz app
    """  # noqa: D301 - click reads the control character
    query = query_of(what, everything, statuses=statuses, type_=type_, where=where, queue=queue)
    files = [] if everything or queue or run_number else [name for name in what if Path(name).is_file()]
    ids = [name for name in what if name not in files]
    for name in ids:
        if not everything and name.endswith((".jsonl", ".jsonl.gz")):
            raise click.UsageError(f"there is no file {name}; `mesh export --all -o {name}` writes one")
    if run_number and len(ids) != 1:
        raise click.UsageError("--run is the run of one ID")
    verdicts = _Verdicts(strict=strict, as_json=as_json)

    async def main() -> None:
        from node.cli.exporting import chosen_histories
        from node.cli.progress import progress

        async with chosen_histories(server, ids, query, queue, run_number or 0) as (client, found):
            checker = _checker(app, await _functions(client))
            with progress("replaying") as bar:
                async for recorded in found:
                    verdicts.add(checker.check(recorded))
                    bar.advance()

    if files:
        _check_files(files, _checker(app, ()), verdicts, server.codec())
    if ids or everything:
        run(main)
    verdicts.close(app)


def _checker(app: Path, functions: tuple[str, ...]) -> AppChecker:
    from node.checking import AppChecker
    from node.cli.nodes import load_app

    return AppChecker(load_app(app, strict=False), functions=functions)


async def _functions(client: Client) -> tuple[str, ...]:
    """What the nodes of the mesh offer: a history may have called what the new code does not have."""
    from mesh.errors import MeshError
    from node.cli.nodes import ask_nodes

    try:
        statuses = (await ask_nodes(client)).values()
    except MeshError:
        return ()
    return tuple({str(name) for status in statuses for name in status.get("functions") or ()})


def _check_files(files: list[str], checker: AppChecker, verdicts: _Verdicts, keys: PayloadCodec | None) -> None:
    from node.cli.progress import progress

    with progress("replaying") as bar:
        for recorded in _from_files(files, keys):
            verdicts.add(checker.check(recorded))
            bar.advance()


def _from_files(files: list[str], keys: PayloadCodec | None) -> Iterator[RecordedHistory]:
    from mesh.history_files import RecordedHistory, opened_events, read_histories

    for name in files:
        for header, events in read_histories(name):
            yield RecordedHistory(header, list(opened_events(keys, header, events)))


class _Verdicts:
    """Prints the verdicts as they come, and in the end how many there were of each kind."""

    def __init__(self, *, strict: bool, as_json: bool) -> None:
        self._strict = strict
        self._as_json = as_json
        self._checked = 0
        self._mismatches = 0
        self._noted = 0
        self._unread: list[str] = []

    def add(self, verdict: Verdict) -> None:
        """Take notice of one."""
        self._checked += 1
        self._noted += bool(verdict.notes)
        if verdict.unread:
            self._unread.append(verdict.unread)
            if self._as_json:
                print_json_lines([verdict.record()])
            return
        is_bad = not verdict.fits or (self._strict and bool(verdict.notes))
        self._mismatches += is_bad
        if self._as_json:
            print_json_lines([verdict.record() | {"ok": not is_bad}])
        elif is_bad or verdict.notes:
            self._print(verdict, is_bad)

    def _print(self, verdict: Verdict, is_bad: bool) -> None:
        from node.cli.printing import no_color, one_line, shortened
        from node.workflows.checking import event_label

        header, mismatch = verdict.header, verdict.mismatch
        word = "mismatch" if is_bad else "note"
        if sys.stdout.isatty() and not no_color():
            word = click.style(word, fg="red" if is_bad else "yellow", bold=is_bad)
        click.echo(f"{word}  {one_line(f'{header.id}  run {header.run}  {header.type}  {header.status}')}")
        if mismatch is not None:
            place = f" at {mismatch.line}" if mismatch.line else ""
            click.echo(f"  event {mismatch.number} ({one_line(event_label(mismatch.event))}){one_line(place)}")
            click.echo(f"  expected  {shortened(one_line(mismatch.expected))}")
            click.echo(f"  got       {shortened(one_line(mismatch.got))}")
            for frame in mismatch.stack.splitlines():
                click.echo(f"    {one_line(frame)}")
        for note in verdict.notes:
            click.echo(f"  {one_line(note)}")

    def close(self, app: Path) -> None:
        """Say how it went; exits with 1 when something does not fit."""
        replayed = self._checked - len(self._unread)
        count = _histories(replayed)
        if self._checked == 0:
            say("there is no history to replay, so nothing was checked; `mesh count` says how many workflows there are")
        elif self._mismatches:
            say(f"{self._mismatches} of {count} {'does' if self._mismatches == 1 else 'do'} not fit the code in {app}")
        elif replayed:
            noted = f", {self._noted} with a note" if self._noted else ""
            say(f"{count} replayed, all fit the code in {app}{noted}")
        if self._unread:
            reasons = list(dict.fromkeys(self._unread))
            others = f" and {len(reasons) - 3} other reasons" if len(reasons) > 3 else ""
            say(
                f"{_histories(len(self._unread))} could not be read, and so not be replayed: "
                f"{'; '.join(reasons[:3])}{others}; give the keys with --keys FILE"
            )
        if self._mismatches or self._unread:
            raise click.exceptions.Exit(1)


def _histories(count: int) -> str:
    return "1 history" if count == 1 else f"{count} histories"
