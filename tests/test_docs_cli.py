"""docs/cli.md says what the commands say, and the help has all of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from node.cli import COMMANDS, SECTIONS, mesh
from node.cli.reference import rewritten
from tests.cluster import PROJECT
from tests.commands import typed

CLI_MD = Path(PROJECT) / "docs" / "cli.md"
# Commands that look at something and leave it as it is.
READING = ("ls", "count", "show", "nodes", "functions", "services", "ps", "check", "doctor", "result")


def every_command() -> Iterator[tuple[str, click.Command]]:
    """All commands with those below them, by what one types."""
    top = click.Context(mesh, info_name="mesh")
    for name in COMMANDS:
        command = mesh.get_command(top, name)
        assert command is not None, name
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {below}", made) for below, made in command.commands.items())


def test_the_reference_is_what_the_commands_say() -> None:
    """After a change of commands: python -m node.cli.reference docs/cli.md."""
    text = CLI_MD.read_text(encoding="utf-8")
    assert text == rewritten(text), "run: python -m node.cli.reference docs/cli.md"


def test_every_command_stands_below_one_heading_of_the_help() -> None:
    listed = [name for names in SECTIONS.values() for name in names]
    assert sorted(listed) == sorted(COMMANDS)


def test_every_command_and_option_says_what_it_is() -> None:
    for name, command in every_command():
        assert command.help, name
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert parameter.help, f"mesh {name} {parameter.opts}"


@pytest.mark.parametrize("name", READING)
def test_what_reads_gives_json_and_says_its_shape(name: str) -> None:
    """As `{field, ...}` in the help of `--json`."""
    [command] = [command for typed, command in every_command() if typed == name]
    [option] = [p for p in command.params if isinstance(p, click.Option) and "--json" in p.opts]
    assert option.help is not None
    assert re.search(r"\{\w+", option.help), option.help


async def test_mesh_alone_and_mesh_help_show_what_people_expect() -> None:
    alone, help_, of_nodes = await typed(), await typed("help"), await typed("help", "nodes")
    assert (alone.status, alone.out) == (0, help_.out)
    assert all(f"\n{title}:\n" in alone.out for title in SECTIONS)
    assert of_nodes.out == (await typed("nodes", "--help")).out
    typo = await typed("help", "nods")
    assert (typo.status, "did you mean nodes?" in typo.err) == (2, True)
    deeper = await typed("help", "nodes", "all")
    assert (deeper.status, "mesh nodes has no commands below it" in deeper.err) == (2, True)
