"""The Lua modules `json` and `base64` agree with Python's, and say where a bad text goes wrong."""

from __future__ import annotations

import base64
import json
import re
import time
from typing import Any  # JSON values and Lua tables have no one type

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lua_chunks import Chunks

VM = Chunks("sorting", "encoding")

SCALARS = (
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
# Empty tables and nulls have rules of their own, tested one by one.
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, min_size=1, max_size=6) | st.dictionaries(st.text(), inner, min_size=1, max_size=6),
    max_leaves=25,
)


def encoded(source: str) -> object:
    """The text, or the kind, message and retryable of the error of json.encode(<source>)."""
    return VM.run(
        f"local text, e = json.encode({source}) if e then return e:kind(), e:message(), e:retryable() end return text"
    )


def decoded(text: str | bytes) -> Any:
    value, error = VM.run("return json.decode(...)", text.encode() if isinstance(text, str) else text)
    if error is not None:
        return error[b"kind"](error), error[b"message"](error), error[b"retryable"](error)
    return plain(value)


def plain(value: Any) -> Any:
    """A Lua value as Python's json would have it."""
    if isinstance(value, bytes):
        return value.decode()
    if not hasattr(value, "items"):
        return value
    items = dict(value.items())
    if items and all(isinstance(key, int) for key in items):
        return [plain(items[n]) for n in range(1, len(items) + 1)]
    return {key.decode(): plain(item) for key, item in items.items()}


# json.decode


@given(VALUES)
def test_decode_agrees_with_python(value: Any) -> None:
    for ensure_ascii in (True, False):
        got = decoded(json.dumps(value, ensure_ascii=ensure_ascii))
        assert got == value
        assert json.dumps(got, sort_keys=True) == json.dumps(value, sort_keys=True), (
            "integers stay integers, floats stay floats"
        )


@given(VALUES)
def test_encode_undoes_decode(value: Any) -> None:
    text, error = VM.run("return json.encode(json.decode(...))", json.dumps(value).encode())
    assert error is None
    assert json.loads(text) == value


@given(st.text(alphabet='[]{},:"\\ tfn0123456789.eE+-u\n', max_size=12))
def test_decode_takes_exactly_what_python_takes(text: str) -> None:
    """Python's reader is as strict as RFC 8259, but for NaN, Infinity and numbers too large for a float."""
    try:
        value = json.loads(text)
        ours_only = "Infinity" in json.dumps(value)
    except ValueError:
        value, ours_only = None, True
    got = decoded(text)
    if ours_only:
        assert isinstance(got, tuple)
        assert got[0] == (b"Internal" if text else b"Invalid")
    else:
        assert not isinstance(got, tuple)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("null", None),
        (" \t\r\n true \n", True),
        ("-0", 0),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
        ("9223372036854775808", float(2**63)),
        ("123456789012345678901234567890", 123456789012345678901234567890.0),
        ("1.0", 1.0),
        ("1e3", 1000.0),
        ("1E-2", 0.01),
        ('"\\u0041\\u00e9\\u20ac\\ud83d\\ude00"', "Aé€😀"),
        ('"\\"\\\\\\/\\b\\f\\n\\r\\t\\u0000"', '"\\/\b\f\n\r\t\0'),
        ('"\\ud800"', "�"),
        ('"\\ude00\\ud83d"', "��"),
        ('"\\ud83dx"', "�x"),
        ('"\\ud83d\\u0041"', "�A"),
        ('"\x7f"', "\x7f"),
        ("[]", {}),
        ("{}", {}),
        ('{"a":null,"b":1}', {"b": 1}),
        ('{"a":1,"a":2}', {"a": 2}),
        ('{"":1}', {"": 1}),
    ],
)
def test_values_of_texts(text: str, value: object) -> None:
    got = decoded(text)
    assert (got, type(got)) == (value, type(value))


def test_bytes_that_are_not_utf8_become_replacement_characters() -> None:
    assert decoded(b'"a\xffb\xe2\x82"') == "a�b��"
    assert VM.run("return (json.encode(...))", b"a\xffb\xe2\x82\xed\xa0\x80") == '"a�b�����"'.encode()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" ", "expected a value, found the end of the text at position 2"),
        ("[1,2", "expected , or ] in an array, found the end of the text at position 5"),
        ("[1 2]", "expected , or ] in an array at position 4"),
        ("[1,]", "expected a value at position 4"),
        ('{"a" 1}', "expected : after a key of an object at position 6"),
        ("{a:1}", "expected a string as a key of an object at position 2"),
        ('{"a":1,}', "expected a string as a key of an object at position 8"),
        ('{"a":1 "b"', "expected , or } in an object at position 8"),
        ("1 x", "expected nothing after the value at position 3"),
        ("nul", "expected a value at position 1"),
        ("NaN", "expected a value at position 1"),
        ("01", "a number cannot begin with 0 at position 1"),
        ("-", "a number needs a digit at position 1"),
        ("[1.]", "a number needs a digit after its point at position 2"),
        ("1e+", "a number needs a digit in its exponent at position 1"),
        ("[1e400]", "a number is out of range at position 2"),
        ('"abc', "a string does not end at position 1"),
        ('"abc\\', "unknown escape in a string at position 5"),
        ('"\\x"', "unknown escape in a string at position 2"),
        ('"a\\u12g4"', "\\u needs four hexadecimal digits at position 3"),
        ('"a\nb"', "a control character in a string must be escaped at position 3"),
    ],
)
def test_a_bad_text_is_told_with_its_position(text: str, message: str) -> None:
    assert decoded(text) == (b"Internal", b"json.decode: " + message.encode(), False)


@pytest.mark.parametrize("argument", ["''", "nil", "5", "{}", "true"])
def test_decode_of_what_is_no_text_is_invalid(argument: str) -> None:
    source = f"local v, e = json.decode({argument}) return v, e:kind(), e:retryable()"
    assert VM.run(source) == (None, b"Invalid", False)


def test_decode_goes_as_deep_as_its_limit_and_no_deeper() -> None:
    assert VM.run("return type(json.decode(...))", b"[" * 1000 + b"]" * 1000) == b"table"
    refused = decoded("[" * 1001 + "]" * 1001)
    assert refused == (b"Internal", b"json.decode: nested deeper than 1000 at position 1001", False)


# json.encode


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("nil", "null"),
        ("{}", "[]"),
        ("{1, 'x', {}, false}", '[1,"x",[],false]'),
        ("{b = 1, a = {c = true}}", '{"a":{"c":true},"b":1}'),
        ("{['1'] = 1}", '{"1":1}'),
        ("0/0", "null"),
        ("{1/0, -1/0}", "[null,null]"),
        ("{1.0, -0.0, 1e15, 1e20}", "[1,0,1000000000000000,100000000000000000000]"),
        ("{-2^63, 2^63}", "[-9223372036854775808,9223372036854775808]"),
        ("{0.1, 1/3, 1e21, 1e300, 5e-324}", "[0.1,0.3333333333333333,1e+21,1e+300,4.94065645841247e-324]"),
        ("{math.maxinteger, math.mininteger}", "[9223372036854775807,-9223372036854775808]"),
        (r"'a\"\\\n\0\31\127/é'", '"a\\"\\\\\\n\\u0000\\u001f\x7f/é"'),
        ("K.new_error('', 'it failed')", '"it failed"'),
        ("{e = K.new_error('Invalid', 'x')}", '{"e":"x"}'),
        ("{K.class('Thing', {})({}), print}", "[null,null]"),
        ("setmetatable({1}, {__index = {2, 3}, __len = function() return 9 end})", "[1]"),
    ],
)
def test_texts_of_values(source: str, text: str) -> None:
    assert encoded(source) == text.encode()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{1, nil, 3}", "a list has holes"),
        ("{[2] = 1}", "a list has holes"),
        ("{[0] = 1}", "keys must be strings, or integers from 1"),
        ("{[1.5] = 1}", "keys must be strings, or integers from 1"),
        ("{[true] = 1}", "keys must be strings, or integers from 1"),
        ("{1, a = 2}", "a table mixes list items and named fields"),
        ("{a = {b = {1, c = 2}}}", "a table mixes list items and named fields"),
    ],
)
def test_tables_that_json_cannot_say(source: str, message: str) -> None:
    assert encoded(source) == (b"Internal", b"json.encode: " + message.encode(), False)


def test_a_cycle_is_an_error_and_a_table_used_twice_is_not() -> None:
    assert encoded("(function() local t = {} t.t = {t} return t end)()") == (
        b"Internal",
        b"json.encode: a table contains itself",
        False,
    )
    assert encoded("(function() local t = {1} return {t, t} end)()") == b"[[1],[1]]"


def test_encode_goes_128_deep_and_no_deeper() -> None:
    nest = "(function() local t = 7 for _ = 1, {} do t = {{t}} end return t end)()"
    assert encoded(nest.format(128, "t")) == b"[" * 128 + b"7" + b"]" * 128
    assert encoded(nest.format(129, "t")) == (b"Internal", b"json.encode: tables are nested deeper than 128", False)


@given(st.lists(st.text(), unique=True, max_size=40))
def test_keys_come_in_byte_order_whatever_the_order_of_insertion(keys: list[str]) -> None:
    source = "local t = {} for i = 1, select('#', ...) do t[(select(i, ...))] = i end return (json.encode(t))"
    text = VM.run(source, *[key.encode() for key in keys])
    assert list(json.loads(text)) == sorted(keys, key=str.encode)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_keep_their_value(number: float) -> None:
    assert float(json.loads(VM.run("return (json.encode(...))", number))) == number


# json.validate


def checked(vm: Chunks, call: str) -> object:
    return vm.run(f"local ok, e = json.{call} return ok, e and e:kind(), e and e:message()")


def test_validation_hands_json_texts_to_the_host() -> None:
    vm = Chunks("sorting", "encoding")
    asked: list[tuple[bytes, bytes, bool, bool]] = []

    def validate(schema: bytes, data: bytes, schema_is_table: bool, data_is_table: bool) -> bytes | None:
        asked.append((schema, data, schema_is_table, data_is_table))
        return b"a is missing" if data == b"[]" else None

    vm.host[b"json_validate"] = validate
    assert checked(vm, "validate({type = 'object'}, {a = 1})") == (True, None, None)
    assert checked(vm, "validate('{\"x\": 1}', {})") == (False, b"Invalid", b"a is missing")
    assert checked(vm, "validate_string({}, '[1]')") == (True, None, None)
    assert checked(vm, "validate({}, false)") == (True, None, None)
    assert asked == [
        (b'{"type":"object"}', b'{"a":1}', True, True),
        (b'{"x": 1}', b"[]", False, True),
        (b"{}", b"[1]", True, False),
        (b"{}", b"false", True, True),
    ]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("validate()", b"schema is required"),
        ("validate(nil, 1)", b"schema is required"),
        ("validate('', 1)", b"schema is required"),
        ("validate({})", b"data is required"),
        ("validate_string(nil, '1')", b"schema is required"),
        ("validate_string({})", b"data is required"),
        ("validate_string({}, '')", b"data is required"),
        ("validate_string({}, 7)", b"data is required"),
        ("validate(7, 1)", b"schema must be a table or JSON text, got number"),
        ("validate({1, a = 1}, 1)", b"schema: json.encode: a table mixes list items and named fields"),
        ("validate({}, {1, a = 1})", b"json.encode: a table mixes list items and named fields"),
    ],
)
def test_validation_needs_a_schema_and_data(call: str, message: bytes) -> None:
    assert checked(VM, call) == (False, b"Invalid", message)


# base64


@given(st.binary(max_size=200))
def test_base64_agrees_with_python(data: bytes) -> None:
    text = base64.b64encode(data)
    assert VM.run("return base64.encode(...)", data) == (text, None)
    assert VM.run("return base64.decode(...)", text) == (data, None)


@given(st.binary(max_size=60), st.data())
def test_line_ends_in_base64_are_skipped(data: bytes, draw: st.DataObject) -> None:
    text = base64.b64encode(data)
    at = draw.draw(st.integers(0, len(text)))
    assert VM.run("return base64.decode(...)", text[:at] + b"\r\n" + text[at:]) == (data, None)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("aGV*bG8=", 3),
        ("aGVsbG8", 7),
        ("aGVsbG8==", 7),
        ("a", 1),
        ("ab", 2),
        ("ab=", 2),
        ("====", 0),
        ("a===", 1),
        ("aa==aa==", 2),
        ("aGV sbG8=", 3),
        ("aGVs\nbG-_", 7),
        ("aGVsbG8=\0", 7),
    ],
)
def test_bad_base64_is_told_with_its_byte(text: str, at: int) -> None:
    source = "local v, e = base64.decode(...) return v, e:kind(), e:message(), e:retryable()"
    message = b"illegal base64 data at input byte %d" % at
    assert VM.run(source, text.encode()) == (None, b"Invalid", message, False)


@given(st.text(alphabet="AQZa9+/=-", max_size=12))
def test_base64_is_whole_groups_with_padding_and_nothing_else(text: str) -> None:
    well_formed = re.fullmatch(r"([\w+/]{4})*([\w+/]{2}==|[\w+/]{3}=)?", text)
    expected = base64.b64decode(text) if well_formed else None
    assert VM.run("return (base64.decode(...))", text.encode()) == expected


def test_base64_of_what_is_no_text_is_invalid() -> None:
    for call in ("encode(5)", "encode(nil)", "decode({})"):
        assert VM.run(f"local v, e = base64.{call} return v, e:kind()") == (None, b"Invalid"), call


# Size


def elapsed_s(call: str, argument: bytes) -> float:
    started = time.thread_time()  # what others do on this machine is not counted
    VM.run(f"{call}(...)", argument)
    return time.thread_time() - started


@pytest.mark.parametrize(
    ("call", "unit"),
    [
        ("json.decode", b"\\n"),
        ("json.encode", b"\n\xff"),
        ("json.encode", b"plain"),
        ("base64.encode", b"abc"),
        ("base64.decode", b"QUJD\n"),
    ],
)
def test_time_grows_with_size_and_not_with_its_square(call: str, unit: bytes) -> None:
    """Eight times the input may take eight times as long; a square would be 64 times."""

    def of_size(count: int) -> bytes:
        return b'"' + unit * count + b'"' if call == "json.decode" else unit * count

    small = min(elapsed_s(call, of_size(20_000)) for _ in range(5))
    large = min(elapsed_s(call, of_size(160_000)) for _ in range(3))
    assert large < 32 * small + 0.02
