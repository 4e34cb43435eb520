"""What docs/search.md says is so: its examples find what stands behind them, its errors look like that."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any, Final

import click
import pytest

from mesh.events import EndRecord, Event, Parent, StartSpec
from mesh.instants import parse_iso_ns
from mesh.listing import STATUSES, ListQuery
from mesh.subjects import token
from node.cli.listing import count, ls
from store import filters
from store.filters import FilterError, parse_filter
from store.projection import QUERY_S_MAX, VALUES_CHARACTERS_MAX, Projection, open_projection
from store.runs import SEARCHED_CHARACTERS_MAX, SEARCHED_VALUES_MAX

TEXT: Final = (Path(__file__).parent.parent / "docs" / "search.md").read_text(encoding="utf-8")
NOW_NS: Final = parse_iso_ns("2026-11-25T12:00:00Z")
QUEUE: Final = "orders"


def _blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def _examples() -> list[tuple[str, list[str]]]:
    lines = [line for block in _blocks("where") for line in block.splitlines()]
    return [(where.strip(), found.strip().split(", ")) for where, _, found in (line.partition("-->") for line in lines)]


@pytest.fixture(scope="module")
def projection() -> Projection:
    """The workflows of the document."""
    happened: list[tuple[int, str, str, Any]] = []
    for line in _blocks("json")[0].splitlines():
        said = json.loads(line)
        parent = Parent(QUEUE, said["parent"], 1, 1) if "parent" in said else None
        spec = StartSpec(
            workflow=said["type"], attrs=said.get("attrs", {}), memo=said.get("memo", {}), parent=parent,
            attempt=said.get("attempt", 1),
        )  # fmt: skip
        happened.append((parse_iso_ns(said["started"]), said["id"], "start", spec.encode()))
        if "ended" in said:
            happened.append((parse_iso_ns(said["ended"]), said["id"], "end", EndRecord(said["status"]).encode()))
    events = []
    runs: dict[str, int] = {}
    for seq, (at_ns, id, kind, data) in enumerate(sorted(happened, key=lambda fact: fact[0]), 1):
        runs.setdefault(id, seq)
        events.append(Event(kind, token(id), seq, at_ns, [str(runs[id])] if kind == "end" else [], data, None))
    made = open_projection(None)
    made.begin(QUEUE, "created")
    made.take_in(QUEUE, events, len(events), NOW_NS)
    return made


@pytest.mark.parametrize(("where", "found"), _examples(), ids=lambda value: value if isinstance(value, str) else "")
def test_an_example_finds_what_stands_behind_it(projection: Projection, where: str, found: list[str]) -> None:
    page = projection.page(ListQuery(where=where), NOW_NS)
    assert [record["id"] for record in page.workflows] == found


def test_commands_are_right_and_their_filters_can_be_read() -> None:
    lines = [shlex.split(line, comments=True) for block in _blocks("sh") for line in block.splitlines()]
    commands = [line[1:] for line in lines if line and line[0] == "mesh"]
    assert len(commands) > 6
    for words in commands:
        command: click.Command = {"ls": ls, "count": count}[words[0]]
        ended = words.index("|") if "|" in words else len(words)
        with command.make_context(words[0], words[1:ended]) as ctx:
            if ctx.params.get("where"):
                assert parse_filter(ctx.params["where"], NOW_NS) is not None


def test_error_looks_as_it_is_shown() -> None:
    (console,) = _blocks("console")
    command, _, shown = console.partition("\n")
    where = shlex.split(command)[-1]
    with pytest.raises(FilterError) as raised:
        parse_filter(where, NOW_NS)
    assert f"Error: {raised.value}" == shown.rstrip("\n")


def test_every_field_operator_state_and_limit_is_named() -> None:
    prose = re.sub(r"^```.*?^```$", "", TEXT, flags=re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"`([^`\n]+)`", prose))
    assert set(filters.FIELDS) <= named
    assert set(STATUSES) <= named
    for operator in filters.OPERATORS:
        assert any(name.split()[0] == operator for name in named)
    for limit in (
        filters.CHARACTERS_MAX, filters.CONDITIONS_MAX, filters.DEPTH_MAX, filters.VALUES_MAX, filters.WILDCARDS_MAX,
        QUERY_S_MAX, SEARCHED_VALUES_MAX, SEARCHED_CHARACTERS_MAX, VALUES_CHARACTERS_MAX,
    ):  # fmt: skip
        assert f"{int(limit):,}" in TEXT, limit
