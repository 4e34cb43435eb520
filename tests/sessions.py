r"""Terminal sessions in documents: what a ```console block shows is typed, and must be what appears.

    $ mesh ls --status running
    ID        TYPE                         STATUS   STARTED
    order-7   app.workflows:order_processor running  3.1s ago

A line that begins with `$ ` is a command (with a `\\` at its end it goes on in the next line), what follows is its output, standard error among it.
Numbers, times and durations may differ, and so may the width of columns; words may not. A line `...` stands for any
number of lines, `...` within a line for any text. A comment in front, `<!-- not run -->`, keeps a block from being run.
Commands of the NATS CLI, which is not there, are not run either: `nats ...`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

COMMAND_TIMEOUT_S: Final = 60.0

_BLOCK = re.compile(r"(?:^<!-- (?P<mark>[^>]+?) -->\n)?^```console\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
# A number, a time, or a duration however many units it has: 17, 21:42:10.6, 49m21s, 4h17m, 2.8ms.
_VARIABLE = re.compile(r"\d+(?:[.:,-]\d+)*(?:(?:(?:ms|[smhd])\d+)*(?:ms|[smhd])\b)?")
_LINES = "..."


@dataclass(frozen=True, slots=True)
class Typed:
    """One command of a session and what the document says that it prints. line: in the document, from 1."""

    command: str
    expected: tuple[str, ...]
    line: int


def sessions(document: Path) -> list[list[Typed]]:
    """The sessions of a document, in order, each a list of commands."""
    text = document.read_text(encoding="utf-8")
    return [
        _commands(block["text"], text.count("\n", 0, block.start("text")) + 1)
        for block in _BLOCK.finditer(text)
        if block["mark"] != "not run"
    ]


def _commands(text: str, first_line: int) -> list[Typed]:
    found: list[tuple[str, list[str], int]] = []
    goes_on = False
    for number, line in enumerate(text.splitlines(), first_line):
        if goes_on:
            command, output, at = found[-1]
            found[-1] = (command + "\n" + line, output, at)
        elif line.startswith("$ "):
            found.append((line[2:], [], number))
        elif found:
            found[-1][1].append(line)
        goes_on = (goes_on or line.startswith("$ ")) and line.endswith("\\")
    return [Typed(command, tuple(output), at) for command, output, at in found]


def type_in(typed: Typed, *, environ: Mapping[str, str], directory: Path) -> str:
    """Run one command in a shell, `mesh` being the project's own; returns what it printed."""
    mesh = f'mesh() {{ "{sys.executable}" -m node "$@"; }}\npython() {{ "{sys.executable}" "$@"; }}\n'
    done = subprocess.run(
        ["bash", "-c", mesh + typed.command],
        env=dict(environ), cwd=directory, check=False, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=COMMAND_TIMEOUT_S,
    )  # fmt: skip
    return done.stdout


def difference(typed: Typed, got: str) -> str | None:
    """What differs between a document and what appeared, for a person; None when it fits."""
    expected = [_shape(line) for line in typed.expected if line.strip()]
    shown = [_shape(line) for line in got.splitlines() if line.strip()]
    if _fits(expected, shown):
        return None
    return "\n".join([f"line {typed.line}: $ {typed.command}", "the document:", *typed.expected, "what appeared:", got])


def _shape(line: str) -> str:
    """A line without what may differ."""
    return re.sub(r"\s+", " ", _VARIABLE.sub("#", line)).strip()


def _fits(expected: list[str], shown: list[str]) -> bool:
    if not expected:
        return not shown
    if expected[0] == _LINES:
        return any(_fits(expected[1:], shown[i:]) for i in range(len(shown) + 1))
    return bool(shown) and _line_fits(expected[0], shown[0]) and _fits(expected[1:], shown[1:])


def _line_fits(expected: str, shown: str) -> bool:
    parts = [re.escape(part) for part in expected.split(_LINES)]
    return re.fullmatch(".*".join(parts), shown) is not None


def differences(session: Iterable[Typed], *, environ: Mapping[str, str], directory: Path) -> list[str]:
    """Type a session in, in order; what did not appear as the document has it."""
    found = []
    for typed in session:
        if typed.command.startswith("nats "):
            continue
        problem = difference(typed, type_in(typed, environ=environ, directory=directory))
        if problem is not None:
            found.append(problem)
    return found


def filled(document: Path, *, environ: Mapping[str, str], directory: Path) -> str:
    """The document with what appears now below each of its commands."""
    text = document.read_text(encoding="utf-8")

    def typed(block: re.Match[str]) -> str:
        if block["mark"] == "not run":
            return block[0]
        lines = []
        for one in _commands(block["text"], 1):
            lines += [f"$ {one.command}"]
            if one.command.startswith("nats "):
                lines += one.expected
            else:
                lines += type_in(one, environ=environ, directory=directory).splitlines()
        return block[0].replace(block["text"], "\n".join(lines) + "\n")

    return _BLOCK.sub(typed, text)
