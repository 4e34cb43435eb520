"""Durations: the rules of Go's time.ParseDuration and Duration.String, on integers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.duration import BadDuration, format_duration, parse_duration_ns
from mesh.errors import MeshError

NS_MAX = 2**63 - 1


def parse(text: str | int | float, number_unit_ns: int = 1) -> int:
    return parse_duration_ns(text, number_unit_ns=number_unit_ns)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("0", 0),
        ("-0", 0),
        ("5s", 5_000_000_000),
        ("+5s", 5_000_000_000),
        ("-5s", -5_000_000_000),
        ("1h30m", 5_400_000_000_000),
        ("250ms", 250_000_000),
        ("1.5s", 1_500_000_000),
        (".5s", 500_000_000),
        ("5.s", 5_000_000_000),
        ("1us", 1_000),
        ("1\u00b5s", 1_000),
        ("1\u03bcs", 1_000),
        ("1h2m3s4ms5us6ns", 3_723_004_005_006),
        ("3m3m", 360_000_000_000),
        ("1.9ns", 1),
        ("-1.9ns", -1),
        ("0.100000000000000000000h", 360_000_000_000),
        ("0.9223372036854775807h", 3_320_413_933_267),
        ("9223372036854775807ns", NS_MAX),
        ("-9223372036854775808ns", -NS_MAX - 1),
        ("9223372036.854775807s", NS_MAX),
        ("00000000000000000000000001s", 1_000_000_000),
    ],
)
def test_go_texts_are_read_exactly(text: str, ns: int) -> None:
    assert parse(text) == ns


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'time: invalid duration ""'),
        ("-", 'time: invalid duration "-"'),
        (".", 'time: invalid duration "."'),
        (".s", 'time: invalid duration ".s"'),
        ("s", 'time: invalid duration "s"'),
        ("5", 'time: missing unit in duration "5"'),
        ("1h5", 'time: missing unit in duration "1h5"'),
        ("5d", 'time: unknown unit "d" in duration "5d"'),
        ("1 s", 'time: unknown unit " s" in duration "1 s"'),
        ("1s-2s", 'time: unknown unit "s-" in duration "1s-2s"'),
        ('1"', 'time: unknown unit "\\"" in duration "1\\""'),
        ("1\u00e9", 'time: unknown unit "\\xc3\\xa9" in duration "1\\xc3\\xa9"'),
        ("\u0661s", 'time: invalid duration "\\xd9\\xa1s"'),
        ("9223372036854775808ns", 'time: invalid duration "9223372036854775808ns"'),
        ("-9223372036854775809ns", 'time: invalid duration "-9223372036854775809ns"'),
        ("2562048h", 'time: invalid duration "2562048h"'),
        ("9223372036854775807ns1ns", 'time: invalid duration "9223372036854775807ns1ns"'),
    ],
)
def test_bad_texts_are_refused_in_the_words_of_go(text: str, message: str) -> None:
    with pytest.raises(BadDuration) as caught:
        parse(text)
    assert str(caught.value) == message
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, MeshError)


def test_a_text_of_thousands_of_digits_is_a_bad_duration_not_a_crash() -> None:
    with pytest.raises(BadDuration):
        parse("9" * 10_000 + "s")
    assert parse("0." + "9" * 10_000 + "s") == 999_999_999


@pytest.mark.parametrize(
    ("number", "unit_ns", "ns"),
    [(100, 1, 100), (100, 1_000_000, 100_000_000), (1.5, 1_000_000, 1_500_000), (-2.5, 1, -2), (0.1, 10, 1)],
)
def test_a_number_counts_the_unit_of_its_caller(number: float, unit_ns: int, ns: int) -> None:
    assert parse(number, unit_ns) == ns


@pytest.mark.parametrize("number", [float("nan"), float("inf"), True, 2**63, 1e300])
def test_numbers_that_are_no_duration_are_refused(number: float) -> None:
    with pytest.raises(BadDuration):
        parse(number)


def test_the_unit_does_not_matter_for_a_text() -> None:
    assert parse("2ms", 1_000_000_000) == 2_000_000


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1_100, "1.1\u00b5s"),
        (2_200_000, "2.2ms"),
        (250_000_000, "250ms"),
        (999_999_999, "999.999999ms"),
        (1_000_000_000, "1s"),
        (1_500_000_000, "1.5s"),
        (60_000_000_000, "1m0s"),
        (245_000_000_000, "4m5s"),
        (5_445_000_000_000, "1h30m45s"),
        (3_600_000_000_000, "1h0m0s"),
        (-1_500_000_000, "-1.5s"),
        (NS_MAX, "2562047h47m16.854775807s"),
        (-NS_MAX - 1, "-2562047h47m16.854775808s"),
    ],
)
def test_durations_are_printed_as_go_does(ns: int, text: str) -> None:
    assert format_duration(ns) == text


@given(st.integers(min_value=-NS_MAX - 1, max_value=NS_MAX))
def test_what_is_printed_is_read_back_unchanged(ns: int) -> None:
    assert parse(format_duration(ns)) == ns
