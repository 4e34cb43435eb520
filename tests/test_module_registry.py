"""The module `registry`: reading, filters, snapshots, versions and changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from node.modules import registry as module
from node.modules.registry import RegistryModule
from node.registry import EntryId, load_registry
from node.registry.finding import PATTERN_CHARS_MAX, BadFilter, Item, read_filter
from node.registry.versions import Unfit, Versions
from tests.units import Units, failure_of

APP = """
namespace: app.shop
meta: {team: core}
entries:
  - {name: pricing, kind: registry.entry, meta: {type: service, tier: 2, on: true, tags: [a, b], mesh: {note: x}}, url: "${env:URL}"}
  - {name: returns, kind: registry.entry, meta: {type: service, tier: 1, tags: [b]}, data: [1, 2]}
  - {name: empty, kind: registry.entry}
  - {name: code, kind: function.lua, method: main, source: "return function() end", meta: {type: helper}}
  - {name: client, kind: mesh.client, address: "nats://x"}
"""


@pytest.fixture
def units(tmp_path: Path) -> Units:
    (tmp_path / "a.yaml").write_text(APP)
    (tmp_path / "b.yaml").write_text(
        "namespace: other\nentries:\n  - {name: pricing, kind: registry.entry, meta: {type: mock}}\n"
    )
    registry = load_registry(tmp_path, environ={})
    return Units({"registry": module.build(registry)}, entry_id="app.shop:code")


async def lua(units: Units, body: str, *args: Any) -> Any:
    return await units.run(f"return function(...) {body} end", *args)


async def test_get_gives_an_entry_with_its_placeholders_as_written(units: Units) -> None:
    assert await lua(units, "return registry.get('app.shop:pricing')") == {
        "id": "app.shop:pricing", "kind": "registry.entry", "data": {"url": "${env:URL}"},
        "meta": {"team": "core", "type": "service", "tier": 2, "on": True, "tags": ["a", "b"], "mesh": {"note": "x"}},
    }  # fmt: skip
    assert await lua(units, "return registry.get('returns').data") == [1, 2]


@pytest.mark.parametrize(
    ("entry_id", "kind"), [("a:none", "NotFound"), ("none", "NotFound"), ("", "Invalid"), ("a:b:c", "NotFound")]
)
async def test_get_of_what_is_not_there(units: Units, entry_id: str, kind: str) -> None:
    assert failure_of(await lua(units, "return registry.get(...)", entry_id))[0] == kind


@pytest.mark.parametrize(
    ("filter_text", "found"),
    [
        ("{['.kind'] = 'registry.entry'}", ["app.shop:empty", "app.shop:pricing", "app.shop:returns", "other:pricing"]),
        ("{['.kind'] = 'registry.*', ['.ns'] = 'other'}", ["other:pricing"]),
        ("{['.kind'] = 'temporal.client'}", ["app.shop:client"]),
        ("{['.kind'] = 'mesh.client'}", ["app.shop:client"]),
        ("{['.name'] = 'p*g'}", ["app.shop:pricing", "other:pricing"]),
        ("{['.name'] = 'pricing*pricing'}", []),
        ("{['.id'] = '*:pricing'}", ["app.shop:pricing", "other:pricing"]),
        ("{['.ns'] = 'app.*'}", ["app.shop:client", "app.shop:code", "app.shop:empty", "app.shop:pricing", "app.shop:returns"]),
        ("{['meta.type'] = 'service'}", ["app.shop:pricing", "app.shop:returns"]),
        ("{['meta.type'] = 'serv'}", []),
        ("{['meta.tier'] = 2}", ["app.shop:pricing"]),
        ("{['meta.tier'] = 2.0}", ["app.shop:pricing"]),
        ("{['meta.tier'] = '2'}", []),
        ("{['meta.tier'] = true}", []),
        ("{['meta.on'] = true}", ["app.shop:pricing"]),
        ("{['meta.tags'] = {'b'}}", ["app.shop:pricing", "app.shop:returns"]),
        ("{['meta.tags'] = {'b', 'a'}}", ["app.shop:pricing"]),
        ("{['meta.tags'] = {'a', 'c'}}", []),
        ("{['meta.tags'] = 'b'}", []),
        ("{['*meta.tags'] = 'a'}", ["app.shop:pricing"]),
        ("{['*meta.type'] = 'erv'}", ["app.shop:pricing", "app.shop:returns"]),
        ("{['~meta.type'] = '^(service|mock)$'}", ["app.shop:pricing", "app.shop:returns", "other:pricing"]),
        ("{['~meta.tier'] = '2'}", []),
        ("{['^meta.type'] = 'mo'}", ["other:pricing"]),
        ("{['$meta.type'] = 'er'}", ["app.shop:code"]),
        ("{['meta.mesh.note'] = 'x'}", ["app.shop:pricing"]),
        ("{['meta.none'] = 'x'}", []),
        ("{['.kind'] = 'registry.entry', ['meta.type'] = 'service', ['meta.tier'] = 1}", ["app.shop:returns"]),
    ],
)  # fmt: skip
async def test_filters(units: Units, filter_text: str, found: list[str]) -> None:
    body = f"local l = {{}} for i, e in ipairs(registry.find({filter_text})) do l[i] = e.id end return l"
    assert await lua(units, body) == found


@pytest.mark.parametrize(
    "filter_text", ["{}", "{kind = 'x'}", "{name = 'y', [5] = 1}", "nil", "{'.kind'}", "{['.meta'] = 1, ['meta.'] = 1}"]
)
async def test_a_key_of_no_form_filters_nothing_and_is_warned_of(
    units: Units, filter_text: str, caplog: pytest.LogCaptureFixture
) -> None:
    if filter_text == "{'.kind'}":  # a list is no filter at all
        assert failure_of(await lua(units, f"return registry.find({filter_text})"))[0] == "Invalid"
        return
    assert len(await lua(units, f"return registry.find({filter_text})")) == 6
    expected = {"{}": 0, "nil": 0, "{kind = 'x'}": 1}.get(filter_text, 2)
    assert caplog.text.count("app.shop:code: registry.find: the filter key") == expected


@pytest.mark.parametrize(
    ("filter_text", "text"),
    [
        ("{['.kind'] = '*a*'}", ".kind may hold one * only"),
        ("{['.name'] = 5}", ".name must be a text"),
        ("{['~meta.type'] = '('}", "is no regular expression"),
        ("{['~meta.type'] = 5}", "~meta.type must be a text"),
        ("{['^meta.type'] = {}}", "^meta.type must be a text"),
        ("{['~meta.type'] = '(a+)+$'}", "repeats a group that repeats or branches inside"),
    ],
)  # fmt: skip
async def test_filters_that_make_no_sense_are_invalid(units: Units, filter_text: str, text: str) -> None:
    kind, message = failure_of(await lua(units, f"return registry.find({filter_text})"))
    assert (kind, text in message) == ("Invalid", True), message


@pytest.mark.parametrize("pattern", ["(a+)+", "(a|b)*", "((a*))+", "(?:x{2,})+", "(a(b|c))+", "([a-z]+)*$", "(\\d+)*"])
def test_regular_expressions_that_could_take_for_ever_are_refused(pattern: str) -> None:
    with pytest.raises(BadFilter, match="repeats a group"):
        read_filter({"~meta.x": pattern})


@pytest.mark.parametrize(
    "pattern", ["a+b*", "(a|b)c+", "(abc)+", "[(+]+x*", "\\(a+\\)+", "(a+)b+", "(a+)?", "^v\\d+\\.\\d+$", "[]+)]+"]
)
def test_ordinary_regular_expressions_are_fine(pattern: str) -> None:
    assert read_filter({"~meta.x": pattern}).ignored == ()


def test_a_regular_expression_may_have_so_many_characters_and_not_one_more() -> None:
    assert read_filter({"~meta.x": "a" * PATTERN_CHARS_MAX}).conditions
    with pytest.raises(BadFilter, match="may have 200 characters, not 201"):
        read_filter({"~meta.x": "a" * (PATTERN_CHARS_MAX + 1)})


@pytest.mark.parametrize(
    ("text", "ns", "name"), [("a:b", "a", "b"), ("a.b:c:d", "a.b", "c:d"), ("plain", "", "plain"), ("", "", ""), (":x", "", "x"), ("x:", "x", "")]
)  # fmt: skip
async def test_an_id_is_split_at_its_first_colon(units: Units, text: str, ns: str, name: str) -> None:
    assert await lua(units, "return registry.parse_id(...)", text) == {"ns": ns, "name": name}


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("registry.get(5)", "bad argument #1 to 'get' (string expected, got number)"),
        ("registry.find('x')", "bad argument #1 to 'find' (table expected, got string)"),
        ("registry.parse_id()", "bad argument #1 to 'parse_id' (string expected, got nil)"),
        ("registry.snapshot_at('v1')", "bad argument #1 to 'snapshot_at' (a version or its number expected, got string)"),
        ("registry.apply_version(1.5)", "bad argument #1 to 'apply_version' (a version or its number expected, got number)"),
        ("registry.build_delta({})", "bad argument #2 to 'build_delta' (a list of entries, a snapshot or a version expected, got nil)"),
        ("registry.snapshot():changes():create('x')", "bad argument #1 to 'create' (table expected, got string)"),
        ("registry.snapshot():changes():delete(5)", "bad argument #1 to 'delete' (string expected, got number)"),
        ("registry.history():get_version()", "bad argument #1 to 'get_version' (a version or its number expected, got nil)"),
    ],
)  # fmt: skip
async def test_wrong_types_are_raised(units: Units, call: str, text: str) -> None:
    assert failure_of(await lua(units, call)) == ("Internal", f"unit.lua:1: {text}")


# -- versions and changes ----------------------------------------------------------------------------------------


async def test_changes_make_a_new_version_that_everybody_sees(units: Units) -> None:
    body = """
      local changes = registry.snapshot():changes()
      local entry = { id = "app.shop:new", kind = "registry.entry", meta = { type = "made" }, data = { n = 1 } }
      local chained = changes:create(entry) == changes
      entry.data.n = 2
      changes:update({ id = "app.shop:pricing", data = { url = "y" } })
      changes:delete("app.shop:returns")
      changes:delete({ ns = "other", name = "pricing" })
      local kinds = {}
      for i, op in ipairs(changes:ops()) do kinds[i] = op.kind end
      local version, err = changes:apply()
      return { chained, kinds, tostring(version), version:id(), version:string(), version:previous():id(), version:next() == nil }
    """
    assert await lua(units, body) == [
        True, ["entry.create", "entry.update", "entry.delete", "entry.delete"], "v2", 2, "v2", 1, True,
    ]  # fmt: skip
    assert await lua(units, "return registry.get('app.shop:new')") == {
        "id": "app.shop:new", "kind": "registry.entry", "meta": {"type": "made"}, "data": {"n": 1},
    }  # fmt: skip
    assert await lua(units, "return registry.get('app.shop:pricing')") == {
        "id": "app.shop:pricing", "kind": "registry.entry", "meta": [], "data": {"url": "y"},
    }  # fmt: skip
    assert failure_of(await lua(units, "return registry.get('other:pricing')"))[0] == "NotFound"
    assert await lua(units, "return registry.current_version():string()") == "v2"


async def test_a_snapshot_stays_as_it_was(units: Units) -> None:
    body = """
      local before = registry.snapshot()
      before:changes():delete("app.shop:returns"):apply()
      local after = registry.snapshot()
      local names = {}
      for i, e in ipairs(after:namespace("app.shop")) do names[i] = e.id end
      return { #before:entries(), #after:entries(), before:get("app.shop:returns").id, tostring(before), before:version():string(),
        names, #before:find({ ["meta.type"] = "service" }), #after:find({ ["meta.type"] = "service" }),
        select(2, after:get("app.shop:returns")):kind(), select(2, after:get("")):kind(), #after:namespace("app.*") }
    """
    assert await lua(units, body) == [
        6, 5, "app.shop:returns", "registry.Snapshot{v1}", "v1",
        ["app.shop:client", "app.shop:code", "app.shop:empty", "app.shop:pricing"], 2, 1, "NotFound", "Invalid", 0,
    ]  # fmt: skip


async def test_one_can_go_back_and_on_from_there(units: Units) -> None:
    body = """
      local function make(name) return registry.snapshot():changes():create({ id = "a:" .. name }):apply() end
      local v2, v3 = make("two"), make("three")
      local ok = registry.apply_version(v2)
      local after = { ok, registry.get("a:two") ~= nil, registry.get("a:three") == nil, registry.current_version():string() }
      local v4 = make("four")
      local strings = {}
      for i, v in ipairs(registry.versions()) do strings[i] = v:string() end
      local history = registry.history()
      return { after, v4:previous():string(), v2:next():string(), v3:next() == nil, strings, #history:versions(),
        history:get_version(3) == v3, history:snapshot_at(v3):get("a:three").id, registry.snapshot_at(1):version():id(),
        tostring(history), v2 == registry.history():get_version(2), v2 == v3, v3:previous():previous():previous() == nil }
    """
    assert await lua(units, body) == [
        [True, True, True, "v2"], "v2", "v4", True, ["v1", "v2", "v3", "v4"], 4,
        True, "a:three", 1, "registry.History{}", True, False, True,
    ]  # fmt: skip


async def test_versions_that_do_not_exist_are_not_found(units: Units) -> None:
    for call in (
        "snapshot_at(9)",
        "apply_version(9)",
        "history():get_version(0)",
        "snapshot_at(-1)",
        "build_delta(1, 9)",
    ):
        assert failure_of(await lua(units, f"return registry.{call}"))[0] == "NotFound"


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ("create({id = 'app.shop:pricing'})", "AlreadyExists", "entry app.shop:pricing exists already"),
        ("update({id = 'a:none'})", "NotFound", "entry a:none does not exist"),
        ("delete('a:none')", "NotFound", "entry a:none does not exist"),
        ("create({id = 'a:f', kind = 'function.lua'})", "Invalid", "only entries of the kind registry.entry"),
        ("update({id = 'app.shop:code', kind = 'function.lua'})", "Invalid", "app.shop:code is a function.lua"),
        ("update({id = 'app.shop:code'})", "Invalid", "app.shop:code is a function.lua"),
        ("update({id = 'app.shop:empty', kind = 'function.lua'})", "Invalid", "app.shop:empty is a function.lua"),
        ("delete('app.shop:client')", "Invalid", "app.shop:client is a mesh.client"),
        ("create({})", "Invalid", "an entry needs an id such as app:name"),
        ("create({id = 'plain'})", "Invalid", "an entry needs an id such as app:name"),
        ("create({id = 'a b:c'})", "Invalid", "bad namespace"),
        ("create({id = 'a:'})", "Invalid", "bad name"),
        ("create({id = {ns = 'a'}})", "Invalid", "needs the texts ns and name"),
        ("create({id = 'a:b', kind = 5})", "Invalid", "kind must be a text"),
        ("create({id = 'a:b', meta = 'x'})", "Invalid", "meta must be a table"),
        ("create({id = 'a:b', meta = {1}})", "Invalid", "meta must be a table"),
        ("create({id = 'a:b', name = 'b'})", "Invalid", "unknown field name"),
        ("ops()", "Invalid", "there are no changes to apply"),
        ("create({id = 'a:b'}):create({id = 'a:b'})", "AlreadyExists", "a:b exists already"),
    ],
)  # fmt: skip
async def test_changes_that_cannot_be_made_change_nothing(units: Units, change: str, kind: str, text: str) -> None:
    body = f"local c = registry.snapshot():changes() c:create({{id = 'a:good'}}) c:{change} return c:apply()"
    if change == "ops()":
        body = "return registry.snapshot():changes():apply()"
    got, message = failure_of(await lua(units, body))
    assert (got, text in message) == (kind, True), message
    assert await lua(units, "return {registry.current_version():id(), registry.get('a:good') == nil}") == [1, True]


async def test_changes_of_one_set_build_on_each_other(units: Units) -> None:
    body = (
        "local c = registry.snapshot():changes() c:create({id = 'a:b', data = 1}):update({id = 'a:b', data = 2}):delete('app.shop:empty')"
        ":create({id = 'app.shop:empty', data = 3}) c:apply() return {registry.get('a:b').data, registry.get('app.shop:empty').data, tostring(c)}"
    )
    assert await lua(units, body) == [2, 3, "registry.Changes{4}"]


async def test_a_change_of_what_somebody_else_has_changed_since_is_a_conflict(units: Units) -> None:
    body = """
      local old = registry.snapshot()
      registry.snapshot():changes():update({ id = "app.shop:empty", data = "theirs" }):create({ id = "a:b" }):apply()
      local _, err = old:changes():update({ id = "app.shop:empty", data = "mine" }):apply()
      local _, created = old:changes():create({ id = "a:b" }):apply()
      local fine = old:changes():update({ id = "app.shop:returns", data = "mine" }):apply()
      return { err:kind(), err:retryable(), created:kind(), registry.get("app.shop:empty").data, fine:string() }
    """
    assert await lua(units, body) == ["Conflict", True, "Conflict", "theirs", "v3"]


async def test_a_delta_leads_from_one_set_of_entries_to_another(units: Units) -> None:
    body = """
      local from = { { id = "t:a", kind = "x" }, { id = "t:b", kind = "x", data = 1 }, { id = "t:same", kind = "x" } }
      local to = { { id = "t:c", kind = "x" }, { id = "t:b", kind = "x", data = 2 }, { id = "t:same", kind = "x" } }
      local list = {}
      for i, op in ipairs(registry.build_delta(from, to)) do list[i] = op.kind .. " " .. op.entry.id end
      local one = registry.snapshot()
      local two = one:changes():delete("app.shop:empty"):apply()
      return { list, #registry.build_delta({}, {}), registry.build_delta(one, two)[1].kind, registry.build_delta(2, 1)[1].kind, #registry.build_delta(two, registry.snapshot()) }
    """
    assert await lua(units, body) == [
        ["entry.delete t:a", "entry.update t:b", "entry.create t:c"], 0, "entry.delete", "entry.create", 0,
    ]  # fmt: skip
    assert failure_of(await lua(units, "return registry.build_delta({5}, {})"))[0] == "Invalid"


async def test_old_versions_are_forgotten_but_never_the_current_one() -> None:
    versions = Versions([Item(EntryId("a:b"), "registry.entry", {}, None)], versions_max=3)
    units = Units({"registry": RegistryModule(versions)})
    make = "registry.snapshot():changes():update({id = 'a:b', data = ...}):apply()"
    for number in range(2, 5):
        await lua(units, f"return {make} ~= nil", number)
    assert [version.id for version in versions.all()] == [2, 3, 4]
    assert failure_of(await lua(units, "return registry.snapshot_at(1)")) == (
        "NotFound",
        "version v1 is no longer kept",
    )
    assert await lua(units, "return {registry.snapshot_at(2):get('a:b').data, registry.get('a:b').data}") == [2, 4]
    versions.select(2)
    assert await lua(units, f"return {make}:string()", 9) == "v5"
    assert versions.current.id == 5


def test_a_registry_may_have_so_many_entries_and_not_one_more() -> None:
    versions = Versions([Item(EntryId("a:b"), "registry.entry", {}, None)], entries_max=2)
    versions.apply(1, [{"kind": "entry.create", "entry": {"id": "a:c"}}])
    with pytest.raises(Unfit, match="may have 2 entries, this would make 3"):
        versions.apply(2, [{"kind": "entry.create", "entry": {"id": "a:d"}}])
    assert versions.current.id == 2
