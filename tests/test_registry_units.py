"""Code units: libraries in order, circles, broken imports, modules a workflow may not reach."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.registry import CodeUnit, Registry, load_registry
from node.registry.modules import workflow_fault


def load(root: Path, entries: str) -> Registry:
    (root / "i.yaml").write_text(f"namespace: a\nentries:\n{entries.strip(chr(10))}\n", encoding="utf-8")
    return load_registry(root, environ={})


def library(name: str, fields: str = "") -> str:
    return f"  - {{name: {name}, kind: library.lua, source: return '{name}', {fields}}}\n"


def test_a_unit_has_every_library_once_and_dependencies_first(tmp_path: Path) -> None:
    registry = load(
        tmp_path,
        "  - {name: w, kind: workflow.lua, source: 'file://w.lua', modules: [time],\n"
        "     imports: {two: two, one: 'a:one'}}\n"
        + library("one", "imports: {base: base, extra: extra}, modules: [json]")
        + library("two", "imports: {b: base}")
        + library("base")
        + library("extra", "imports: {base: base}")
        + library("unused"),
    )
    (tmp_path / "w.lua").write_text("return 'w'")
    registry = load_registry(tmp_path, strict=True, environ={})

    def unit(name: str, imports: dict[str, str], modules: tuple[str, ...] = ()) -> CodeUnit:
        entry_id = registry.resolve(name, "a")
        assert entry_id is not None
        targets = tuple((alias, t) for alias, ref in imports.items() if (t := registry.resolve(ref, "a")))
        return CodeUnit(entry_id, f"return '{name}'", f"i.yaml#{name}", None, modules, targets)

    base, two = unit("base", {}), unit("two", {"b": "base"})
    extra = unit("extra", {"base": "base"})
    one = unit("one", {"base": "base", "extra": "extra"}, ("json",))
    w = registry.code_unit("a:w")
    assert (w.entry_id, w.source_text, w.source_name, w.method) == ("a:w", "return 'w'", "w.lua", "main")
    assert (w.modules, w.imports) == (("time",), (("two", "a:two"), ("one", "a:one")))
    assert w.libraries == (base, two, extra, one)
    assert registry.code_unit("a:extra").libraries == (base,)


def test_a_function_can_be_imported_for_its_value(tmp_path: Path) -> None:
    registry = load(
        tmp_path,
        "  - {name: p, kind: process.lua, source: return 1, imports: {f: f}}\n"
        "  - {name: f, kind: function.lua, source: return 2, method: run}\n",
    )
    libraries = registry.code_unit("a:p").libraries
    assert [(u.entry_id, u.method) for u in libraries] == [("a:f", None)]
    assert registry.code_unit("a:f").method == "run"


def told(registry: Registry) -> list[str]:
    return [str(p).partition("i.yaml:")[2] for p in registry.problems]


def test_imports_in_a_circle_leave_out_all_that_need_them(tmp_path: Path) -> None:
    registry = load(
        tmp_path,
        library("x", "imports: {y: y}")
        + library("y", "imports: {z: z}")
        + library("z", "imports: {x: x}")
        + library("self", "imports: {me: self}")
        + library("top", "imports: {x: x}")
        + library("higher", "imports: {top: top}")
        + library("sound"),
    )
    assert told(registry) == [
        "3: a:x: cyclic import: a:x -> a:y -> a:z -> a:x",
        "4: a:y: cyclic import: a:y -> a:z -> a:x -> a:y",
        "5: a:z: cyclic import: a:z -> a:x -> a:y -> a:z",
        "6: a:self: cyclic import: a:self -> a:self",
        "7: a:top: imports a:x, which has a problem of its own",
        "8: a:higher: imports a:top, which has a problem of its own",
    ]
    assert list(registry.libraries()) == ["a:sound"]


def test_what_imports_a_broken_library_is_left_out_and_told_for_each_import(tmp_path: Path) -> None:
    registry = load(
        tmp_path,
        library("bad", "modules: [nonsense]")
        + library("gone", "method: x").replace("return 'gone'", "'file://gone.lua'")
        + "  - {name: f, kind: function.lua, source: return 1, method: f, imports: {b: bad, g: gone}}\n",
    )
    assert told(registry) == [
        "3: a:bad: unknown module 'nonsense'",
        "4: a:gone: source: file://gone.lua: no such file",
        "5: a:f: imports a:bad, which has a problem of its own",
        "5: a:f: imports a:gone, which has a problem of its own",
    ]
    assert dict(registry.functions()) == {}


def test_a_workflow_may_not_reach_a_rejected_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules are checked in the entry and in every library it reaches; other kinds may use them."""
    monkeypatch.setattr("node.registry.modules.AVAILABLE", frozenset({"env", "store", "time"}))
    registry = load(
        tmp_path,
        "  - {name: own, kind: workflow.lua, source: return 1, modules: [time, env]}\n"
        "  - name: through\n    kind: workflow.lua\n    source: return 1\n"
        "    imports:\n      good: good\n      first: first\n"
        "  - {name: fine, kind: workflow.lua, source: return 1, modules: [time], imports: {good: good}}\n"
        "  - {name: f, kind: function.lua, source: return 1, method: f, modules: [env], imports: {first: first}}\n"
        + library("first", "imports: {deep: deep}")
        + library("deep", "modules: [store]")
        + library("good", "modules: [time]"),
    )
    way_out = "put the code that needs it in a function and call that with funcs.call"
    why = "its results are not recorded and a replay would differ"
    assert told(registry) == [
        f"3: a:own: module 'env' is not allowed in workflows, {why}; {way_out}",
        f"9: a:through: library a:deep: module 'store' is not allowed in workflows, {why}; {way_out}",
    ]
    assert list(registry.workflows()) == ["a:fine"]
    assert list(registry.functions()) == ["a:f"]


@pytest.mark.parametrize(
    ("allowed", "names"),
    [
        (True, "base64 compress expr hash html json payload template text treesitter yaml"),
        (True, "contract crypto ctx funcs os process time uuid workflow channel errors string table math coroutine"),
        (False, "logger env events store queue registry security sql http http_client fs io exec metrics system"),
        (False, "stream pg tty websocket eval excel cloudstorage hub cdc"),
    ],
)
def test_the_modules_of_workflows(allowed: bool, names: str) -> None:
    assert {workflow_fault(name) is None for name in names.split()} == {allowed}
