"""How the conformance suite reads its files: what a behaviour may say of itself, and what it must."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from mesh.failure import Failure
from tests.lua.behaviour import (
    FUNCTION_MODULES,
    PROCESSES,
    WORKER,
    WORKFLOW_MODULES,
    BadBehaviour,
    behaviour_files,
    read_behaviour,
)
from tests.lua.suite import AS_PROCESS, ONE_NODE, OWNER_KILLED, TWO_NODES, Outcome, modes_of

RULE = "-- 6.2 The first ready case is taken."


def written(tmp_path: Path, *lines: str) -> Path:
    file = tmp_path / "06-channels" / "select_is_fair.lua"
    file.parent.mkdir()
    file.write_text("\n".join((*lines, "return function() end")))
    return file


def test_behaviour_is_a_function_with_every_module_on_one_node_and_on_two(tmp_path: Path) -> None:
    behaviour = read_behaviour(written(tmp_path, RULE))
    assert (behaviour.section, behaviour.rule) == ("6.2", "The first ready case is taken.")
    fields = {
        "name": "06-channels.select_is_fair", "kind": "function.lua", "source": "file://06-channels/select_is_fair.lua",
        "method": "main", "modules": list(FUNCTION_MODULES), "imports": {"check": "lua.support:check"},
    }  # fmt: skip
    as_process = {"name": "06-channels.select_is_fair.as_process", "kind": "process.lua"}
    assert behaviour.entries() == [fields, fields | as_process | {"meta": {"default_host": PROCESSES}}]
    assert modes_of(behaviour) == [ONE_NODE, AS_PROCESS, TWO_NODES]


def test_workflow_has_the_modules_it_may_use_and_its_owner_is_killed(tmp_path: Path) -> None:
    behaviour = read_behaviour(written(tmp_path, RULE, "-- Any further words.", "-- as: workflow"))
    (entry,) = behaviour.entries()
    assert entry["kind"] == "workflow.lua"
    assert entry["meta"] == {"mesh.workflow.worker": WORKER}
    assert entry["modules"] == list(WORKFLOW_MODULES)
    assert {"env", "store", "registry"}.isdisjoint(WORKFLOW_MODULES)
    assert modes_of(behaviour) == [ONE_NODE, OWNER_KILLED]


@pytest.mark.parametrize(
    ("directive", "modes"),
    [
        ("-- as: process", [ONE_NODE]),
        ("-- nodes: one, because it looks at what is local", [ONE_NODE, AS_PROCESS]),
        ("-- process: never, because it is about function calls", [ONE_NODE, TWO_NODES]),
    ],
)
def test_modes_can_be_narrowed(tmp_path: Path, directive: str, modes: list[str]) -> None:
    assert modes_of(read_behaviour(written(tmp_path, RULE, directive))) == modes


def test_workflow_can_be_spared_the_kill_with_a_reason(tmp_path: Path) -> None:
    behaviour = read_behaviour(
        written(tmp_path, RULE, "-- as: workflow", "-- kill: never, because its process dies too")
    )
    assert modes_of(behaviour) == [ONE_NODE]


def test_modules_and_imports_are_as_they_are_said(tmp_path: Path) -> None:
    file = written(tmp_path, RULE, "-- modules: time, json", "-- imports: cash=lua.support:money")
    entry = read_behaviour(file).entries()[0]
    assert entry["modules"] == ["time", "json"]
    assert entry["imports"] == {"check": "lua.support:check", "cash": "lua.support:money"}


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ((), "1: the first line has to name the rule"),
        (("-- The first ready case is taken.",), "1: the first line has to name the rule"),
        ((RULE, "-- as: actor"), "2: `as` is said once, as one of function, process, workflow"),
        ((RULE, "-- as: process", "-- as: process"), "3: `as` is said once"),
        ((RULE, "-- imports: money"), "`imports` are written alias=lua.support:name"),
        ((RULE, "-- nodes: one"), "`nodes` is written `-- nodes: one, because ...`"),
        ((RULE, "-- kill: sometimes, perhaps"), "`kill` is written `-- kill: never, because ...`"),
    ],
)
def test_file_that_says_something_else_is_refused_with_its_place(
    tmp_path: Path, lines: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(BadBehaviour, match=r"select_is_fair\.lua:") as caught:
        read_behaviour(written(tmp_path, *lines))
    assert reason in str(caught.value)


def test_no_two_behaviours_have_the_same_entry() -> None:
    ids = [read_behaviour(file).id for file in behaviour_files()]
    assert len(ids) == len(set(ids))


def test_outcome_of_a_failure_shows_where_it_happened() -> None:
    stack = "x.lua:3: got 1, wanted 2\n\tx.lua:3: in main function"
    assert Outcome.of(Failure("x.lua:3: got 1, wanted 2", "Internal", stack=stack)).text == stack
    assert Outcome.of(Failure("sold out", "Conflict")).text.strip() == "Conflict: sold out"


def test_every_section_of_the_contract_has_behaviours() -> None:
    """Sections 1 to 15, by the numbers that the directories' names begin with."""
    sections = Counter(int(file.parent.name.partition("-")[0]) for file in behaviour_files())
    assert set(sections) == set(range(1, 16))
    assert sections.total() >= 250
