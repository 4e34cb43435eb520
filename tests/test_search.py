"""Pages of a projection against a plain reading of the same query, whatever the plan, the order and the page are."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import pytest

import store.projection
import store.search
from mesh.events import Parent
from mesh.instants import parse_iso_ns
from mesh.listing import LIMIT_MAX, ORDERS, BadQuery, ListQuery, read_query
from mesh.subjects import WorkflowKey
from store.filters import All, AnyOf, Compare, Condition, Not, Value, parse_filter
from store.projection import Projection, open_projection
from store.search import DRIVEN_RUNS_MAX
from tests.test_projection import HOUR_NS, NOW_NS, Told

WORKFLOWS = 400
QUERIES = 300
TYPES = ("shop:pay", "shop:ship", "app.orders:pack")
SCALARS: list[Value] = [1, 2, 2.5, -1, "eu", "us", "u%s", "", "EU", "e_", True, False, "1"]


# -- the plain reading -----------------------------------------------------------------------------------------------


def fits(condition: Condition | None, record: Mapping[str, Any]) -> bool:
    """Whether a listed workflow fits a condition, as the language is explained."""
    match condition:
        case None:
            return True
        case All(parts):
            return all(fits(part, record) for part in parts)
        case AnyOf(parts):
            return any(fits(part, record) for part in parts)
        case Not(inner):
            return not fits(inner, record)
        case Compare(field, operator, values):
            held = _values_of(record, field.name, field.key)
            if None in values:
                return not held
            return any(_is(operator, one, value) for one in held for value in values)


def _values_of(record: Mapping[str, Any], name: str, key: str) -> list[Any]:
    if key:
        value = record[name].get(key)
        return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str | int | float)]
    if name in ("started", "ended"):
        return [parse_iso_ns(record[name])] if record[name] else []
    if name == "duration":
        return [parse_iso_ns(record["ended"]) - parse_iso_ns(record["started"])] if record["ended"] else []
    return [record[name]] if record[name] is not None else []


def _is(operator: str, held: Any, value: Any) -> bool:
    if _class(held) != _class(value):
        return False
    match operator:
        case "=" | "in":
            return bool(held == value)
        case "<":
            return bool(held < value)
        case "<=":
            return bool(held <= value)
        case ">":
            return bool(held > value)
        case ">=":
            return bool(held >= value)
        case _:
            escaped = "".join(f"[{c}]" if c in "?[" else c for c in str(value))
            return fnmatchcase(str(held), escaped)


def _class(value: Any) -> str:
    return "bool" if isinstance(value, bool) else "number" if isinstance(value, int | float) else "text"


# -- workflows and queries, made up ----------------------------------------------------------------------------------


def _made_up(draw: random.Random) -> Told:
    told = Told(now_ns=NOW_NS - 3 * HOUR_NS)
    open_runs: list[tuple[str, int]] = []
    for i in range(WORKFLOWS):
        id = f"{draw.choice(('order', 'Order', 'o_r'))}-{draw.randrange(WORKFLOWS // 2)}"
        attrs: dict[str, Any] = {"region": draw.choice(("eu", "eu", "us")), "n": i % 7, "customer": f"c-{i % 40}"}
        if draw.random() < 0.3:
            attrs["mixed"] = draw.choice(SCALARS)
        if draw.random() < 0.2:
            attrs["tags"] = draw.sample(SCALARS, draw.randrange(4))
        parent = Parent("orders", f"p-{draw.randrange(5)}", 1, 1) if draw.random() < 0.2 else None
        step_s = draw.choice((0.0, 0.001, 10.0))
        run = told.start(
            id,
            draw.choice(TYPES),
            after_s=step_s,
            attrs=attrs,
            memo={"n": i % 3},
            parent=parent,
            attempt=1 + (i % 11 == 0),
        )
        open_runs.append((id, run))
        draw.shuffle(open_runs)
        while len(open_runs) > 12 or (open_runs and draw.random() < 0.5):
            ended, of = open_runs.pop()
            told.end(
                ended, of, draw.choice(("completed", "completed", "failed", "canceled", "continued")), after_s=step_s
            )
        if draw.random() < 0.1:
            told.attrs(id, run, {**attrs, "region": "apac", "tags": ["eu", 1]})
    return told


def _comparison(draw: random.Random) -> str:
    comparison = draw.choice(("=", "!=", "<", "<=", ">", ">="))
    scalar = draw.choice(SCALARS)
    literal = f"'{scalar}'" if isinstance(scalar, str) else str(scalar).lower()
    texts = draw.choice(("order-1", "Order-7*", "*-1*", "o_r*", "*", "order-*9", "o?r*"))
    return draw.choice([
        f"attrs.{draw.choice(('region', 'mixed', 'tags', 'n', 'none'))} {comparison} {literal}",
        f"attrs.{draw.choice(('region', 'mixed', 'tags'))} in ({literal}, eu, 2)",
        f"attrs.{draw.choice(('region', 'mixed', 'tags', 'customer'))} like '{draw.choice(('e*', '*u', 'c-1*', '*', 'u%*', '*-3*'))}'",
        f"attrs.{draw.choice(('mixed', 'tags', 'none'))} {draw.choice(('=', '!='))} null",
        f"attrs.n > {draw.randrange(8)} and attrs.n < {draw.randrange(8)}",
        f"attrs.tags > {draw.randrange(3)} and attrs.tags < {draw.randrange(3)}",
        f"attrs.customer = c-{draw.randrange(45)}",
        f"memo.n {comparison} {draw.randrange(3)}",
        f"id {draw.choice(('like', 'not like'))} '{texts}'",
        f"id {comparison} 'order-{draw.randrange(200)}'",
        f"type {draw.choice(('=', '!=', '<', 'like'))} '{draw.choice((*TYPES, 'shop:*', '*pay*', 'none'))}'",
        f"status {draw.choice(('in', 'not in'))} (running, {draw.choice(('failed', 'completed', 'suspended'))})",
        f"status = {draw.choice(('running', 'suspended', 'failed', 'timed-out'))}",
        f"parent {draw.choice(('=', '!='))} {draw.choice(('null', 'p-1', 'p-9'))}",
        f"parent like 'p-{draw.choice(('1', '*', '2*'))}'",
        f"started {comparison} -{draw.randrange(200)}m",
        f"ended {draw.choice(('=', '!='))} null",
        f"ended {comparison} -{draw.randrange(200)}m",
        f"duration {comparison} {draw.randrange(60)}s",
        f"attempt {comparison} {draw.randrange(3)}",
        f"run {comparison} {draw.randrange(2 * WORKFLOWS)}",
        "queue = orders",
    ])  # fmt: skip


def _where(draw: random.Random, depth: int = 0) -> str:
    kind = draw.random()
    if depth >= 3 or kind < 0.45:
        return _comparison(draw)
    if kind < 0.6:
        return f"not ({_where(draw, depth + 1)})"
    word = draw.choice((" and ", " or "))
    return word.join(f"({_where(draw, depth + 1)})" for _ in range(draw.randrange(2, 4)))


def _query(draw: random.Random) -> ListQuery:
    return ListQuery(
        status=tuple(draw.sample(("running", "failed", "completed"), draw.randrange(2))) if draw.random() < 0.3 else (),
        type=draw.choice(TYPES) if draw.random() < 0.15 else "",
        queue=draw.choice(("orders", "none")) if draw.random() < 0.1 else "",
        id=draw.choice(("order-", "Order-1", "o_")) if draw.random() < 0.15 else "",
        where=_where(draw) if draw.random() < 0.9 else "",
        order=draw.choice(("", "-")) + draw.choice(ORDERS),
        limit=draw.choice((1, 7, 50, LIMIT_MAX)),
        all_runs=draw.random() < 0.3,
    )


def _paged(projection: Projection, query: ListQuery) -> Iterator[Mapping[str, Any]]:
    while True:
        page = projection.page(query, NOW_NS)
        assert len(page.workflows) <= query.limit
        yield from page.workflows
        if not page.next:
            return
        query = replace(query, cursor=page.next)


def _plainly(records: list[Mapping[str, Any]], query: ListQuery) -> list[Mapping[str, Any]]:
    condition = parse_filter(query.where, NOW_NS)
    newest = {record["id"]: record["run"] for record in sorted(records, key=lambda record: record["run"])}
    found = [
        record
        for record in records
        if (query.all_runs or newest[record["id"]] == record["run"])
        and (not query.status or record["status"] in query.status)
        and query.type in ("", record["type"])
        and query.queue in ("", record["queue"])
        and record["id"].startswith(query.id)
        and fits(condition, record)
    ]
    name, descending = query.by

    def place(record: Mapping[str, Any]) -> tuple[Any, int]:
        if name == "id":
            return record["id"].encode(), record["run"]
        return (_values_of(record, name, "") or [-1])[0], record["run"]

    return sorted(found, key=place, reverse=descending)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("few", [0, 6, DRIVEN_RUNS_MAX], ids=["by walking", "mixed", "by what few fit"])
def test_pages_are_those_of_a_plain_reading(few: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up workflows and queries, all ways of answering, every page of every answer."""
    monkeypatch.setattr(store.search, "DRIVEN_RUNS_MAX", few)
    monkeypatch.setattr(store.projection, "COMMON_RUNS_MIN", 20)
    draw = random.Random(1000 * seed + few)
    projection = open_projection(None)
    _made_up(draw).into(projection, at_once=50)
    records = projection.page(ListQuery(all_runs=True, limit=LIMIT_MAX), NOW_NS).workflows
    assert len(records) > WORKFLOWS // 2
    answered = 0
    for _ in range(QUERIES // 6):
        query = _query(draw)
        wanted = _plainly(list(records), query)
        assert list(_paged(projection, query)) == wanted, query
        answered += bool(wanted)
    assert answered > QUERIES // 24


class TestCursors:
    """A cursor is the end of a page, and of nothing else."""

    def _page(self, cursor: str = "", **query: Any) -> Any:
        projection = open_projection(None)
        told = Told()
        for i in range(5):
            told.start(f"w-{i}")
        told.into(projection)
        return projection.page(ListQuery(limit=2, cursor=cursor, **query), NOW_NS)

    def test_is_good_at_another_projection_of_the_same_streams(self) -> None:
        """The next request may be answered by another node."""
        first = self._page()
        second = self._page(first.next)
        third = self._page(second.next)
        assert [r["id"] for page in (first, second, third) for r in page.workflows] == [
            f"w-{i}" for i in (4, 3, 2, 1, 0)
        ]
        assert third.next == ""

    @pytest.mark.parametrize("cursor", ["x", "e30", "WzEsMiwzLDRd", "é", "A" * 10_000, "W1tbW1tbW1tbW1tb"])
    def test_that_is_none_is_refused(self, cursor: str) -> None:
        """With one sentence, whatever it is."""
        with pytest.raises(BadQuery, match="the cursor is none of ours"):
            self._page(cursor)

    def test_of_another_query_is_refused(self) -> None:
        """It would skip what nobody has seen."""
        cursor = self._page().next
        with pytest.raises(BadQuery, match="of another query"):
            self._page(cursor, where="id like w*")
        with pytest.raises(BadQuery, match="of another query"):
            self._page(cursor, order="-ended")


class TestQueries:
    """What comes as JSON is a query or is refused with what would do."""

    def test_is_what_it_was_when_it_is_read_again(self) -> None:
        """What is left out has its default."""
        query = ListQuery(status=("running",), where="id = a", order="ended desc", limit=3, all_runs=True)
        assert read_query(query.to_wire()) == query
        assert read_query(None) == read_query({}) == ListQuery()
        assert read_query({"status": "running"}).status == ("running",)

    @pytest.mark.parametrize(
        ("wire", "problem"),
        [
            ([], "no JSON object"),
            ({"state": "running"}, "unknown field 'state'; there are: status, type"),
            ({"status": "done"}, "status 'done': write one of running"),
            ({"status": [1]}, "a text or a list of texts"),
            ({"limit": "5"}, "limit is a whole number"),
            ({"limit": True}, "limit is a whole number"),
            ({"limit": 0}, "1 to 1000"),
            ({"limit": 1001}, "1 to 1000"),
            ({"all_runs": 1}, "all_runs is true or false"),
            ({"order": "size"}, "write one of started, ended, duration, id"),
            ({"order": "started sideways"}, "write one of started"),
        ],
    )
    def test_that_is_wrong_says_what_would_do(self, wire: object, problem: str) -> None:
        """The message names the field."""
        with pytest.raises(BadQuery, match=problem):
            read_query(wire)

    def test_text_that_looks_like_sql_is_a_text(self) -> None:
        """Also in names of attributes, in patterns and in ids."""
        evil = "x' OR 1=1; DROP TABLE runs; --"
        projection = open_projection(None)
        told = Told()
        token = WorkflowKey("q", evil).stored(0).split(".")[4]
        told.start(token, evil, attrs={evil: evil})
        told.start("other")
        told.into(projection)
        quoted = '"' + evil + '"'
        for where in (
            f"id = {quoted}",
            f"type like {quoted}",
            f"attrs.{quoted} = {quoted}",
            f"attrs.{quoted} like {quoted}",
        ):
            assert [r["id"] for r in projection.page(ListQuery(where=where), NOW_NS).workflows] == [evil]
        assert [r["id"] for r in projection.page(ListQuery(id=evil[:5]), NOW_NS).workflows] == [evil]
        assert len(projection.page(ListQuery(), NOW_NS).workflows) == 2
