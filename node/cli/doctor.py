"""`mesh doctor`: what is wrong with the server and the mesh, and what to do about it."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from node.cli.connecting import Server, connection_options, run
from node.cli.printing import no_color, one_line, print_json_lines, say

if TYPE_CHECKING:
    from node.api.findings import Finding

NARROW: Final = 70  # characters; below it there is no room for text beside the names of checks
INDENT_NARROW: Final = 4
_COLORS: Final = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command()
@click.option("-q", "--quiet", is_flag=True, help="Only what is not as it should be.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print a line {check, subject, state, text, fix} for each thing looked at."
)
@connection_options(timeout="20s")
def doctor(*, quiet: bool, as_json: bool, server: Server) -> None:
    """Look at the server and the mesh, and say what is wrong and what to do about it.

    The server: its version, JetStream and its limits, how far away it is, clocks, what this user may do. The mesh:
    settings and copies of its streams, nodes that are silent or differ, partitions without an owner or behind, workers
    and functions that nobody has, keys that nodes or this command lack, suspended workflows, leftovers. It asks and
    changes nothing. Of keys only names and fingerprints are known and shown.

    Exit status 1 when something is a problem, 0 when there are warnings at most.
    """

    async def main() -> None:
        from mesh.server_store import stores_here
        from node.api.doctoring import diagnose, examine

        stores = stores_here()
        async with server.client() as client:
            with server.deadline("the mesh"):
                findings = diagnose(await examine(client, stores=stores))
        shown = [finding for finding in findings if finding.state != "ok"] if quiet else findings
        if as_json:
            print_json_lines([finding.record() for finding in shown])
        else:
            _print(shown)
            _summarize(findings)
        if any(finding.state == "problem" for finding in findings):
            raise click.exceptions.Exit(1)

    run(main)


def _print(findings: Sequence[Finding]) -> None:
    width = max((len(finding.check) for finding in findings), default=0)
    for finding in findings:
        about = f"{finding.subject}: " if finding.subject and finding.subject not in finding.text else ""
        head = f"{finding.state:<7}  {finding.check:<{width}}  "
        lines = _wrapped(head, f"{about}{one_line(finding.text)}")
        if finding.fix:
            lines += _wrapped(f"{'':<{len(head)}}-> ", finding.fix)
        if sys.stdout.isatty() and not no_color():
            styled = click.style(finding.state, fg=_COLORS[finding.state], bold=finding.state == "problem")
            lines[0] = f"{styled}{lines[0][len(finding.state) :]}"
        click.echo("\n".join(lines))


def _wrapped(head: str, text: str) -> list[str]:
    """A text behind its head; on a terminal wrapped below itself, or a little indented where there is no room."""
    if not sys.stdout.isatty():
        return [f"{head}{text}"]
    columns = shutil.get_terminal_size().columns
    indent = len(head) if columns >= NARROW else INDENT_NARROW
    first = head if columns >= NARROW or head.strip() != "->" else f"{'':{INDENT_NARROW}}-> "
    return textwrap.wrap(
        text, columns, initial_indent=first, subsequent_indent=" " * indent, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def _summarize(findings: Sequence[Finding]) -> None:
    counts = [
        f"{number} {word if number == 1 else plural}"
        for state, word, plural in (("problem", "problem", "problems"), ("warning", "warning", "warnings"))
        if (number := sum(finding.state == state for finding in findings))
    ]
    say(", ".join(counts) if counts else "all is well")
