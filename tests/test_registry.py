"""Loading a registry: which files count, the shape of entries, file:// values, problems, checking, fingerprints."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mesh.errors import MeshError, NotFound
from node.registry import EntryId, Problem, Registry, RegistryError, check_registry, content_fingerprint, load_registry


def app(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def load(root: Path, files: dict[str, str]) -> Registry:
    return load_registry(app(root, files), environ={})


def told(registry: Registry, root: Path) -> list[str]:
    """Return the problems as lines, files relative to the root."""
    return [str(p).removeprefix(f"{root.resolve()}/") for p in registry.problems]


DATA_ENTRY = "namespace: a\nentries:\n  - {name: x, kind: registry.entry, n: 1}\n"


def test_every_registry_file_is_read_and_everything_else_is_not(tmp_path: Path) -> None:
    registry = load(
        tmp_path,
        {
            "one.yaml": "namespace: a\nentries: [{name: x, kind: registry.entry}]",
            "deep/er/two.yml": "namespace: a\nentries: [{name: y, kind: registry.entry}]",
            "three.json": '{"namespace": "b.c", "entries": [{"name": "z", "kind": "registry.entry"}]}',
            "single.yaml": "version: '1'\nnamespace: a\nname: s\nkind: registry.entry\nmeta: {k: 1}\nv: 2\n",
            "foreign.yaml": "services: {web: {image: x}}\nentries: 5\n",
            "list.json": "[1, 2]",
            "empty.yaml": "",
            "notes.txt": "namespace: no",
            "node_modules/pkg/m.yaml": "namespace: no\nentries: [{name: x, kind: y}]",
            ".git/g.yaml": "namespace: [broken",
        },
    )
    assert list(registry.entries) == ["a:s", "a:x", "a:y", "b.c:z"]
    assert registry.problems == ()
    single = registry.entries[EntryId("a:s")]
    assert (single.namespace, single.name, single.kind) == ("a", "s", "registry.entry")
    assert (single.meta, single.data) == ({"k": 1}, {"v": 2})


def test_an_entry_has_its_data_meta_file_and_line(tmp_path: Path) -> None:
    registry = load(
        tmp_path,
        {
            "i.yaml": "namespace: a\nmeta: {team: core, tier: 1}\nentries:\n"
            "  - name: x\n    kind: registry.entry\n    meta: {tier: 2}\n    secret: ${env:TOKEN}\n"
            "  - kind: registry.entry\n    name: y\n    ignored: 1\n    data: {deep: [1, on]}\n"
        },
    )
    x, y = registry.entries.values()
    assert (x.meta, x.data) == ({"team": "core", "tier": 2}, {"secret": "${env:TOKEN}"})
    assert (y.meta, y.data) == ({"team": "core", "tier": 1}, {"deep": [1, "on"]})
    assert (x.file, x.line, y.line) == (tmp_path.resolve() / "i.yaml", 4, 9)
    assert [y.line_of(("deep", 1)), y.line_of(("meta", "team"))] == [11, 9]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("namespace: a\nentries:\n  - [1\n", ["bad.yaml:4: not valid YAML: "]),
        ("namespace: 5\n", ["bad.yaml:1: namespace must be a text"]),
        ("namespace: a..b\n", ["bad.yaml:1: bad namespace 'a..b'"]),
        ("namespace: a\nmeta: 1\n", ["bad.yaml:2: meta must be a mapping"]),
        ("namespace: a\nentries: {x: 1}\n", ["bad.yaml:2: entries must be a list"]),
        ("namespace: a\nentires: []\n", ["bad.yaml:2: unknown field 'entires'; did you mean 'entries'?"]),
        (
            "namespace: a\nentries:\n  - 5\n  - name: x\n  - kind: k\n    nmae: x\n",
            [
                "bad.yaml:3: an entry must be a mapping",
                "bad.yaml:4: a:x: kind is missing",
                "bad.yaml:5: name is missing; is 'nmae' meant to be it?",
            ],
        ),
        ("namespace: a\nentries:\n  - {name: 'x*', kind: k}\n", ["bad.yaml:3: a:x*: bad name 'x*'"]),
        ("namespace: a\nentries:\n  - {name: 'b:c', kind: k}\n", ["bad.yaml:3: a:b:c: bad name 'b:c'"]),
        ("namespace: a\nentries:\n  - {name: 5, kind: k}\n", ["bad.yaml:3: name must be a text"]),
        ("namespace: a\nname: x\n", ["bad.yaml:1: a:x: kind is missing"]),
        (
            "namespace: a\nentries:\n  - {name: x, kind: k,\n    meta: []}\n",
            ["bad.yaml:4: a:x: meta must be a mapping"],
        ),
    ],
)
def test_an_invalid_file_is_skipped_as_a_whole_and_the_others_load(
    tmp_path: Path, text: str, expected: list[str]
) -> None:
    sound = "  - {name: sound, kind: registry.entry}\n" if "entries:\n" in text and "[1" not in text else ""
    registry = load(tmp_path, {"bad.yaml": text + sound, "good.yaml": DATA_ENTRY})
    assert list(registry.entries) == ["a:x"]
    lines = told(registry, tmp_path)
    assert len(lines) == len(expected)
    for line, start in zip(lines, expected, strict=True):
        assert line.startswith(start)


def test_names_may_hold_dots_dashes_and_slashes(tmp_path: Path) -> None:
    registry = load(tmp_path, {"i.yaml": "namespace: a-b.c_d\nentries: [{name: x/y-z_1.v2, kind: registry.entry}]"})
    assert (list(registry.entries), registry.problems) == (["a-b.c_d:x/y-z_1.v2"], ())


def test_the_first_of_two_entries_with_one_id_is_kept(tmp_path: Path) -> None:
    registry = load(tmp_path, {"b.yaml": DATA_ENTRY.replace("n: 1", "n: 2"), "a.yaml": DATA_ENTRY})
    assert registry.entries[EntryId("a:x")].data == {"n": 1}
    assert told(registry, tmp_path) == [
        f"b.yaml:3: a:x: duplicate id, first defined at {tmp_path.resolve() / 'a.yaml'}:3"
    ]


def test_several_roots_make_one_registry_and_overlap_does_no_harm(tmp_path: Path) -> None:
    app(tmp_path, {"one/a.yaml": DATA_ENTRY, "two/b.yaml": DATA_ENTRY.replace("name: x", "name: y")})
    registry = load_registry([tmp_path / "one", tmp_path, tmp_path / "two"], environ={})
    assert (list(registry.entries), registry.problems) == (["a:x", "a:y"], ())


def test_a_missing_root_is_a_problem(tmp_path: Path) -> None:
    registry = load_registry(tmp_path / "none", environ={})
    assert [str(p) for p in registry.problems] == [f"{tmp_path / 'none'}:1: is not a directory"]


def test_file_values_are_replaced_at_any_depth(tmp_path: Path) -> None:
    registry = load(
        tmp_path,
        {
            "x/i.yaml": "namespace: a\nentries:\n  - name: e\n    kind: registry.entry\n"
            "    meta: {doc: 'file://d.md'}\n"
            "    deep: [{up: 'file://../lib/u.txt'}]\n    top: file:///lib/u.txt\n    inline: not file://x\n",
            "x/d.md": "# doc",
            "lib/u.txt": "${HOME} stays",
        },
    )
    entry = registry.entries[EntryId("a:e")]
    assert registry.problems == ()
    assert entry.meta == {"doc": "# doc"}
    assert entry.data == {"deep": [{"up": "${HOME} stays"}], "top": "${HOME} stays", "inline": "not file://x"}
    assert entry.included == {
        ("meta", "doc"): "x/d.md",
        ("deep", 0, "up"): "lib/u.txt",
        ("top",): "lib/u.txt",
    }


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("file://none.lua", "no such file"),
        ("file://../../outside.lua", "leaves the source directory"),
        ("file:///../outside.lua", "leaves the source directory"),
        ("file://link.lua", "leaves the source directory"),
        ("file://latin1.lua", "not UTF-8 text (byte 1)"),
        ("file://.", "Is a directory"),
    ],
)
def test_a_file_that_cannot_be_had_is_a_problem_of_its_entry_alone(tmp_path: Path, source: str, reason: str) -> None:
    app(tmp_path, {"outside.lua": "return 1"})
    root = app(
        tmp_path / "src",
        {
            "x/i.yaml": "namespace: a\nentries:\n"
            f"  - name: bad\n    kind: library.lua\n    source: {source}\n"
            "  - {name: good, kind: library.lua, source: return 1}\n"
        },
    )
    (root / "x" / "latin1.lua").write_bytes(b"-\xe9")
    (root / "x" / "link.lua").symlink_to(tmp_path / "outside.lua")
    registry = load_registry(root, environ={})
    assert told(registry, root) == [f"x/i.yaml:5: a:bad: source: {source}: {reason}"]
    assert list(registry.libraries()) == ["a:good"]
    assert registry.entries[EntryId("a:bad")].data == {"source": source}


def test_strict_loading_raises_with_every_problem(tmp_path: Path) -> None:
    app(tmp_path, {"a.yaml": "namespace: 5", "b.yaml": "namespace: b\nentries: 1", "c.yaml": DATA_ENTRY})
    with pytest.raises(RegistryError) as caught:
        load_registry(tmp_path, strict=True, environ={})
    root = tmp_path.resolve()
    assert str(caught.value) == (
        "2 problems in the registry:\n"
        f"  {root}/a.yaml:1: namespace must be a text\n"
        f"  {root}/b.yaml:2: entries must be a list"
    )
    assert len(caught.value.problems) == 2
    assert isinstance(caught.value, MeshError)


def test_strict_loading_of_a_sound_app_gives_the_registry(tmp_path: Path) -> None:
    assert list(load_registry(app(tmp_path, {"c.yaml": DATA_ENTRY}), strict=True, environ={}).entries) == ["a:x"]


def test_get_kind_and_references(tmp_path: Path) -> None:
    registry = load(
        tmp_path,
        {
            "i.yaml": "namespace: a\nentries:\n  - {name: c, kind: mesh.client, address: 'nats://h'}\n"
            "  - {name: d, kind: temporal.client, address: 'nats://h'}\n  - {name: x, kind: registry.entry}\n"
        },
    )
    assert list(registry.of_kind("temporal.client")) == list(registry.of_kind("mesh.client")) == ["a:c", "a:d"]
    found = registry.get("a:c")
    assert found is not None
    assert found.kind == "mesh.client"
    assert registry.get("a:none") is None
    assert [registry.resolve(r, "a") for r in ("x", "a:x", "b:x", "none")] == ["a:x", "a:x", None, None]
    assert registry.resolve("x", "b") is None
    with pytest.raises(NotFound):
        registry.code_unit("a:x")


def test_an_unknown_kind_is_data_with_a_note(tmp_path: Path) -> None:
    registry = load(
        tmp_path,
        {
            "i.yaml": "namespace: a\nentries:\n  - {name: x, kind: http.router}\n"
            "  - {name: y,\n     kind: functon.lua}\n"
        },
    )
    assert list(registry.entries) == ["a:x", "a:y"]
    assert registry.problems == ()
    assert [str(n).partition("i.yaml:")[2] for n in registry.notes] == [
        "3: a:x: kind 'http.router' has no handler, kept as data",
        "5: a:y: kind 'functon.lua' has no handler, kept as data; did you mean 'function.lua'?",
    ]


def test_modules_that_code_requires_and_the_entry_does_not_list_are_noted(tmp_path: Path) -> None:
    registry = load(
        tmp_path,
        {
            "i.yaml": "namespace: a\nentries:\n"
            "  - {name: f, kind: function.lua, source: 'file://f.lua', method: f, modules: [time], imports: {l: l}}\n"
            "  - {name: l, kind: library.lua, source: 'return require(\"json\")', modules: [json]}\n",
            "f.lua": "local t, j = require('time'), require('json')\n-- require('sql')\nlocal e = require(\"errors\")\n"
            "local w = require 'workflow'\nlocal l, s = require('l'), require('string')\nreturn { f = print }",
        },
    )
    assert registry.problems == ()
    assert [str(n).partition(f"{tmp_path.name}/")[2] for n in registry.notes] == [
        "f.lua:4: a:f: the code requires 'workflow', which the entry does not list under `modules`",
    ]


def test_calls_of_functions_that_the_app_has_not_are_noted(tmp_path: Path) -> None:
    registry = load(
        tmp_path,
        {
            "i.yaml": "namespace: a\nentries:\n"
            "  - {name: charge, kind: function.lua, source: 'file://f.lua', method: f, modules: [funcs]}\n",
            "f.lua": "return { f = function()\n  funcs.call('a:charge', 1) -- funcs.call('a:x')\n"
            "  local later = funcs.async(\"a:chrge\")\n  funcs.call('b:elsewhere')\nend }",
        },
    )
    assert [str(n).partition(f"{tmp_path.name}/")[2] for n in registry.notes] == [
        "f.lua:3: a:charge: the code calls a:chrge, which is no entry; did you mean 'a:charge'?",
    ]


def test_checking_compiles_every_lua_source_once_and_places_the_errors(tmp_path: Path) -> None:
    registry = load(
        tmp_path,
        {
            "x/i.yaml": "namespace: a\nentries:\n"
            "  - {name: f, kind: function.lua, source: 'file://code.lua', method: f}\n"
            "  - {name: g, kind: function.lua, source: 'file://code.lua', method: g}\n"
            "  - {name: w, kind: workflow.lua, source: 'file://w.lua', modules: [nonsense]}\n"
            "  - name: p\n    kind: process.lua\n    source: return 1\n"
            "  - {name: py, kind: function.python, source: 'm:f'}\n"
            "  - {name: data, kind: registry.entry, source: not lua}\n",
            "x/code.lua": "broken",
            "x/w.lua": "broken too",
        },
    )
    compiled: list[tuple[str, str]] = []

    def compile_source(text: str, name: str) -> str | None:
        compiled.append((text, name))
        return None if name == "x/w.lua" else f"{name}:7: unexpected symbol"

    problems = check_registry(registry, compile_source)
    assert compiled == [("broken", "x/code.lua"), ("return 1", "x/i.yaml#p"), ("broken too", "x/w.lua")]
    root = tmp_path.resolve()
    assert problems == (
        Problem(root / "x/code.lua", 7, EntryId("a:f"), "unexpected symbol"),
        Problem(root / "x/i.yaml", 5, EntryId("a:w"), "unknown module 'nonsense'"),
        Problem(root / "x/i.yaml", 8, EntryId("a:p"), "x/i.yaml#p:7: unexpected symbol"),
    )
    assert problems[1:2] == registry.problems


def test_the_fingerprint_tells_content_apart_and_nothing_else(tmp_path: Path) -> None:
    lua = "namespace: a\nentries: [{name: f, kind: library.lua, source: 'file://f.lua', meta: {a: 1, b: 2}}]"
    reordered = (
        "# moved\nnamespace: a\nentries:\n- {meta: {b: 2, a: 1}, source: 'file://g.lua', kind: library.lua, name: f}"
    )
    same = [load(tmp_path / "1", {"i.yaml": lua, "f.lua": "return 1"})]
    same.append(load(tmp_path / "2", {"sub/j.yaml": reordered, "sub/g.lua": "return 1"}))
    other = [load(tmp_path / "3", {"i.yaml": lua, "f.lua": "return 2"})]
    other.append(load(tmp_path / "4", {"i.yaml": lua.replace("a: 1", "a: 3"), "f.lua": "return 1"}))
    other.append(load(tmp_path / "5", {"i.yaml": lua.replace("name: f", "name: g"), "f.lua": "return 1"}))
    assert len({content_fingerprint(r) for r in same}) == 1
    assert len({content_fingerprint(r) for r in same + other}) == 4


def test_the_fingerprint_never_changes_for_the_same_content(tmp_path: Path) -> None:
    """Nodes of different releases compare fingerprints; a new form of the hash needs a new format marker."""
    fingerprint = content_fingerprint(load(tmp_path, {"i.yaml": DATA_ENTRY}))
    assert fingerprint == "17bcda3a33cd1f8372bad01769dfdab560714df17eae5c7bc844dedd1156b6bf"


def test_an_app_of_200_entries_loads_in_well_under_a_second(tmp_path: Path) -> None:
    entry = (
        "  - name: f{n}\n    kind: function.lua\n    source: file://f.lua\n    method: run\n    modules: [json, time]\n"
        "    imports: {{ money: lib }}\n    meta: {{ type: pricing }}\n"
    )
    files = {"lib.yaml": "namespace: a\nname: lib\nkind: library.lua\nsource: return {}\n", "f.lua": "return {}"}
    files["i.yaml"] = "namespace: a\nentries:\n" + "".join(entry.format(n=n) for n in range(200))
    app(tmp_path, files)
    started = time.process_time()
    registry = load_registry(tmp_path, strict=True, environ={})
    used_s = time.process_time() - started
    assert len(registry.functions()) == 200
    assert used_s < 2.5  # about 0.5 s on an idle machine; this only catches a change of order
