"""The language of `mesh ls --where`: text in, a tree of conditions out. Pure.

    attrs.customer = "c-1" and started > -2h
    type like "shop.*" and not (status in (completed, canceled) or duration < 500ms)
    parent = null and attrs.paid != true

    where   = and { "or" and } ;           and   = unary { "and" unary } ;
    unary   = "not" unary | "(" where ")" | field operator value ;
    operator = "=" | "!=" | "<" | "<=" | ">" | ">=" | "like" | [ "not" ] "in" "(" value { "," value } ")" ;

A word may stand for a text without quotes when it has no blanks and none of `()=!<>,"'`. What a value means depends on
the field: a time is ISO 8601 or a duration from now (`-2h` is two hours ago), a duration is one as Go writes it, an
attribute is a number, true, false or a text.

What it means: a workflow without the value (it has not ended, has no such attribute) fits no comparison but `!=` and
`= null`; an attribute that is a list fits when one of its elements does; numbers, texts and truth values are never
larger or smaller than each other. In a `like`, `*` is any text, all else is itself.

Nothing of a text gets into SQL: `store.search` makes parameters of the values, and the fields are those named here.

Invariant: any text either parses or raises FilterError.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mesh.duration import BadDuration, parse_duration_ns
from mesh.instants import parse_iso_ns
from mesh.listing import STATUSES, BadQuery
from store.runs import text_of

CHARACTERS_MAX: Final = 4096
CONDITIONS_MAX: Final = 64
DEPTH_MAX: Final = 32
VALUES_MAX: Final = 500
# What matching costs grows with the length of the text to this power.
WILDCARDS_MAX: Final = 3

TIMES: Final = ("started", "ended")
TEXTS: Final = ("id", "type", "queue", "parent", "status")
NUMBERS: Final = ("attempt", "run")
FIELDS: Final = ("id", "type", "status", "queue", "started", "ended", "duration", "attempt", "parent", "run")
PREFIXES: Final = ("attrs.", "memo.")
OPERATORS: Final = ("=", "!=", "<", "<=", ">", ">=", "in", "like")

Value = str | int | float | bool | None


class FilterError(BadQuery):
    """Raised when a where-text cannot be read. at: the place, a number of characters from its beginning."""

    code = "bad-filter"

    def __init__(self, text: str, at: int, problem: str) -> None:
        self.at = at
        self.problem = problem
        super().__init__(f"where: {problem}, at character {at + 1}\n{_pointer(text, at)}")


@dataclass(frozen=True, slots=True)
class Field:
    """What is compared. name: one of FIELDS, or `attrs` or `memo`, which have a `key`."""

    name: str
    key: str = ""

    def __str__(self) -> str:
        return f"{self.name}.{self.key}" if self.key else self.name


@dataclass(frozen=True, slots=True)
class Compare:
    """A field and a value. operator: = < <= > >= in like; `!=` and `not in` are a Not around one of these.

    Times and durations are integer nanoseconds. values: the one, or for `in` all.
    """

    field: Field
    operator: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    of: Condition


@dataclass(frozen=True, slots=True)
class All:
    """Every one of these holds."""

    of: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one of these holds."""

    of: tuple[Condition, ...]


Condition = Compare | Not | All | AnyOf


def parse_filter(text: str, now_ns: int) -> Condition | None:
    """Read a where-text; None when there is nothing in it. Raises FilterError."""
    if len(text) > CHARACTERS_MAX:
        raise FilterError(text[:CHARACTERS_MAX], CHARACTERS_MAX, f"longer than {CHARACTERS_MAX} characters")
    return _Parser(text, now_ns).parse()


# -- words -----------------------------------------------------------------------------------------------------------

_TOKEN: Final = re.compile(
    r"""\s*(?:
        (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<sign>!=|<=|>=|==|<>|[=<>(),])
      | (?P<word>(?:[^\s()=!<>,"'])+(?:"(?:[^"\\]|\\.)*")?)
    )""",
    re.VERBOSE | re.DOTALL,
)
_LONG_UNIT: Final = re.compile(r"(?<![.\d])(\d{1,6})([dw])(?=\d|$)")
_NUMBER: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # text, sign, word, end
    text: str
    at: int


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    at = 0
    while True:
        match = _TOKEN.match(text, at)
        if match is None:
            rest = len(text) - len(text[at:].lstrip())
            if rest == len(text):
                return [*found, _Token("end", "", rest)]
            problem = "this text has no closing quote" if text[rest] in "\"'" else f"{text[rest]!r} means nothing here"
            raise FilterError(text, rest, problem)
        kind = str(match.lastgroup)
        found.append(_Token(kind, match[kind], match.start(kind)))
        at = match.end()


def _said(token: _Token) -> str:
    """The text that a token stands for, as it is kept."""
    return text_of(_unquoted(token.text) if token.kind == "text" else token.text)


def _unquoted(quoted: str) -> str:
    return re.sub(r"\\(.)", lambda m: {"n": "\n", "t": "\t"}.get(m[1], m[1]), quoted[1:-1], flags=re.DOTALL)


def _pointer(text: str, at: int) -> str:
    """The part of a text around a place, and below it what points there."""
    first = max(0, at - 50)
    shown = "".join(c if c.isprintable() else " " for c in text[first : at + 30])
    before, after = ("..." if first else ""), ("..." if at + 30 < len(text) else "")
    return f"  {before}{shown}{after}\n  {' ' * (len(before) + at - first)}^"


# -- conditions ------------------------------------------------------------------------------------------------------


class _Parser:
    def __init__(self, text: str, now_ns: int) -> None:
        self._text = text
        self._now_ns = now_ns
        self._tokens = _tokens(text)
        self._next = 0
        self._depth = 0
        self._conditions = 0

    def parse(self) -> Condition | None:
        if self._peek.kind == "end":
            return None
        condition = self._either()
        if self._peek.kind != "end":
            self._fail("expected `and`, `or` or the end")
        return condition

    @property
    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        if token.kind != "end":
            self._next += 1
        return token

    def _is(self, *words: str) -> bool:
        token = self._peek
        return token.kind in ("word", "sign") and token.text.lower() in words

    def _fail(self, problem: str, token: _Token | None = None) -> None:
        raise FilterError(self._text, (token or self._peek).at, problem)

    def _either(self) -> Condition:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            self._fail(f"nested deeper than {DEPTH_MAX}")
        parts = [self._both()]
        while self._is("or"):
            self._take()
            parts.append(self._both())
        self._depth -= 1
        return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))

    def _both(self) -> Condition:
        parts = [self._one()]
        while self._is("and"):
            self._take()
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _one(self) -> Condition:
        if self._is("not"):
            self._take()
            self._depth += 1
            if self._depth > DEPTH_MAX:
                self._fail(f"nested deeper than {DEPTH_MAX}")
            negated = Not(self._one())
            self._depth -= 1
            return negated
        if self._is("("):
            self._take()
            condition = self._either()
            if not self._is(")"):
                self._fail("expected `)`, `and` or `or`")
            self._take()
            return condition
        return self._comparison()

    def _comparison(self) -> Condition:
        self._conditions += 1
        if self._conditions > CONDITIONS_MAX:
            self._fail(f"more than {CONDITIONS_MAX} conditions")
        field = self._field()
        negated = self._is("not")
        if negated:
            self._take()
            if not self._is("in", "like"):
                self._fail("expected `in` or `like` after `not`")
        operator = self._operator(field)
        if operator == "in":
            compare = Compare(field, "in", self._list(field))
        elif operator == "like":
            compare = Compare(field, "like", (self._pattern(field),))
        else:
            negated = operator == "!="
            compare = Compare(field, "=" if negated else operator, (self._value(field, operator),))
        return Not(compare) if negated else compare

    def _field(self) -> Field:
        token = self._take()
        known = ", ".join(FIELDS)
        if token.kind != "word":
            self._fail(f"expected a field ({known}, attrs.NAME, memo.NAME), `not` or `(`", token)
        name = token.text
        for prefix in PREFIXES:
            if name.lower().startswith(prefix):
                key = name[len(prefix) :]
                if key.startswith('"') and key.endswith('"') and len(key) > 1:
                    key = _unquoted(key)
                if not key:
                    self._fail(f"expected a name after {prefix}, such as {prefix}customer", token)
                return Field(prefix[:-1], text_of(key))
        if name.lower() not in FIELDS:
            near = [f"{prefix}{name}" for prefix in PREFIXES]
            self._fail(f"no field {name[:60]!r}; there are {known}; of a workflow's own: {' and '.join(near)}", token)
        return Field(name.lower())

    def _operator(self, field: Field) -> str:
        token = self._take()
        operator = {"==": "=", "<>": "!="}.get(token.text, token.text.lower())
        if token.kind not in ("word", "sign") or operator not in OPERATORS:
            self._fail(f"expected an operator ({' '.join(OPERATORS)}) after {field}", token)
        if operator == "like" and field.name not in (*TEXTS, "attrs", "memo"):
            self._fail(f"{field} is no text, so `like` does not fit; use = != < <= > >=", token)
        if field.name == "status" and operator not in ("=", "!=", "in", "like"):
            self._fail("a status is not larger or smaller than another; use = != in", token)
        return operator

    def _list(self, field: Field) -> tuple[Value, ...]:
        if not self._is("("):
            self._fail(f"expected `(` and values, as in {field} in (a, b)")
        self._take()
        values = [self._value(field, "in")]
        while self._is(","):
            self._take()
            values.append(self._value(field, "in"))
            if len(values) > VALUES_MAX:
                self._fail(f"more than {VALUES_MAX} values in one list")
        if not self._is(")"):
            self._fail("expected `,` or `)`")
        self._take()
        return tuple(values)

    def _pattern(self, field: Field) -> str:
        token = self._take()
        if token.kind not in ("text", "word"):
            self._fail(f'expected a text such as "pre*" after {field} like', token)
        pattern = re.sub(r"\*+", "*", _said(token))
        if pattern.count("*") > WILDCARDS_MAX:
            self._fail(f"more than {WILDCARDS_MAX} wildcards in one pattern", token)
        return pattern

    def _value(self, field: Field, operator: str) -> Value:
        token = self._take()
        if token.kind not in ("text", "word"):
            self._fail(f"expected a value after {field} {operator}", token)
        quoted = token.kind == "text"
        text = _said(token)
        if not quoted and text.lower() == "null":
            if operator not in ("=", "!="):
                self._fail("null is compared with = and != only", token)
            return None
        read: Callable[[str], Value]
        if field.name in ("attrs", "memo"):
            return text if quoted else _scalar(text)
        if field.name in TIMES:
            read, wanted = self._time, "a time such as 2026-11-25, 2026-11-25T10:00:00Z, or -2h for two hours ago"
        elif field.name == "duration":
            read, wanted = _duration, "a duration such as 500ms, 1h30m, or a number of seconds"
        elif field.name in NUMBERS:
            read, wanted = _whole, "a whole number"
        elif field.name == "status":
            read, wanted = _status, f"one of {', '.join(STATUSES)}"
        else:
            return text
        try:
            return read(text)
        except (ValueError, OverflowError):
            self._fail(f"{field} is compared with {wanted}, not with {text[:60]!r}", token)
            raise

    def _time(self, text: str) -> int:
        if text.lower() == "now":
            return self._now_ns
        try:
            ns = self._now_ns + parse_duration_ns(_in_hours(text), number_unit_ns=1)
        except BadDuration:
            return parse_iso_ns(text)
        return min(max(ns, 0), 2**63 - 1)


def _scalar(text: str) -> Value:
    """What a word means as the value of an attribute."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if not _NUMBER.fullmatch(text):
        return text
    try:
        number: int | float = int(text)
    except ValueError:
        number = float(text)
    if isinstance(number, int) and not -(2**63) <= number < 2**63:
        number = float(number) if abs(number) < 10**300 else math.inf
    return text if isinstance(number, float) and not math.isfinite(number) else number


def _duration(text: str) -> int:
    if _NUMBER.fullmatch(text):
        return parse_duration_ns(float(text), number_unit_ns=1_000_000_000)
    return parse_duration_ns(_in_hours(text), number_unit_ns=1)


def _in_hours(text: str) -> str:
    """Go has no unit above the hour; whoever looks for workflows of the last week writes -7d."""
    return _LONG_UNIT.sub(lambda found: f"{int(found[1]) * (24 if found[2] == 'd' else 168)}h", text)


def _whole(text: str) -> int:
    number = int(text)
    if not -(2**63) <= number < 2**63:
        raise ValueError(text)
    return number


def _status(text: str) -> str:
    if text.lower() not in STATUSES:
        raise ValueError(text)
    return text.lower()
