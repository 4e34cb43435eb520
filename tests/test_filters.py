"""The language of `mesh ls --where`: what it means, what it says of what it cannot read, and that it reads any text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.duration import HOUR, MILLISECOND, MINUTE
from mesh.instants import iso, parse_iso_ns
from store.filters import (
    CHARACTERS_MAX,
    CONDITIONS_MAX,
    DEPTH_MAX,
    VALUES_MAX,
    All,
    AnyOf,
    Compare,
    Condition,
    Field,
    FilterError,
    Not,
    Value,
    parse_filter,
)

NOW_NS = parse_iso_ns("2026-11-25T12:00:00Z")


def _parsed(text: str) -> Condition | None:
    return parse_filter(text, NOW_NS)


def _compare(name: str, operator: str, *values: Value, key: str = "") -> Compare:
    return Compare(Field(name, key), operator, values)


class TestMeaning:
    """A text and the tree it stands for."""

    @pytest.mark.parametrize(
        ("text", "meaning"),
        [
            ("status = running", _compare("status", "=", "running")),
            ("STATUS == Timed-Out", _compare("status", "=", "timed-out")),
            ("type != 'shop.orders:pay'", Not(_compare("type", "=", "shop.orders:pay"))),
            ("type <> shop:pay", Not(_compare("type", "=", "shop:pay"))),
            ("id = 12", _compare("id", "=", "12")),
            ("id like order-*", _compare("id", "like", "order-*")),
            ('id not like "**x"', Not(_compare("id", "like", "*x"))),
            ("status in (failed, canceled)", _compare("status", "in", "failed", "canceled")),
            ("queue not in ('a')", Not(_compare("queue", "in", "a"))),
            ("started > -2h", _compare("started", ">", NOW_NS - 2 * HOUR)),
            ("started>=-7d", _compare("started", ">=", NOW_NS - 7 * 24 * HOUR)),
            ("started > -1w2d", _compare("started", ">", NOW_NS - 9 * 24 * HOUR)),
            ("started < now", _compare("started", "<", NOW_NS)),
            ("started > 2026-11-25", _compare("started", ">", NOW_NS - 12 * HOUR)),
            ('started > "2026-11-25 13:00:00+01:00"', _compare("started", ">", NOW_NS)),
            ("started > 2026-11-25T12:00:00.5Z", _compare("started", ">", NOW_NS + 500 * MILLISECOND)),
            ("ended = null", _compare("ended", "=", None)),
            ("duration <= 1m30s", _compare("duration", "<=", 90 * 1000 * MILLISECOND)),
            ("duration > 90", _compare("duration", ">", 90 * 1000 * MILLISECOND)),
            ("duration > 1d", _compare("duration", ">", 24 * 60 * MINUTE)),
            ("attempt > 1", _compare("attempt", ">", 1)),
            ("parent != null", Not(_compare("parent", "=", None))),
            ("attrs.customer = c-1", _compare("attrs", "=", "c-1", key="customer")),
            ("attrs.total > 99.5", _compare("attrs", ">", 99.5, key="total")),
            ("attrs.total = -3", _compare("attrs", "=", -3, key="total")),
            ("attrs.total = '3'", _compare("attrs", "=", "3", key="total")),
            ("attrs.paid = TRUE", _compare("attrs", "=", True, key="paid")),
            ("attrs.paid = null", _compare("attrs", "=", None, key="paid")),
            ('attrs."my key" = "a \\"b\\""', _compare("attrs", "=", 'a "b"', key="my key")),
            ("memo.a.b = 1e3", _compare("memo", "=", 1000.0, key="a.b")),
            ("memo.day = 2026-11-25", _compare("memo", "=", "2026-11-25", key="day")),
        ],
    )  # fmt: skip
    def test_of_a_comparison(self, text: str, meaning: Condition) -> None:
        """What a value means depends on its field."""
        assert _parsed(text) == meaning

    def test_and_binds_stronger_than_or(self) -> None:
        """As in SQL; `not` binds what comes next."""
        a, b, c = (_compare("id", "=", name) for name in "abc")
        assert _parsed("id=a or id=b and not id=c") == AnyOf((a, All((b, Not(c)))))
        assert _parsed("(id=a OR id=b) AND NOT (id=c)") == All((AnyOf((a, b)), Not(c)))
        assert _parsed(" \n") is None

    def test_number_of_any_size_is_one_that_a_database_takes(self) -> None:
        """What has more than 64 bits becomes a float, what is larger than any float a text."""
        assert _parsed("attrs.n = 99999999999999999999") == _compare("attrs", "=", 1e20, key="n")
        assert _parsed(f"attrs.n = {'9' * 400}") == _compare("attrs", "=", "9" * 400, key="n")


class TestErrors:
    """A person sees where it went wrong and what would do."""

    @pytest.mark.parametrize(
        ("text", "at", "problem"),
        [
            ('attrs.customer "c-1"', 15, "expected an operator (= != < <= > >= in like) after attrs.customer"),
            ("customer = 1", 0, "no field 'customer'; there are id, type,"),
            ("attrs. = 1", 0, "expected a name after attrs."),
            ("id = ", 5, "expected a value after id ="),
            ("id = a b", 7, "expected `and`, `or` or the end"),
            ("id = a and", 10, "expected a field"),
            ("(id = a", 7, "expected `)`, `and` or `or`"),
            ("id = a)", 6, "expected `and`, `or` or the end"),
            ("id in a", 6, "expected `(` and values"),
            ("id in (a b)", 9, "expected `,` or `)`"),
            ("id in (a, null)", 10, "null is compared with = and != only"),
            ("id = 'a", 5, "this text has no closing quote"),
            ("id ! a", 3, "'!' means nothing here"),
            ("id not = a", 7, "expected `in` or `like` after `not`"),
            ("status = done", 9, "status is compared with one of running, suspended,"),
            ("status < failed", 7, "a status is not larger or smaller"),
            ("started > yesterday", 10, "started is compared with a time such as 2026-11-25"),
            ("started > 2026-13-01", 10, "started is compared with a time"),
            ("started like a*", 8, "started is no text"),
            ("duration > long", 11, "duration is compared with a duration such as 500ms"),
            ("attempt = x", 10, "attempt is compared with a whole number"),
            ("id like '*a*b*c*'", 8, "more than 3 wildcards"),
        ],
    )  # fmt: skip
    def test_says_where_and_what_was_expected(self, text: str, at: int, problem: str) -> None:
        """The pointer stands below the place."""
        with pytest.raises(FilterError) as raised:
            _parsed(text)
        assert raised.value.at == at
        assert problem in raised.value.problem
        _, shown, pointer = str(raised.value).split("\n")
        assert shown == f"  {text}"
        assert pointer == f"  {' ' * at}^"

    def test_shows_only_the_part_of_a_long_text_that_matters(self) -> None:
        """The pointer still stands below the place."""
        text = " and ".join(["id = a"] * 20) + " and x" + " and id = b" * 20
        with pytest.raises(FilterError) as raised:
            _parsed(text)
        _, shown, pointer = str(raised.value).split("\n")
        assert len(shown) < 100
        assert shown[pointer.index("^")] == "x"

    def test_limits(self) -> None:
        """At the limit it is read, one past it is refused with the limit's name in words."""
        assert _parsed(" or ".join(["id=a"] * CONDITIONS_MAX)) is not None
        with pytest.raises(FilterError, match=f"more than {CONDITIONS_MAX} conditions"):
            _parsed(" or ".join(["id=a"] * (CONDITIONS_MAX + 1)))
        deep = DEPTH_MAX - 1
        assert _parsed("(" * deep + "id=a" + ")" * deep) == _compare("id", "=", "a")
        for opening, closing in (("(", ")"), ("not ", "")):
            with pytest.raises(FilterError, match=f"nested deeper than {DEPTH_MAX}"):
                _parsed(opening * DEPTH_MAX + "id=a" + closing * DEPTH_MAX)
        assert _parsed(f"id in ({','.join(['a'] * VALUES_MAX)})") is not None
        with pytest.raises(FilterError, match=f"more than {VALUES_MAX} values"):
            _parsed(f"id in ({','.join(['a'] * (VALUES_MAX + 1))})")
        assert _parsed("id = " + "a" * (CHARACTERS_MAX - 5)) is not None
        with pytest.raises(FilterError, match=f"longer than {CHARACTERS_MAX}"):
            _parsed("id = " + "a" * (CHARACTERS_MAX - 4))


_WORDS = st.sampled_from(
    ["id", "status", "started", "attrs.x", 'attrs."a b"', "=", "!=", "<", "in", "like", "not", "and", "or", "(", ")", ",",
     "'a'", '"', "'", "-2h", "2026-11-25", "null", "running", "12", "1e999", "*", "--", ";", "\\", "\0", "é", "\ud800"]
)  # fmt: skip


@given(st.text() | st.lists(_WORDS).map(" ".join) | st.lists(_WORDS).map("".join))
def test_any_text_is_read_or_refused_with_the_one_error(text: str) -> None:
    """Whatever it is; the place it names is inside the text or at its end."""
    refused: list[FilterError] = []
    try:
        parse_filter(text, NOW_NS)
    except FilterError as error:
        refused.append(error)
    assert all(0 <= error.at <= len(text) and "^" in str(error) for error in refused)


@given(st.integers(0, 2**63 - 1))
def test_time_that_was_written_is_read_again(ns: int) -> None:
    """To the nanosecond."""
    assert parse_iso_ns(iso(ns)) == ns
