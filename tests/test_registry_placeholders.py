"""Placeholders and the variables behind them."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.registry import EntryId, load_registry
from node.registry.environment import parse_env_file
from node.registry.placeholders import BadPlaceholder, Substituted, substitute

VARIABLES = {"A": "1", "ns:b": "two", "EMPTY": ""}


def lookup(name: str) -> str | None:
    return VARIABLES.get(name) or None


@pytest.mark.parametrize(
    ("text", "result", "whole"),
    [
        ("plain", "plain", False),
        ("${env:A}", "1", True),
        ("${env:ns:b}", "two", True),
        ("${env:A|9}", "1", True),
        ("${env:NONE|9}", "9", True),
        ("${env:EMPTY|9}", "9", True),
        ("${env:NONE|}", "", True),
        ("${A|9}", "1", True),
        ("${NONE|9}", "9", True),
        ("${A}", "1", True),
        ("x${env:A}-${NONE|y}z", "x1-yz", False),
        ("${env:A}${env:A}", "11", False),
        ("$${env:A}", "${env:A}", False),
        ("$${", "${", False),
        ("a $${b} ${A|x}", "a ${b} 1", False),
        ("${lower}", "${lower}", False),
        ("${lower|x}", "${lower|x}", False),
        ("$A {A} ${}", "$A {A} ${}", False),
    ],
)
def test_each_form_gives_its_value(text: str, result: str, whole: bool) -> None:
    """Only a text that is one placeholder and nothing else may be read as a number later."""
    replaced = substitute(text, lookup)
    assert replaced == result
    assert isinstance(replaced, Substituted) is whole


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("${env:NONE}", "variable 'NONE' has no value"),
        ("${env:EMPTY}", "variable 'EMPTY' has no value"),
        ("x ${NONE} y", "variable 'NONE' has no value"),
        ("${env:}", "names no variable"),
        ("a ${env:A", "has no closing brace"),
    ],
)
def test_a_placeholder_without_value_or_end_is_refused(text: str, reason: str) -> None:
    with pytest.raises(BadPlaceholder, match=reason):
        substitute(text, lookup)


def test_the_value_of_a_placeholder_is_not_read_again() -> None:
    assert substitute("${env:X}", {"X": "${env:A} $${"}.get) == "${env:A} $${"


ENVIRONMENT = """
namespace: cfg
entries:
  - {name: os, kind: env.storage.os}
  - {name: memory, kind: env.storage.memory}
  - {name: fixed, kind: env.storage.static, values: {HOST: fixed-host, PORT: 99, ON: true, BLANK: ""}}
  - {name: file, kind: env.storage.file, file_path: app.env}
  - {name: missing, kind: env.storage.file, file_path: none.env}
  - {name: router, kind: env.storage.router, storages: [missing, file, "cfg:fixed"]}
  - {name: host, kind: env.variable, variable: HOST, storage: fixed}
  - {name: port, kind: env.variable, variable: PORT, storage: router, default: 1}
  - {name: user, kind: env.variable, variable: USER_NAME, storage: router}
  - {name: blank, kind: env.variable, variable: BLANK, storage: fixed, default: filled}
  - {name: home, kind: env.variable, variable: HOME_DIR, storage: os}
  - {name: only.id, kind: env.variable, storage: memory, default: by-id}
  - {name: nothing, kind: env.variable, variable: NOTHING, storage: memory}
"""


def test_variables_come_from_their_storages_and_then_their_defaults(tmp_path: Path) -> None:
    (tmp_path / "env.yaml").write_text(ENVIRONMENT)
    (tmp_path / "app.env").write_text("# comment\nUSER_NAME = 'Ada L'\nexport PORT=42\n")
    registry = load_registry(
        tmp_path, environ={"HOME_DIR": "/home/ada", "HOST": "os-host", "PLAIN": "os", "NOTHING": "os", "NIL": ""}
    )
    assert registry.problems == ()
    names = ["HOST", "cfg:host", "host", "PORT", "USER_NAME", "BLANK", "HOME_DIR", "only.id", "PLAIN", "NIL", "NOTHING"]
    assert [registry.environment.get(name, "cfg") for name in names] == [
        "fixed-host",
        "fixed-host",
        "fixed-host",
        "42",
        "Ada L",
        "filled",
        "/home/ada",
        "by-id",
        "os",
        None,
        None,  # an entry of that name exists, so the OS is not asked
    ]
    assert registry.environment.get("only.id", "elsewhere") is None
    assert registry.environment.by_id[EntryId("cfg:port")].readonly is False


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("{name: v, kind: env.variable, variable: A-B}", "variable must be of letters, digits and _, not 'A-B'"),
        ("{name: v, kind: env.variable, storage: none}", "storage: no entry a:none"),
        ("{name: v, kind: env.variable, storage: 'a:w'}", "storage: a:w is a env.variable, not an env.storage"),
        ("{name: v, kind: env.variable, variable: TAKEN}", "variable 'TAKEN' is already that of a:u"),
        ("{name: v, kind: env.variable, default: [1]}", "default must be a text"),
        ("{name: v, kind: env.variable, readonly: 1}", "readonly must be true or false"),
        ("{name: v, kind: env.storage.static, values: [1]}", "values must map names to texts"),
        ("{name: v, kind: env.storage.file}", "file_path is required and must be a text"),
        ("{name: v, kind: env.storage.router, storages: x}", "storages is required and must be a list of ids"),
    ],
)
def test_faults_of_env_entries_are_problems(tmp_path: Path, entry: str, reason: str) -> None:
    others = "  - {name: u, kind: env.variable, variable: TAKEN}\n  - {name: w, kind: env.variable}\n"
    (tmp_path / "i.yaml").write_text(f"namespace: a\nentries:\n{others}  - {entry}\n")
    registry = load_registry(tmp_path, environ={})
    assert [str(p) for p in registry.problems] == [f"{tmp_path.resolve()}/i.yaml:5: a:v: {reason}"]


def test_routers_in_a_circle_find_nothing_and_end(tmp_path: Path) -> None:
    (tmp_path / "i.yaml").write_text(
        "namespace: a\nentries:\n  - {name: r, kind: env.storage.router, storages: [s]}\n"
        "  - {name: s, kind: env.storage.router, storages: [r]}\n"
        "  - {name: v, kind: env.variable, variable: V, storage: r}\n"
    )
    registry = load_registry(tmp_path, environ={"V": "os"})
    assert (registry.environment.get("V", "a"), registry.problems) == (None, ())


def test_env_files_are_key_value_lines() -> None:
    lines = ["A=1", "  B = two words ", "# C=3", "nothing", "=x", "D=\"q='1'\"", "E=", "F='"]
    assert parse_env_file(lines) == {"A": "1", "B": "two words", "D": "q='1'", "E": "", "F": "'"}
