"""The module `env`: reading and setting variables, their storages, and the files behind them."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import anyio
import pytest

from node.modules import Refused, env
from node.modules.env import VALUE_BYTES_MAX, write_variable
from node.registry import Registry, load_registry
from node.registry.environment import EnvFile, parse_env_file, with_variable
from tests.units import Units, failure_of

APP = """
namespace: app
entries:
  - {name: os, kind: env.storage.os}
  - {name: memory, kind: env.storage.memory}
  - {name: fixed, kind: env.storage.static, values: {HOST: fixed-host, SHARED: from-static}}
  - {name: file, kind: env.storage.file, file_path: conf/app.env, auto_create: true, file_mode: 0640, dir_mode: 0750}
  - {name: strict, kind: env.storage.file, file_path: strict.env}
  - {name: chain, kind: env.storage.router, storages: [memory, fixed, os]}
  - {name: outer, kind: env.storage.router, storages: [chain, file]}
  - {name: sealed, kind: env.storage.router, storages: [os, memory]}
  - {name: host, kind: env.variable, variable: HOST, storage: chain}
  - {name: mode, kind: env.variable, variable: MODE, storage: memory, default: slow}
  - {name: level, kind: env.variable, variable: LEVEL, storage: file}
  - {name: other, kind: env.variable, variable: OTHER, storage: strict}
  - {name: nested, kind: env.variable, variable: NESTED, storage: outer}
  - {name: private.key, kind: env.variable, storage: memory}
  - {name: locked, kind: env.variable, variable: LOCKED, storage: memory, readonly: true, default: kept}
  - {name: only_default, kind: env.variable, variable: ONLY_DEFAULT, default: d}
  - {name: home, kind: env.variable, variable: HOME_DIR, storage: os}
  - {name: static, kind: env.variable, variable: STATIC, storage: fixed}
  - {name: sealed_in, kind: env.variable, variable: SEALED, storage: sealed}
"""
GET = "return function(name) return env.get(name) end"
SET = "return function(name, value) return env.set(name, value) end"
ENVIRON = {"HOME_DIR": "/home/ada", "PLAIN": "os", "EMPTY": ""}


def load(directory: Path, text: str = APP) -> Registry:
    (directory / "app.yaml").write_text(text)
    registry = load_registry(directory, environ=ENVIRON)
    assert registry.problems == ()
    return registry


@pytest.fixture
def units(tmp_path: Path) -> Units:
    return Units({"env": env.build(load(tmp_path))})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HOST", "fixed-host"), ("app:host", "fixed-host"), ("host", "fixed-host"), ("MODE", "slow"), ("LOCKED", "kept"),
        ("HOME_DIR", "/home/ada"), ("PLAIN", "os"), ("ONLY_DEFAULT", "d"),
    ],
)  # fmt: skip
async def test_a_variable_is_found_by_public_name_id_and_name_in_the_callers_namespace(
    units: Units, name: str, value: str
) -> None:
    assert await units.run(GET, name) == value


async def test_a_bare_name_means_nothing_to_code_of_another_namespace(tmp_path: Path) -> None:
    units = Units({"env": env.build(load(tmp_path))}, entry_id="elsewhere:code")
    assert failure_of(await units.run(GET, "host")) == ("NotFound", "env.get: variable 'host' has no value")
    assert await units.run(GET, "app:host") == "fixed-host"


@pytest.mark.parametrize("name", ["NONE", "app:none", "EMPTY", "private.key", "LEVEL"])
async def test_what_has_no_value_is_not_found(units: Units, name: str) -> None:
    assert failure_of(await units.run(GET, name))[0] == "NotFound"


@pytest.mark.parametrize("name", ["HOST", "app:host", "host", "private.key", "LEVEL", "NESTED"])
async def test_what_was_set_is_read(units: Units, name: str) -> None:
    assert await units.run(SET, name, "new value") is True
    assert await units.run(GET, name) == "new value"


async def test_an_empty_value_counts_as_absent_and_lets_the_default_through(units: Units) -> None:
    assert await units.run(SET, "MODE", "fast") is True
    assert await units.run(GET, "MODE") == "fast"
    assert await units.run(SET, "MODE", "") is True
    assert await units.run(GET, "MODE") == "slow"


async def test_a_router_writes_to_its_first_storage_and_reads_the_first_hit(tmp_path: Path) -> None:
    registry = load(tmp_path)
    units = Units({"env": env.build(registry)})
    await units.run(SET, "HOST", "mine")
    await units.run(SET, "NESTED", "deep")
    assert registry.environment.stored["app:memory"] == {"HOST": "mine", "NESTED": "deep"}  # type: ignore[index]
    await units.run(SET, "HOST", "")
    assert await units.run(GET, "HOST") == "fixed-host"


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("LOCKED", "PermissionDenied", "app:locked is read only"),
        ("HOME_DIR", "PermissionDenied", "app:home: its storage app:os is read only"),
        ("STATIC", "PermissionDenied", "app:static: its storage app:fixed is read only"),
        ("SEALED", "PermissionDenied", "app:sealed_in: its storage app:sealed is read only"),
        ("ONLY_DEFAULT", "PermissionDenied", "app:only_default names no storage to write to"),
        ("NONE", "NotFound", "no env.variable 'NONE'; add one to the registry"),
        ("PLAIN", "NotFound", "no env.variable 'PLAIN'; add one to the registry"),
        ("OTHER", "NotFound", "strict.env does not exist; make it, or set auto_create"),
    ],
)
async def test_what_cannot_be_set_says_why(units: Units, name: str, kind: str, text: str) -> None:
    got, message = failure_of(await units.run(SET, name, "x"))
    assert (got, text in message) == (kind, True), message


@pytest.mark.parametrize("call", ["get('')", "set('', 'x')"])
async def test_an_empty_name_is_invalid(units: Units, call: str) -> None:
    assert failure_of(await units.run(f"return function() return env.{call} end")) == (
        "Invalid",
        "a variable name is required",
    )


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("get(5)", "bad argument #1 to 'get' (string expected, got number)"),
        ("get()", "bad argument #1 to 'get' (string expected, got nil)"),
        ("set('MODE', 5)", "bad argument #2 to 'set' (string expected, got number)"),
        ("set({}, 'x')", "bad argument #1 to 'set' (string expected, got table)"),
    ],
)
async def test_wrong_types_are_raised(units: Units, call: str, text: str) -> None:
    assert failure_of(await units.run(f"return function() env.{call} end")) == ("Internal", f"unit.lua:1: {text}")


@pytest.mark.parametrize("call", ["get('\\xff')", "set('MODE', '\\xff')"])
async def test_bytes_that_are_no_text_are_invalid(units: Units, call: str) -> None:
    kind, text = failure_of(await units.run(f"return function() return env.{call} end"))
    assert (kind, text.endswith("must be UTF-8 text")) == ("Invalid", True)


async def test_get_all_gives_what_the_storages_hold_and_no_defaults(units: Units) -> None:
    await units.run(SET, "SHARED", "x")
    await units.run(SET, "HOST", "mine")
    await units.run(SET, "LEVEL", "5")
    await units.run(SET, "private.key", "secret")
    assert await units.run("return function() return env.get_all() end") == {
        "HOST": "mine", "SHARED": "from-static", "LEVEL": "5", "private.key": "secret", "HOME_DIR": "/home/ada", "PLAIN": "os",
    }  # fmt: skip


async def test_a_value_may_have_so_many_bytes_and_not_one_more(units: Units) -> None:
    assert await units.run(SET, "MODE", "x" * VALUE_BYTES_MAX) is True
    assert failure_of(await units.run(SET, "MODE", "x" * (VALUE_BYTES_MAX + 1)))[0] == "Invalid"


# -- files -------------------------------------------------------------------------------------------------------


async def test_a_file_is_made_with_its_directories_and_modes_and_is_read_by_the_next_node(tmp_path: Path) -> None:
    units = Units({"env": env.build(load(tmp_path))})
    assert await units.run(SET, "LEVEL", " two words ") is True
    file = tmp_path / "conf" / "app.env"
    assert file.read_text() == 'LEVEL=" two words "\n'
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o750
    again = Units({"env": env.build(load(tmp_path))})
    assert await again.run(GET, "LEVEL") == " two words "
    assert list(file.parent.iterdir()) == [file]


async def test_a_file_keeps_its_mode_its_comments_and_what_else_is_in_it(tmp_path: Path) -> None:
    file = tmp_path / "strict.env"
    file.write_text("# settings\nexport OTHER=1\nMORE='2'\nOTHER=3\n")
    file.chmod(0o600)
    link = tmp_path / "link.env"
    link.symlink_to(file)
    units = Units({"env": env.build(load(tmp_path, APP.replace("strict.env", "link.env")))})
    assert await units.run(GET, "OTHER") == "3"
    file.write_text("# settings\nexport OTHER=1\nMORE='changed meanwhile'\nOTHER=3\n")
    assert await units.run(SET, "OTHER", "4") is True
    assert file.read_text() == "# settings\nexport OTHER=1\nMORE='changed meanwhile'\nOTHER=4\n"
    assert (stat.S_IMODE(file.stat().st_mode), link.is_symlink()) == (0o600, True)


async def test_a_value_of_several_lines_does_not_go_into_a_file_and_is_not_set(units: Units) -> None:
    kind, text = failure_of(await units.run(SET, "LEVEL", "a\nb"))
    assert (kind, "more than one line" in text) == ("Invalid", True)
    assert failure_of(await units.run(GET, "LEVEL"))[0] == "NotFound"
    assert await units.run(SET, "MODE", "a\nb") is True


async def test_writers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    names = [f"V{i}" for i in range(10)]
    entries = "".join(f"  - {{name: v{i}, kind: env.variable, variable: V{i}, storage: file}}\n" for i in range(10))
    units = Units({"env": env.build(load(tmp_path, APP + entries))})
    async with anyio.create_task_group() as tasks:
        for name in names:
            tasks.start_soon(units.run, SET, name, "x" + name)
    assert parse_env_file((tmp_path / "conf" / "app.env").read_text().splitlines()) == {
        name: "x" + name for name in names
    }


async def test_a_file_that_cannot_be_written_leaves_the_old_value(tmp_path: Path) -> None:
    (tmp_path / "strict.env").write_text("OTHER=old\n")
    units = Units({"env": env.build(load(tmp_path))})
    (tmp_path / "strict.env").unlink()
    (tmp_path / "strict.env").mkdir()
    kind, text = failure_of(await units.run(SET, "OTHER", "new"))
    assert (kind, "strict.env cannot be written" in text) == ("Internal", True)
    assert await units.run(GET, "OTHER") == "old"


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = EnvFile(tmp_path / "a.env", False, 0o644, 0o755)
    file.path.write_text("A=1\n")

    def fail(_handle: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_variable(file, "A", "2")
    assert (file.path.read_text(), list(tmp_path.iterdir())) == ("A=1\n", [file.path])


@pytest.mark.parametrize(
    "value",
    ["", "x", "two words", " lead", "trail ", '"', '""', "'q'", '"a', "a=b", "# no comment", "$HOME", "ä", "a\tb"],
)
def test_every_value_of_one_line_is_read_back_as_it_was(value: str) -> None:
    text = with_variable("A=1\nB=2\n", "A", value)
    assert parse_env_file(text.splitlines()) == {"A": value, "B": "2"}


@pytest.mark.parametrize("value", ["a\nb", "a\n", "\n", "a\rb", "a\u2028b", "a\x0cb"])
def test_values_with_any_sort_of_line_break_are_refused(value: str) -> None:
    with pytest.raises(ValueError, match="more than one line"):
        with_variable("", "A", value)


@pytest.mark.parametrize(
    ("written", "mode"),
    [
        ("0644", 0o644),
        ("644", 0o644),
        ("'0600'", 0o600),
        ("'600'", 0o600),
        ("'0o644'", 0o644),
        ("0640", 0o640),
        ("0o600", 0o600),
        ("0777", 0o777),
    ],
)
def test_file_modes_are_what_people_mean(tmp_path: Path, written: str, mode: int) -> None:
    (tmp_path / "i.yaml").write_text(
        f"namespace: a\nentries:\n  - {{name: f, kind: env.storage.file, file_path: x, file_mode: {written}}}\n"
    )
    registry = load_registry(tmp_path, environ={})
    assert registry.problems == ()
    assert [file.file_mode for file in registry.environment.files.values()] == [mode]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ("file_mode: 0444", "file_mode must be permissions such as 0644"),
        ("file_mode: 0o644", "file_mode must be permissions such as 0644"),
        ("file_mode: 0400", "file_mode must be permissions such as 0644"),
        ("file_mode: '0888'", "file_mode must be permissions such as 0644"),
        ("dir_mode: rwx", "dir_mode must be permissions such as 0644"),
        ("dir_mode: true", "dir_mode must be permissions such as 0644"),
        ("file_mode: 100644", "file_mode must be permissions such as 0644"),
        ("auto_create: 1", "auto_create must be true or false"),
    ],
)  # fmt: skip
def test_bad_fields_of_a_file_are_problems(tmp_path: Path, fields: str, reason: str) -> None:
    (tmp_path / "i.yaml").write_text(
        f"namespace: a\nentries:\n  - {{name: f, kind: env.storage.file, file_path: x, {fields}}}\n"
    )
    problems = load_registry(tmp_path, environ={}).problems
    assert [reason in str(problem) for problem in problems] == [True], problems


async def test_code_that_asks_for_something_unknown_gets_an_error(units: Units) -> None:
    module: Any = env.build(load_registry([], environ={}))
    with pytest.raises(Refused, match=r"env\.nonsense is not known"):
        await module.ask("nonsense", [], None)
