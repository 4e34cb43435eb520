"""Payloads and outcomes: what is ours, what a person or a foreign program sent, and what nobody can read."""

from __future__ import annotations

import json
import math
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import codec
from mesh.errors import Undecodable
from mesh.failure import Failure, Kind

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5) | st.integers(-5, 5), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(VALUES)
def test_our_payloads_come_back_as_they_were(value: Any) -> None:
    data = codec.encode(value)
    assert data[:1] == codec.MARKER
    assert codec.decode(data) == value
    assert codec.as_marked(data) == data
    assert codec.decode_outcome(codec.encode_success(value)) == (True, value)


@given(st.binary(max_size=60))
def test_no_bytes_at_all_raise_anything_but_undecodable(data: bytes) -> None:
    """Whatever can be read can be written again, or what was recorded could not be passed on."""
    for prefix in (b"", codec.MARKER, codec.SUCCESS_PREFIX, codec.FAILURE_PREFIX):
        for read in (codec.decode, codec.decode_outcome, codec.as_marked):
            try:
                value = read(prefix + data)
            except Undecodable:
                continue
            codec.encode(value)
    codec.encode(codec.decode_foreign(data))


@pytest.mark.parametrize(
    "data",
    [
        b"\xc1", b"\xc1\xc1", b"\xc1\x92\x00", b"\xc1\x01\x02", b"\xc1\x81\x90\x01", b"\xc1\x81\x80\x01", b"\xc1\xdd\xff\xff\xff\xff",
        b"\xc1\xd6\xff\x00", b"\xc1\xc7\x01\x01\xc1", b"\xc1\xd4\xff\x00", b"\xc1\xa5abc", b"\xc1" + b"\x91" * 3000 + b"\x01",
    ],
)  # fmt: skip
def test_broken_payloads_of_ours_are_undecodable(data: bytes) -> None:
    for read in (codec.decode, codec.as_marked, codec.decode_outcome):
        with pytest.raises(Undecodable):
            read(data)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"", None), (b"  \n", None), (b"null", None), (b"true", True), (b" 5 ", 5), (b'"x"', "x"), (b"[1]", [1]), (b"\xef\xbb\xbf{}", {}),
        (b"text", "text"), (b"{broken", "{broken"), (b"NaN", "NaN"), (b"-Infinity", "-Infinity"), (b"[1,]", "[1,]"),
        (b"\xff\xfe", b"\xff\xfe"), (b"\xc3\xbc", "\u00fc"), (b"18446744073709551615", 2**64 - 1), (b"-9223372036854775808", -(2**63)),
        (b"18446744073709551616", float(2**64)), (b"-9223372036854775809", -float(2**63)), (b"1e400", math.inf),
        (b'"\\ud800"', '"\\ud800"'), (b'{"\\udc00":1}', '{"\\udc00":1}'), (b'"\\ud83d\\ude00"', "\U0001f600"), (b'"\\u0000"', "\0"),
        (b"9" * 5000, "9" * 5000),
    ],
)  # fmt: skip
def test_foreign_bytes_are_json_else_text_else_bytes(data: bytes, value: Any) -> None:
    assert codec.decode_foreign(data) == value
    assert codec.decode(data) == value
    assert codec.decode(codec.as_marked(data)) == value
    assert codec.decode_outcome(data) == (True, value)


@pytest.mark.parametrize(
    ("levels", "is_json"), [(1, True), (codec.DEPTH_MAX, True), (codec.DEPTH_MAX + 1, False), (5000, False)]
)
def test_json_that_no_machine_could_take_is_text(levels: int, is_json: bool) -> None:
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        data = opening * levels + b"1" + closing * levels
        assert isinstance(codec.decode_foreign(data), str) is not is_json


def test_many_brackets_that_are_not_deep_are_json() -> None:
    assert codec.decode_foreign(b"[" + b"[]," * 500 + b"{}]") == [[]] * 500 + [{}]


def test_text_in_no_encoding_keeps_its_bytes_both_ways() -> None:
    value = codec.decode(b"\xc1\xa2\xff\xfe")
    assert value == "\udcff\udcfe"
    assert codec.decode(codec.encode({"k": value})) == {"k": value}
    assert codec.encode_failure(Failure(value))


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, "\ud800", [2**70]])
def test_what_does_not_fit_is_a_value_error(value: Any) -> None:
    with pytest.raises(ValueError, match=r"64 bits|surrogates"):
        codec.pack(value)


def test_what_cannot_be_sent_says_so() -> None:
    with pytest.raises(TypeError, match="a set cannot be sent; use numbers"):
        codec.encode({"a": {1}})


def test_failures_travel_inside_values() -> None:
    failure = Failure("no", Kind.CONFLICT, False, {"sku": 7}, "stack")
    assert codec.decode(codec.encode({"e": [failure]})) == {"e": [failure]}
    assert codec.decode_outcome(codec.encode_failure(failure)) == (False, failure)


@pytest.mark.parametrize(
    ("wire", "failure"),
    [
        ({}, Failure("")),
        ("just text", Failure("just text", Kind.INTERNAL)),
        ({"message": 5, "kind": b"\xff", "retryable": "yes", "details": [1], "stack": None}, Failure("5", "\ufffd")),
    ],
)
def test_failures_of_any_shape_are_read(wire: Any, failure: Failure) -> None:
    assert codec.decode_outcome(codec.FAILURE_PREFIX + msgpack.packb(wire)) == (False, failure)


@pytest.mark.parametrize("value", [5, None, [], [0], [0, 1, 2], [2, 1], ["0", 1], {0: 1, 1: 2}, [[], 1]])
def test_other_shapes_are_no_outcomes(value: Any) -> None:
    with pytest.raises(Undecodable, match="an outcome is"):
        codec.decode_outcome(codec.encode(value))


@given(VALUES)
def test_anything_can_be_shown(value: Any) -> None:
    assert isinstance(codec.to_json([value, Failure("x"), b"\xff", object()]), str)


def test_what_is_shown_is_json_for_everybody_and_harmless_on_a_terminal() -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    value = {"numbers": [float("inf"), float("-inf"), float("nan")], "text": "\x1b[2J \x9b2J \x7f \u202e \u2028 é"}
    shown = codec.to_json(value)
    assert all(c.isprintable() for c in shown)
    assert "é" in shown
    assert json.loads(shown, parse_constant=refuse) == value | {"numbers": ["Infinity", "-Infinity", "NaN"]}


def test_showing_keys_that_are_no_texts_does_not_raise() -> None:
    assert "1.5" in codec.to_json({b"k": 1.5})
    deep: list[Any] = []
    for _ in range(20_000):
        deep = [deep]
    with pytest.raises(RecursionError):
        repr(deep)
    assert isinstance(codec.to_json(deep), str)
