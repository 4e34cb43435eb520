"""How a query is answered from the tables of `store.projection`: SQL with parameters. Pure.

The theory. Every order has an index that holds, behind its key, all that conditions on a run itself look at, so that a
page is found by walking one index without touching a row: 1,000,000 entries take some 50 ms, whatever is asked and
however little fits. What a walk cannot afford is a look into another table for each entry. So values of attributes
that very many runs have ("eu", true) are bits of a number beside the other fields (`common`); and a condition that few
runs fit (an attribute's value, an id, a parent) is asked first, which gives those runs, and they are sorted. Few is
DRIVEN_RUNS_MAX: reading and sorting so many takes about as long as a walk.

Ties of the key are broken by run (the stream's sequence) and queue, which mean the same in every projection: a cursor
is good at any node.

Invariants: what a person wrote is in the parameters, never in the SQL; the plan fixes which index is used.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2s
from typing import Any, Final, NamedTuple, Protocol

from mesh.listing import STATUSES, BadQuery, ListQuery
from store.filters import All, AnyOf, Compare, Condition, Field, Not, Value
from store.runs import text_of

DRIVEN_RUNS_MAX: Final = 20_000
_OPEN: Final = frozenset({"running", "suspended"})
_KEYS: Final = {"started": "r.started", "ended": "r.ended", "duration": "r.duration", "id": "r.id"}
_BOUNDS: Final = frozenset({"<", "<=", ">", ">=", "like"})
# Codes up to here are looked up in the bits of a parameter: quicker than a list.
_CODES_IN_BITS: Final = 62
_LAST_CHARACTER: Final = "\U0010ffff"


class Sql(NamedTuple):
    """SQL and its parameters."""

    text: str
    params: tuple[Any, ...] = ()


class Vocabulary(Protocol):
    """The words of a projection and the numbers that stand for them in its tables."""

    @property
    def types(self) -> Mapping[str, int]:
        """Workflow types."""
        ...

    @property
    def queues(self) -> Mapping[str, int]:
        """Queues."""
        ...

    def name(self, name: str) -> int | None:
        """An attribute (`attrs.x`) or note (`memo.x`); None when no run has one of that name."""
        ...

    def common(self, name: int, value: object) -> int:
        """The bit of a value that very many runs have (PRESENT: that they have any); 0 when it has none."""
        ...

    def is_list(self, name: str) -> bool:
        """Whether some run has several values under this name."""
        ...


class Place(NamedTuple):
    """Where a page ends: the key it is ordered by, the run and its queue."""

    key: Any
    run: int
    queue: str


@dataclass(frozen=True, slots=True)
class Search:
    """A query, made ready. by: field and whether the largest is first. after: the place the page begins behind."""

    query: ListQuery
    condition: Condition | None
    vocabulary: Vocabulary
    after: Place | None = None
    by: tuple[str, bool] = field(default=("started", True))

    def select(self, read: Callable[[Sql, int], list[int]]) -> Sql:
        """SQL that gives the rows of the page (`n`) in their order, and one more if there are more.

        read: the rows that a SELECT gives, up to a limit.
        """
        conjuncts = _with_ranges(_conjuncts(self._whole_condition()), self.vocabulary)
        driver = self._driver(conjuncts, read)
        if driver is not None:
            asked, rows = driver
            parts = [self._part([one for one in conjuncts if one is not asked], rows)]
        else:
            parts = self._parts_of_alternatives(conjuncts, read) or [self._part(conjuncts, None)]
        if len(parts) == 1:
            return Sql(f"SELECT n FROM ({parts[0].text})", parts[0].params)  # noqa: S608
        united = " UNION ".join(f"SELECT * FROM ({part.text})" for part in parts)  # noqa: S608
        way = "DESC" if self.by[1] else "ASC"
        text = f"SELECT n FROM ({united}) ORDER BY k {way}, run {way}, queue {way} LIMIT ?"  # noqa: S608
        return Sql(text, (*(param for part in parts for param in part.params), self.query.limit + 1))

    def _part(self, conjuncts: list[_Part], driver: Iterable[int] | None) -> Sql:
        """The first rows that fit: of these, or found by walking along an index."""
        compiler = _Compiler(self.vocabulary)
        name, descending = self.by
        if driver is not None:
            rows = json.dumps(sorted(set(driver)))
            source = Sql("(SELECT value AS m FROM json_each(?)) CROSS JOIN runs r ON r.n = m", (rows,))
        else:
            source = Sql(f"runs r INDEXED BY runs_{name}")
        # What is quick first, a look into another table last.
        terms = sorted((compiler.sql(condition) for condition in conjuncts), key=_cost)
        if self.after is not None:
            queue = self.vocabulary.queues.get(self.after.queue, 0)
            sign = "<" if descending else ">"
            place = f"({_KEYS[name]}, r.run, r.queue) {sign} (?, ?, ?)"
            terms.insert(0, Sql(place, (self.after.key, self.after.run, queue)))
        if not self.query.all_runs:
            terms.append(Sql("r.newest = 1"))
        where = " AND ".join(f"({term.text})" for term in terms) or "1"
        way = "DESC" if descending else "ASC"
        text = (
            f"SELECT r.n AS n, {_KEYS[name]} AS k, r.run AS run, r.queue AS queue FROM {source.text} WHERE {where} "  # noqa: S608
            f"ORDER BY {_KEYS[name]} {way}, r.run {way}, r.queue {way} LIMIT ?"
        )
        params = (*source.params, *(param for term in terms for param in term.params), self.query.limit + 1)
        return Sql(text, params)

    def _whole_condition(self) -> Condition | None:
        parts: list[Condition] = []
        if self.query.status:
            parts.append(Compare(Field("status"), "in", self.query.status))
        if self.query.type:
            parts.append(Compare(Field("type"), "=", (text_of(self.query.type),)))
        if self.query.queue:
            parts.append(Compare(Field("queue"), "=", (text_of(self.query.queue),)))
        if self.query.id:
            parts.append(Compare(Field("id"), "begins", (text_of(self.query.id),)))
        if self.condition is not None:
            parts.append(self.condition)
        return All(tuple(parts)) if parts else None

    def _driver(
        self, conjuncts: list[_Part], read: Callable[[Sql, int], list[int]]
    ) -> tuple[_Part | None, list[int]] | None:
        """The condition that the fewest runs fit, and their rows; None when none of them has only few.

        Read once and kept: what reads a whole index for little is not done again.
        """
        compiler = _Compiler(self.vocabulary)
        candidates: list[tuple[_Part | None, Sql | None]] = [(one, compiler.rows(one)) for one in conjuncts]
        if _statuses(conjuncts) <= _OPEN:
            candidates.append((None, Sql("SELECT n FROM runs INDEXED BY runs_open WHERE status <= 1")))
        best: tuple[_Part | None, list[int]] | None = None
        for condition, select in candidates:
            if select is None:
                continue
            rows = read(select, DRIVEN_RUNS_MAX + 1)
            if len(rows) <= DRIVEN_RUNS_MAX and (best is None or len(rows) < len(best[1])):
                best = (condition, rows)
        return best

    def _parts_of_alternatives(self, conjuncts: list[_Part], read: Callable[[Sql, int], list[int]]) -> list[Sql]:
        """One part for those alternatives of an `or` that few runs fit, one for the others; [] without an `or`."""
        for at, condition in enumerate(conjuncts):
            if not isinstance(condition, AnyOf):
                continue
            driven: set[int] = set()
            rest: list[Condition] = []
            for alternative in condition.of:
                driver = self._driver(_with_ranges(_conjuncts(alternative), self.vocabulary), read)
                if driver is None or len(driven) + len(driver[1]) > DRIVEN_RUNS_MAX:
                    rest.append(alternative)
                else:
                    driven |= set(driver[1])
            if len(rest) < len(condition.of):
                parts = [self._part(conjuncts, driven)]
                if rest:
                    parts.append(self._part([*conjuncts[:at], AnyOf(tuple(rest)), *conjuncts[at + 1 :]], None))
                return parts
        return []


def write_cursor(query: ListQuery, place: Place) -> str:
    """The text of a cursor."""
    body = json.dumps([_mark(query), place.key, place.run, place.queue], separators=(",", ":"))
    return base64.urlsafe_b64encode(body.encode()).decode().rstrip("=")


def read_cursor(query: ListQuery) -> Place | None:
    """The place that a query's cursor means; None without one. Raises BadQuery when it is not of this query."""
    if not query.cursor:
        return None
    try:
        body = base64.urlsafe_b64decode(query.cursor + "=" * (-len(query.cursor) % 4))
        mark, key, run, queue = json.loads(body)
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise BadQuery("the cursor is none of ours; take it from the page before as it is") from None
    wanted = str if query.by[0] == "id" else int
    if not (isinstance(key, wanted) and isinstance(run, int) and isinstance(queue, str) and _is_64_bits(key, run)):
        raise BadQuery("the cursor is none of ours; take it from the page before as it is")
    if mark != _mark(query):
        raise BadQuery("the cursor is of another query; repeat that with the same filters and order")
    return Place(key, run, queue)


def _mark(query: ListQuery) -> str:
    """What a cursor's query is recognised by. Relative times in a where-text may mean another instant by now."""
    name, descending = query.by
    said = [sorted(query.status), query.type, query.queue, query.id, query.where.strip(), name, descending]
    return blake2s(json.dumps([*said, query.all_runs]).encode("utf-8", "replace"), digest_size=6).hexdigest()


def _is_64_bits(*values: object) -> bool:
    return all(-(2**63) <= value < 2**63 for value in values if isinstance(value, int))


@dataclass(frozen=True, slots=True)
class _Range:
    """Several bounds of one value of an attribute."""

    field: Field
    bounds: tuple[Compare, ...]


_Part = Condition | _Range


def _with_ranges(conjuncts: list[Condition], vocabulary: Vocabulary) -> list[_Part]:
    """Put bounds of the same attribute together: alone each lets most runs through.

    Not when some run has a list of it, of which one element may fit the one bound and another the other.
    """
    bounds: dict[Field, list[Compare]] = {}
    for condition in conjuncts:
        if isinstance(condition, Compare) and condition.field.key and condition.operator in _BOUNDS:
            bounds.setdefault(condition.field, []).append(condition)
    ranges = {name: of for name, of in bounds.items() if len(of) > 1 and not vocabulary.is_list(str(name))}
    kept: list[_Part] = [c for c in conjuncts if not (isinstance(c, Compare) and c in ranges.get(c.field, ()))]
    return [*kept, *(_Range(name, tuple(of)) for name, of in ranges.items())]


def _statuses(conjuncts: Iterable[_Part]) -> set[str]:
    """The states that a run may be in."""
    statuses = set(STATUSES)
    for condition in conjuncts:
        if isinstance(condition, Compare) and condition.field.name == "status":
            statuses &= {status for status in STATUSES if _fits(status, condition)}
    return statuses


def _cost(term: Sql) -> int:
    return 2 if "SELECT" in term.text else 1 if "GLOB" in term.text or "instr" in term.text else 0


def _conjuncts(condition: Condition | None) -> list[Condition]:
    match condition:
        case None:
            return []
        case Not(Compare(Field("attrs" | "memo"), "=", (None,)) as absent):
            return [replace(absent, operator="present")]
        case All(parts):
            return [conjunct for part in parts for conjunct in _conjuncts(part)]
        case _:
            return [condition]


# -- conditions ------------------------------------------------------------------------------------------------------


class _Compiler:
    """Makes SQL of conditions on the row `r` of `runs`."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def sql(self, condition: _Part) -> Sql:
        """The condition as SQL that is 0 or 1, never NULL: `not` must turn one into the other."""
        match condition:
            case All(parts):
                return _joined(" AND ", [self.sql(part) for part in parts])
            case AnyOf(parts):
                return _joined(" OR ", [self.sql(part) for part in parts])
            case Not(inner):
                sql = self.sql(inner)
                return Sql(f"NOT ({sql.text})", sql.params)
            case Compare():
                return self._compare(condition)
            case _Range(name, bounds):
                code = self._vocabulary.name(str(name))
                within = _joined(" AND ", [_value_sql("a.value", bound) for bound in bounds])
                return Sql("0") if code is None else Sql(f"{_HAS} AND {within.text})", (code, *within.params))

    def rows(self, compare: _Part) -> Sql | None:
        """A SELECT of the rows that fit, through an index; None for what has none of its own."""
        if isinstance(compare, _Range):
            code = self._vocabulary.name(str(compare.field))
            within = _joined(" AND ", [_value_sql("value", bound) for bound in compare.bounds])
            return _NO_ROWS if code is None else _rows_of(code, within)
        if not isinstance(compare, Compare):
            return None
        name, null = compare.field.name, None in compare.values
        if compare.operator == "present":
            code = self._vocabulary.name(str(compare.field))
            return _NO_ROWS if code is None else _rows_of(code, Sql("1"))
        if null:
            return None
        if name in ("attrs", "memo"):
            code = self._vocabulary.name(str(compare.field))
            return _NO_ROWS if code is None else _rows_of(code, _value_sql("value", compare))
        if name == "parent" or (name == "id" and _prefix(compare)):
            value = _text_sql(name, compare)
            # The second term is what the partial index asks for.
            given = " AND parent IS NOT NULL" if name == "parent" else ""
            return Sql(f"SELECT n FROM runs INDEXED BY runs_{name} WHERE {value.text}{given}", value.params)  # noqa: S608
        return None

    def _compare(self, compare: Compare) -> Sql:
        name = compare.field.name
        match name:
            case "attrs" | "memo":
                return self._attribute(compare)
            case "status":
                codes = [code for code, status in enumerate(STATUSES) if _fits(status, compare)]
                return _one_of("r.status", codes, len(STATUSES))
            case "type" | "queue":
                words = self._vocabulary.types if name == "type" else self._vocabulary.queues
                codes = [code for word, code in words.items() if _fits(word, compare)]
                return _one_of(f"r.{name}", codes, len(words))
            case "id":
                return _text_sql("r.id", compare)
            case "parent":
                text = _text_sql("r.parent", compare)
                if None in compare.values:
                    return Sql(f"({text.text} OR r.parent IS NULL)", text.params)
                return Sql(f"(r.parent IS NOT NULL AND {text.text})", text.params)
            case "started":
                return _number_sql("r.started", compare)
            case "ended" | "duration":
                number = _number_sql("r.ended" if name == "ended" else "(r.ended - r.started)", compare)
                if None in compare.values:
                    return Sql(f"(r.ended < 0 OR {number.text})", number.params)
                return Sql(f"(r.ended >= 0 AND {number.text})", number.params)
            case _:
                return _number_sql(f"r.{name}", compare)

    def _present(self, code: int | None) -> Sql:
        """Whether a run has a value of that name."""
        if code is None:
            return Sql("0")
        bit = self._vocabulary.common(code, PRESENT)
        return Sql("(r.common & ?) != 0", (bit,)) if bit else Sql(f"{_HAS})", (code,))

    def _attribute(self, compare: Compare) -> Sql:
        code = self._vocabulary.name(str(compare.field))
        values = tuple(value for value in compare.values if value is not None)
        parts: list[Sql] = []
        if None in compare.values:
            present = self._present(code)
            if compare.operator == "present":
                return present
            parts.append(Sql(f"NOT ({present.text})", present.params))
        if code is not None and compare.operator in ("=", "in"):
            bits = 0
            for value in values:
                bits |= self._vocabulary.common(code, value)
            rare = tuple(value for value in values if not self._vocabulary.common(code, value))
            if bits:
                parts.append(Sql("(r.common & ?) != 0", (bits,)))
            values = rare
        if code is not None and values:
            fits = _value_sql("a.value", Compare(compare.field, compare.operator, values))
            parts.append(Sql(f"{_HAS} AND {fits.text})", (code, *fits.params)))
        return _joined(" OR ", parts) if parts else Sql("0")


# In the place of a value: that a run has one at all.
PRESENT: Final = None
_HAS: Final = "EXISTS (SELECT 1 FROM attrs a INDEXED BY attrs_of_run WHERE a.n = r.n AND a.name = ?"
_NO_ROWS: Final = Sql("SELECT 0 AS n WHERE 0")


def _rows_of(name: int, value: Sql) -> Sql:
    return Sql(f"SELECT n FROM attrs WHERE name = ? AND {value.text}", (name, *value.params))  # noqa: S608


def stored(value: object) -> object:
    """A value as the column `attrs.value` has it: what is true or false is neither a number nor a text there."""
    return (b"\x01" if value else b"\x00") if isinstance(value, bool) else value


def _value_sql(column: str, compare: Compare) -> Sql:
    """Compare a value that may be of any type: numbers come before texts, texts before truth values (SQLite)."""
    if compare.operator in ("like", "begins"):
        return _text_sql(column, compare)
    values = tuple(stored(value) for value in compare.values)
    if compare.operator in ("=", "in"):
        return Sql(f"{column} IN ({_marks(values)})", values)
    (value,) = values
    operator = compare.operator
    if isinstance(value, bytes):
        bounds = f"{column} >= x''"
    elif isinstance(value, str):
        bounds = f"{column} >= '' AND {column} < x''"
    else:
        bounds = f"{column} < ''"
    return Sql(f"({column} {operator} ? AND {bounds})", (value,))


def _text_sql(column: str, compare: Compare) -> Sql:
    values = tuple(value for value in compare.values if value is not None)
    if compare.operator in ("=", "in"):
        return Sql(f"{column} IN ({_marks(values)})", values)
    if not values:
        return Sql("0")
    text = str(values[0])
    if compare.operator not in ("like", "begins"):
        return Sql(f"{column} {compare.operator} ?", (text,))
    prefix = _prefix(compare)
    bounds = Sql(f"{column} >= ? AND {column} < ?", (prefix, prefix + _LAST_CHARACTER))
    if compare.operator == "begins" or text == prefix + "*":
        return Sql(f"({bounds.text})", bounds.params)
    middle = text.strip("*")
    if text == f"*{middle}*" and middle and "*" not in middle:
        return Sql(f"({_is_text(column)}instr({column}, ?) > 0)", (middle,))
    pattern = "".join(f"[{c}]" if c in "?[" else c for c in text)
    if not prefix:
        return Sql(f"({_is_text(column)}{column} GLOB ?)", (pattern,))
    return Sql(f"({bounds.text} AND {column} GLOB ?)", (*bounds.params, pattern))


def _is_text(column: str) -> str:
    """In front of a condition on a value: numbers and truth values are no texts. All others are."""
    return f"{column} >= '' AND {column} < x'' AND " if column.endswith("value") else ""


def _number_sql(column: str, compare: Compare) -> Sql:
    values = tuple(value for value in compare.values if value is not None)
    if compare.operator in ("=", "in"):
        return Sql(f"{column} IN ({_marks(values)})", values)
    return Sql(f"{column} {compare.operator} ?", values) if values else Sql("0")


def _prefix(compare: Compare) -> str:
    """How every text begins that fits."""
    text = str(compare.values[0])
    return text if compare.operator == "begins" else text.partition("*")[0] if compare.operator == "like" else text


def _fits(word: str, compare: Compare) -> bool:
    """Whether a word of a small vocabulary fits; what few words there are is decided here and not in SQL."""
    values = [value for value in compare.values if value is not None]
    if not values:
        return False
    wanted = str(values[0])
    match compare.operator:
        case "=" | "in":
            return word in values
        case "<":
            return word < wanted
        case "<=":
            return word <= wanted
        case ">":
            return word > wanted
        case ">=":
            return word >= wanted
        case "begins":
            return word.startswith(wanted)
        case _:
            return _is_like(word, wanted)


def _is_like(word: str, pattern: str) -> bool:
    first, *rest = pattern.split("*")
    if not rest:
        return word == first
    *middle, last = rest
    if not (word.startswith(first) and word.endswith(last) and len(word) >= len(first) + len(last)):
        return False
    at, end = len(first), len(word) - len(last)
    for part in middle:
        found = word.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def _one_of(column: str, codes: list[int], of: int) -> Sql:
    if not codes:
        return Sql("0")
    # Not worth a look at the column; and one code is one comparison.
    if len(codes) == of:
        return Sql("1")
    if max(codes) <= _CODES_IN_BITS and len(codes) > 1:
        return Sql(f"((? >> {column}) & 1)", (sum(1 << code for code in codes),))
    return Sql(f"{column} IN ({_marks(codes)})", tuple(codes))


def _marks(values: Iterable[Value | object]) -> str:
    return ", ".join("?" for _ in values)


def _joined(word: str, parts: list[Sql]) -> Sql:
    text = word.join(f"({part.text})" for part in parts)
    return Sql(f"({text})", tuple(param for part in parts for param in part.params))
