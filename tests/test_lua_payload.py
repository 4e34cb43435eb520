"""Payload objects (`payload.new`) and their text forms, YAML among them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.failure import Failure
from node.machine.vm import LuaVM
from node.machine.yaml_text import json_of_yaml, yaml_of_json
from tests.units import run_unit

VM = LuaVM()


def got(body: str, *args: Any) -> Any:
    result = run_unit(f"local F = payload.format {body}", *args, vm=VM)
    assert not isinstance(result, Failure), result
    return result


CASES: dict[str, tuple[str, Any]] = {
    "constants": ("local all = {} for name, format in pairs(F) do all[name] = format end return all", {
        "JSON": "json/plain", "YAML": "yaml/plain", "STRING": "text/plain", "BYTES": "application/octet-stream",
        "MSGPACK": "application/msgpack", "LUA": "lua/any", "GOLANG": "golang/any", "ERROR": "golang/error",
    }),
    "formats of values": ("return {payload.new(1):get_format(), payload.new('x'):get_format(), payload.new(nil):get_format(), payload.new(errors.new('x')):get_format()}", ["lua/any", "lua/any", "lua/any", "golang/error"]),
    "data and text": ("local t = {1} local p = payload.new(t) return {p:data() == t, p:unmarshal() == t, tostring(p), type(p)}", [True, True, "payload{format=lua/any}", "userdata"]),
    "json": ("local p = payload.new({a = {1, 2}}):transcode(F.JSON) return {p:get_format(), p:data(), p:unmarshal()}", ["json/plain", '{"a":[1,2]}', {"a": [1, 2]}]),
    "yaml": ("local p = payload.new({a = {1, {b = 'yes'}}, c = 'x\\ny'}):transcode(F.YAML) return {p:get_format(), p:data(), p:unmarshal()}", ["yaml/plain", 'a:\n- 1\n- b: "yes"\nc: "x\\ny"\n', {"a": [1, {"b": "yes"}], "c": "x\ny"}]),
    "yaml to json": ("return payload.new('a: [1, on, 017, 2026-01-01]', F.YAML):transcode(F.JSON):data()", '{"a":[1,"on",17,"2026-01-01"]}'),
    "json to yaml": ("return payload.new('[1]', F.JSON):transcode(F.YAML):data()", "- 1\n"),
    "msgpack": ("local p = payload.new({a = 1}):transcode(F.MSGPACK) return {p:get_format(), #p:data(), p:unmarshal(), p:transcode(F.JSON):data()}", ["application/msgpack", 4, {"a": 1}, '{"a":1}']),
    "text": ("return {payload.new('x'):transcode(F.STRING):data(), payload.new('x'):transcode(F.BYTES):transcode(F.STRING):data()}", ["x", "x"]),
    "same format": ("local p = payload.new(1) return p:transcode(F.LUA) == p", True),
    "an Error as json": ("return payload.new(errors.new('bad')):transcode(F.JSON):data()", '"bad"'),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_payloads(name: str) -> None:
    body, expected = CASES[name]
    assert got(body) == expected


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("payload.new(1):transcode('x/y')", "cannot transcode lua/any to x/y"),
        ("payload.new(1):transcode(nil)", "cannot transcode lua/any to nil"),
        ("payload.new(1):transcode({})", "cannot transcode lua/any to table: 0x00000001"),
        ("payload.new({}):transcode(F.STRING)", "cannot transcode lua/any to text/plain"),
        ("payload.new({1, a = 2}):transcode(F.YAML)", "json.encode: a table mixes list items and named fields"),
        ("payload.new({1, a = 2}):transcode(F.JSON)", "json.encode: a table mixes list items and named fields"),
        ("payload.new('{', F.JSON):unmarshal()", "json.decode: expected a string as a key of an object, found the end of the text at position 2"),
        ("payload.new('a: [', F.YAML):unmarshal()", "line 1: not valid YAML: while parsing a flow node expected the node content, but found '<stream end>'"),
        ("payload.new('a: 1\\na: 2', F.YAML):unmarshal()", "line 2: key 'a' stands twice in one mapping"),
        ("payload.new('\\xff', F.YAML):unmarshal()", "the YAML text is not UTF-8"),
        ("payload.new('!!python/object:os.system x', F.YAML):unmarshal()", "line 1: tag tag:yaml.org,2002:python/object:os.system is not supported"),
        ("payload.new('.nan', F.YAML):unmarshal()", "Out of range float values are not JSON compliant"),
        ("payload.new('\\xc1', F.MSGPACK):unmarshal()", "malformed msgpack"),
    ],
)  # fmt: skip
def test_what_cannot_be_transcoded_is_internal_and_final(body: str, text: str) -> None:
    kind, message, retryable = got(f"local _, e = {body} return {{e:kind(), e:message(), e:retryable()}}")
    assert (kind, retryable) == ("Internal", False)
    assert message.startswith(text)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("payload.new(1, 'x/y')", "bad argument #2 to 'payload.new' (one of payload.format expected, got x/y)"),
        (
            "payload.new({}, F.JSON)",
            "bad argument #1 to 'payload.new' (a text in format json/plain expected, got table)",
        ),
    ],
)
def test_payloads_of_impossible_formats_are_raised(call: str, text: str) -> None:
    assert got(f"return select(2, pcall(function() {call} end))") == f"unit.lua:1: {text}"


SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text() | st.sampled_from(["017", "on", "yes", "~", "null", "1e3", "0x1f", "0o7", "12:30", "2024-01-01", "<<", "=", "#x", "!x", "*x", "&x", "1_000", ".5", "...", "\x85", "\ufeff"])
    | st.sampled_from(["", "\n", "a\n\nb ", "- a", "a: b", " x", "x #y"])
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text() | st.just("<<"), inner, max_size=5),
    max_leaves=20,
)


@given(VALUES)
@settings(max_examples=200, deadline=None)
def test_yaml_that_was_written_is_read_as_the_same_value(value: Any) -> None:
    text, problem = yaml_of_json(json.dumps(value).encode())
    assert problem is None
    assert text is not None
    back, problem = json_of_yaml(text)
    assert problem is None
    assert back is not None
    assert json.loads(back) == value


def test_yaml_that_grows_by_aliases_is_refused() -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join(['*' + before] * 10)}]\n"
        for before, name in zip("abcdefg", "bcdefgh", strict=True)
    )
    value, problem = json_of_yaml(bomb.encode())
    assert value is None
    assert problem is not None
    assert b"aliases counted in full" in problem
