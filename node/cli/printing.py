"""How results look: tables with colour on a terminal, the same columns as plain text elsewhere, JSON on demand."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from mesh import codec
from mesh.instants import iso as iso

if TYPE_CHECKING:
    from rich.table import Table

# A cell of a table on a terminal; the rest is one --json away.
CELL_CHARACTERS_MAX: Final = 300
_COLORS: Final = {
    "running": "cyan",
    "completed": "green",
    "failed": "red",
    "terminated": "red",
    "timed-out": "red",
    "canceled": "yellow",
    "suspended": "bold red",
    "up": "green",
    "leaving": "yellow",
    "silent": "red",
    "Running": "green",
    "Exited": "yellow",
    "Failed": "red",
    "Starting": "cyan",
    "continued": "dim",
    "retried": "dim",
}


def say(text: str) -> None:
    """Tell the person something that is no result; it may have lines, and what others sent in it is harmless."""
    click.echo("".join(c if c in "\n\t" else one_line(c) for c in text), err=True)


def print_json(value: Any) -> None:
    """Print one value as JSON: indented on a terminal, else on one line."""
    click.echo(codec.to_json(value, indent=2 if sys.stdout.isatty() else None))


def print_json_lines(records: Iterable[Mapping[str, Any]]) -> None:
    """Print a list as JSON, one object a line."""
    for record in records:
        click.echo(codec.to_json(record))


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    status_column: int = -1,
    spare: Sequence[str] = (),
    last_characters: int = 0,
) -> None:
    """Print rows below headings. status_column: the one whose words have colours.

    spare: columns that a terminal leaves out when it is too narrow, the first one first; files and pipes get all.
    last_characters: up to this width the last column gets the room to stand on one line; else it is folded.
    """
    if not sys.stdout.isatty():
        lines = [[name.upper() for name in columns], *[[one_line(cell) for cell in row] for row in rows]]
        widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
        for line in lines:
            click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        return
    from rich.console import Console

    console = Console(no_color=no_color())
    console.print(
        table_of(
            columns, rows, console.width, status_column=status_column, spare=spare, last_characters=last_characters
        )
    )


def table_of(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    characters: int,
    *,
    status_column: int = -1,
    spare: Sequence[str] = (),
    last_characters: int = 0,
) -> Table:
    """The same as a rich table for a terminal of so many characters; `node.cli.live` shows it again and again."""
    from rich.table import Table
    from rich.text import Text

    texts = [[shortened(one_line(cell)) for cell in row] for row in rows]
    shown = _fitting(columns, texts, spare, characters, last_characters)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for i in shown:
        # What is long is folded; the other columns keep their width.
        table.add_column(columns[i].upper(), overflow="fold", no_wrap=i != len(columns) - 1)
    for row in texts:
        table.add_row(*(Text(row[i], _COLORS.get(row[i], "") if i == status_column else "") for i in shown))
    return table


def _fitting(
    columns: Sequence[str], rows: Sequence[Sequence[str]], spare: Sequence[str], characters: int, last_characters: int
) -> tuple[int, ...]:
    """The columns that have room beside each other. The last one may be folded between words, below last_characters."""
    widths = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
    word = max(len(word) for row in (columns, *rows) for word in row[-1].split() or [""])
    widths[-1] = max(word, min(widths[-1], last_characters))
    shown = list(range(len(columns)))
    for name in spare:
        if sum(widths[i] for i in shown) + 2 * (len(shown) - 1) <= characters:
            break
        shown.remove(columns.index(name))
    return tuple(shown)


def no_color() -> bool:
    """Whether the person wants no colours (NO_COLOR with any text in it, NATS_COLOR=off as the `nats` tool has it)."""
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("NATS_COLOR", "").lower() in ("off", "false", "0")


def one_line(text: str) -> str:
    """Write control characters as escapes: what others sent must not move the cursor or break the table."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def shortened(text: str, characters_max: int = CELL_CHARACTERS_MAX) -> str:
    """Cut a long text and say by how much."""
    note = f"... ({len(text)} characters)"
    # Nothing is gained by a note that is as long as what it stands for.
    return text if len(text) <= characters_max + len(note) else f"{text[:characters_max]}{note}"


def clock(ns: int) -> str:
    """The same for people: local date and time to the millisecond."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC).astimezone():%Y-%m-%d %H:%M:%S}.{rest // 1_000_000:03d}"


def away(ns: int, now_ns: int) -> str:
    """How far an instant is: `in 3m20s`, `4.2s ago`."""
    text = span(abs(ns - now_ns) / 1e9)
    return f"in {text}" if ns > now_ns else f"{text} ago"


def span(seconds: float) -> str:
    """How long something takes, for people: `1.3ms`, `4.2s`, `3m20s`, `2h5m`, `3d`."""
    if seconds < 0.1:
        return f"{seconds * 1e3:.1f}ms"
    if seconds < 60:
        return f"{seconds:.1f}s"
    if seconds < 3600:
        return f"{int(seconds // 60)}m{int(seconds % 60)}s"
    if seconds < 172_800:
        return f"{int(seconds // 3600)}h{int(seconds % 3600 // 60)}m"
    return f"{int(seconds // 86_400)}d"
