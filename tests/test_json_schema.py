"""`json.validate`: what fits, what does not, and that the answer says where and why."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mesh.failure import Failure
from node.machine.json_schema import fault
from node.machine.vm import LuaVM
from tests.units import run_unit

VM = LuaVM()

ORDER = """{
  type = "object", required = {"id", "items"}, additionalProperties = false,
  properties = {
    id = {type = "string", minLength = 1},
    items = {type = "array", minItems = 1, items = {type = "object", required = {"price"}, properties = {price = {type = "number", minimum = 0}}}},
    note = {}, tags = {type = "array", uniqueItems = true}, extra = {type = "object", properties = {}},
    state = {enum = {"new", "paid"}}, required = {type = "boolean"},
  },
}"""


def validated(call: str, *args: Any) -> Any:
    """True, or the text of the Invalid."""
    got = run_unit(
        f"local ok, e = json.{call} if ok then return {{ok, e == nil}} end return {{ok, e:kind(), e:message(), e:retryable()}}",
        *args,
        vm=VM,
    )
    assert not isinstance(got, Failure), got
    if got == [True, True]:
        return True
    assert (got[0], got[1], got[3]) == (False, "Invalid", False)
    return got[2]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("{id = 'a', items = {{price = 1}}}", True),
        ("{id = 'a', items = {{price = 0.5}}, note = {}, tags = {}, extra = {}, state = 'new', required = true}", True),
        ("{id = 'a', items = {{price = 1}}, note = {1, 2}}", True),
        ("{}", "$: 'id' is a required property"),
        ("{id = 'a', items = {}}", "$.items: [] should be non-empty"),
        ("{id = 'a', items = {{price = 1}, {}}}", "$.items[1]: 'price' is a required property"),
        ("{id = 'a', items = {{price = -1}}}", "$.items[0].price: -1 is less than the minimum of 0"),
        ("{id = 'a', items = {{price = 'x'}}}", "$.items[0].price: 'x' is not of type 'number'"),
        ("{id = '', items = {{price = 1}}}", "$.id: '' should be non-empty"),
        ("{id = 'a', items = {{price = 1}}, state = 'lost'}", "$.state: 'lost' is not one of ['new', 'paid']"),
        ("{id = 'a', items = {{price = 1}}, tags = {1, 1}}", "$.tags: [1, 1] has non-unique elements"),
        ("{id = 'a', items = {{price = 1}}, tags = {a = 1}}", "$.tags: {'a': 1} is not of type 'array'"),
        ("{id = 'a', items = {{price = 1}}, more = 1}", "$: Additional properties are not allowed ('more' was unexpected)"),
        ("'text'", "$: 'text' is not of type 'object'"),
        ("false", "$: False is not of type 'object'"),
    ],
)  # fmt: skip
def test_a_table_is_held_against_a_schema_of_tables(data: str, expected: object) -> None:
    assert validated(f"validate({ORDER}, {data})") == expected


@pytest.mark.parametrize(
    ("schema", "text", "expected"),
    [
        ({"type": "integer"}, "5", True),
        ({"type": "integer"}, "5.0", True),
        ({"type": "integer"}, "5.5", "$: 5.5 is not of type 'integer'"),
        ({"type": "object"}, "{}", True),
        ({"type": "object"}, "[]", "$: [] is not of type 'object'"),
        ({"type": ["string", "null"]}, "null", True),
        (True, "1", True),
        (False, "1", "$: False schema does not allow 1"),
        ({"$ref": "#/$defs/n", "$defs": {"n": {"type": "number"}}}, '"x"', "$: 'x' is not of type 'number'"),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "number"}]}, '["x"]', "$[0]: 'x' is not of type 'number'"),
        ({"anyOf": [{"type": "string"}, {"type": "number"}]}, "true", "$: True is not valid under any of the given schemas"),
        ({"properties": {"a b": {"const": 1}}}, '{"a b": 2}', "$['a b']: 1 was expected"),
        ({"pattern": "^[a-z]+$"}, '"A"', "$: 'A' does not match '^[a-z]+$'"),
        ({"maxLength": 3}, json.dumps("x" * 2000), f"$: '{'x' * 496}..."),
        ({}, "{", "data: no valid JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ({}, "NaN", "data: no valid JSON: NaN is no JSON value"),
        ({"type": "strin"}, "1", "schema: $.type: 'strin' is not valid under any of the given schemas"),
        ({"pattern": "("}, '"x"', "schema: $.pattern: '(' is not a 'regex'"),
        ({"$ref": "https://example.com/other.json"}, "1", "schema: the reference 'https://example.com/other.json' leads nowhere; it must be within the schema"),
        ({"$ref": "#/$defs/none"}, "1", "schema: the reference '/$defs/none' leads nowhere; it must be within the schema"),
        ([1], "1", "schema: an object or a boolean is expected, got [1]"),
    ],
)  # fmt: skip
def test_a_text_is_held_against_a_schema_of_text(schema: Any, text: str, expected: object) -> None:
    got = validated("validate_string(...)", json.dumps(schema), text)
    assert got == expected


def test_a_schema_that_is_no_json_is_invalid() -> None:
    assert validated("validate('{', 1)").startswith("schema: no valid JSON: ")


def test_endless_references_end() -> None:
    assert fault(b'{"$ref": "#"}', b"1", False, False) == (
        b"schema: it refers to itself without end, or the data is nested too deep"
    )


@pytest.mark.parametrize(
    ("schema", "data", "expected"),
    [
        ("{patternProperties = {['^x'] = {type = 'number'}}}", "{}", True),
        ("{propertyNames = {maxLength = 1}, minProperties = 0, maxItems = 0}", "{}", True),
        ("{minProperties = 1}", "{}", "$: [] should be non-empty"),
        ("{const = {}}", "{}", True),
        ("{items = {}}", "{1, {}}", True),
        ("{allOf = {{}, {}}}", "1", True),
        ("{['not'] = {}}", "1", "$: 1 should not be valid under {}"),
        ("{properties = {required = {}, enum = {}}}", "{required = 1}", True),
        ("{required = {}}", "{}", True),
        ("{}", "{}", True),
    ],
)
def test_an_empty_table_is_what_the_place_wants(schema: str, data: str, expected: object) -> None:
    assert validated(f"validate({schema}, {data})") == expected


FORMATS = [
    ("date-time", "2026-11-25T10:00:00Z", True),
    ("date-time", "2026-11-25t10:00:60.5+01:30", True),
    ("date-time", "2026-02-30T10:00:00Z", False),
    ("date-time", "2026-11-25T10:00:00", False),
    ("date-time", "2026-11-25", False),
    ("date", "2026-11-25", True),
    ("date", "25.11.2026", False),
    ("time", "10:00:00Z", True),
    ("time", "24:00:00Z", False),
    ("time", "10:00:00+24:00", False),
    ("duration", "P1DT2H", True),
    ("duration", "P", False),
    ("duration", "1h", False),
    ("email", "a@b.c", True),
    ("email", "ab.c", False),
    ("hostname", "example.com", True),
    ("hostname", "-x.com", False),
    ("ipv4", "127.0.0.1", True),
    ("ipv4", "256.0.0.1", False),
    ("ipv6", "::1", True),
    ("ipv6", "x", False),
    ("uri", "https://a.b/c?d=e#f", True),
    ("uri", "/c", False),
    ("uri", "https://a b", False),
    ("uri-reference", "/c", True),
    ("uuid", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", True),
    ("uuid", "6ba7b810", False),
    ("regex", "a+", True),
    ("regex", "(", False),
    ("unknown", "anything", True),
]


@pytest.mark.parametrize(("name", "text", "fits"), FORMATS)
def test_formats_are_checked(name: str, text: str, fits: bool) -> None:
    expected = True if fits else f"$: {text!r} is not a {name!r}"
    assert validated("validate_string(...)", json.dumps({"format": name}), json.dumps(text)) == expected
    assert validated("validate_string(...)", json.dumps({"format": name}), "5") is True


def test_schemas_are_compiled_once() -> None:
    from node.machine.json_schema import _compiled

    text = b'{"type": "number", "title": "compiled once"}'
    assert _compiled(text, False) is _compiled(text, False)
