"""The reference of all commands in docs/cli.md, made of the commands themselves.

    python -m node.cli.reference docs/cli.md

writes the part of the file below the mark anew; what stands above it is written by hand. A test compares the two, so
that the reference cannot drift.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from node.cli import COMMANDS, SECTIONS, mesh
from node.cli.connecting import PARAMETERS, connection_options

MARK: Final = "<!-- From here on made by `python -m node.cli.reference docs/cli.md`: change the commands, not this. -->"
# Read by other code than an option's.
_VARIABLES: Final = {
    "NATS_COLOR": "`off`: no colours, as the `nats` tool has it.",
    "NO_COLOR": "Any text: no colours.",
    "MESH_DEBUG": "Any text: the trace of an error, as `--debug`.",
    "XDG_CONFIG_HOME": "Where `nats/context` is looked for, else `~/.config`.",
    "SHELL": "Which completion `mesh completion` prints when none is named.",
}


def reference() -> str:
    """The reference as Markdown."""
    lines = [MARK, "", "## Connection options", ""]
    lines += ["Every command that talks to a mesh takes these.", ""]
    lines += [*_table(_connecting()), "", "## Environment variables", "", *_variables(), "", "## Commands"]
    top = click.Context(mesh, info_name="mesh")
    for title, names in SECTIONS.items():
        lines += ["", f"### {title}"]
        for name in names:
            command = mesh.get_command(top, name)
            if command is not None:
                lines += ["", *_command(command, click.Context(command, info_name=name, parent=top), 4)]
    return "\n".join(lines) + "\n"


def rewritten(text: str) -> str:
    """A document with its reference made anew."""
    by_hand, mark, _ = text.partition(MARK)
    if not mark:
        raise ValueError(f"there is no line {MARK}")
    return by_hand + reference()


def _connecting() -> list[tuple[str, str]]:
    """The options of `connection_options`, which all commands have in common."""

    @click.command()
    @connection_options
    def connected(**_given: object) -> None:
        """Carry the options."""

    return _records(connected, click.Context(connected))


def _command(command: click.Command, ctx: click.Context, level: int) -> Iterator[str]:
    usage = " ".join([ctx.command_path, *command.collect_usage_pieces(ctx)])
    yield f"{'#' * level} {ctx.command_path}"
    yield from ("", f"    {usage}", "", *_text(command.help or ""))
    # A command that talks to no mesh may have an option of the same name.
    timeout = next((p for p in command.params if p.name == "timeout"), None)
    own = [p for p in command.params if timeout is None or p.name not in PARAMETERS]
    if records := _records(command, ctx, own):
        yield from ("", *_table(records))
    if timeout is not None and len(own) < len(command.params):
        default = f"; `--timeout` is {timeout.default} here" if timeout.default not in ("5s", None) else ""
        waits = "; without `--timeout` it waits for as long as it takes" if timeout.default is None else ""
        yield from ("", f"And the [connection options](#connection-options){default}{waits}.")
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            below = command.get_command(ctx, name)
            if below is not None:
                yield from ("", *_command(below, click.Context(below, info_name=name, parent=ctx), level + 1))


def _text(text: str) -> Iterator[str]:
    """A docstring as Markdown: click's blocks that are not to be wrapped are code."""
    for at, paragraph in enumerate(inspect.cleandoc(text).split("\n\n")):
        if at:
            yield ""
        lines = paragraph.splitlines()
        if lines and lines[0] == "\b":
            yield from textwrap.indent(textwrap.dedent("\n".join(lines[1:])), "    ").splitlines()
        else:
            yield " ".join(line.strip() for line in lines)


def _records(
    command: click.Command, ctx: click.Context, params: list[click.Parameter] | None = None
) -> list[tuple[str, str]]:
    options = [p for p in (command.params if params is None else params) if isinstance(p, click.Option)]
    records = [option.get_help_record(ctx) for option in options]
    return [record for record in records if record is not None]


def _table(records: list[tuple[str, str]]) -> Iterator[str]:
    bar = r"\|"  # also where it stands in code, a bar ends a cell
    yield "| option | |"
    yield "|---|---|"
    for option, text in records:
        cells = (f"`{option}`", " ".join(text.split()))
        yield f"| {' | '.join(cell.replace('|', bar) for cell in cells)} |"


def _variables() -> Iterator[str]:
    """Which variables are read, and the options that they stand for."""
    options: dict[str, str] = {}
    top = click.Context(mesh, info_name="mesh")
    for name in COMMANDS:
        command = mesh.get_command(top, name)
        for parameter in command.params if command is not None else ():
            if isinstance(parameter, click.Option) and isinstance(parameter.envvar, str):
                longest = max(parameter.opts, key=len)
                options.setdefault(parameter.envvar, f"`{longest}`")
    yield "| variable | stands for |"
    yield "|---|---|"
    for variable, text in sorted({**options, **_VARIABLES}.items()):
        yield f"| `{variable}` | {text} |"


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(rewritten(file.read_text(encoding="utf-8")), encoding="utf-8")
