"""What has to run before what: orders of starting and stopping, circles, dependents."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.registry import (
    EntryId,
    Needs,
    Registry,
    circles,
    dependents,
    load_registry,
    start_order,
    stop_order,
)


def load(root: Path, entries: str) -> Registry:
    (root / "i.yaml").write_text(f"namespace: a\nentries:\n{entries.strip(chr(10))}\n", encoding="utf-8")
    return load_registry(root, environ={})


def told(registry: Registry) -> list[str]:
    return [str(p).partition("i.yaml:")[2] for p in registry.problems]


def graph(text: str) -> Needs:
    """Read `b:a c:a,b`: b needs a, c needs a and b."""
    pairs = [item.split(":") for item in text.split()]
    return {EntryId(name): tuple(EntryId(n) for n in on.split(",") if n) for name, on in pairs}


def ids(text: str) -> list[EntryId]:
    return [EntryId(name) for name in text]


APP = """
  - {name: p, kind: process.lua, source: return 1, meta: {default_host: host}}
  - {name: f, kind: function.lua, source: return 1, method: f}
  - {name: config, kind: registry.entry}
  - {name: strange, kind: what.ever}
  - {name: z-client, kind: temporal.client, address: "nats://h"}
  - {name: worker, kind: temporal.worker, client: z-client, task_queue: q, lifecycle: {auto_start: true}}
  - {name: host, kind: process.host}
  - {name: database, kind: process.service, process: p, host: host}
  - name: api
    kind: process.service
    process: p
    host: "${HOST|host}"
    lifecycle: {auto_start: true, requires: [database, f, config, strange], depends_on: [worker]}
  - {name: never, kind: process.service, process: p, host: host}
  - {name: q-driver, kind: queue.driver.memory}
  - {name: q-queue, kind: queue.queue, driver: q-driver}
  - {name: q-consumer, kind: queue.consumer, queue: q-queue, func: f}
"""


def test_needs_come_from_the_lifecycle_and_from_references_to_what_starts(tmp_path: Path) -> None:
    """Code and data never start, so nobody waits for them; a placeholder is a reference like any other."""
    registry = load(tmp_path, APP)
    assert registry.problems == ()
    assert dict(registry.needs) == {
        "a:api": ("a:database", "a:host", "a:worker"),
        "a:database": ("a:host",),
        "a:host": (),
        "a:never": ("a:host",),
        "a:q-consumer": ("a:q-queue",),
        "a:q-driver": (),
        "a:q-queue": ("a:q-driver",),
        "a:worker": ("a:z-client",),
        "a:z-client": (),
    }


def test_what_starts_at_boot_brings_what_it_needs_along(tmp_path: Path) -> None:
    """The database and the client have no auto_start of their own."""
    assert load(tmp_path, APP).started_at_boot() == ("a:host", "a:database", "a:z-client", "a:worker", "a:api")


def test_a_circle_is_a_problem_that_names_it_and_leaves_its_members_out(tmp_path: Path) -> None:
    registry = load(
        tmp_path,
        """
  - {name: p, kind: process.lua, source: return 1}
  - {name: z, kind: process.service, process: p, host: h, lifecycle: {requires: [x], auto_start: true}}
  - name: x
    kind: process.service
    process: p
    host: h
    lifecycle:
      auto_start: true
      requires: [y]
  - {name: h, kind: process.host, lifecycle: {auto_start: true}}
  - {name: y, kind: process.service, process: p, host: h, lifecycle: {depends_on: [z]}}
  - {name: self, kind: process.service, process: p, host: h, lifecycle: {requires: [self]}}
  - {name: other, kind: process.service, process: p, host: h}
""",
    )
    assert told(registry) == [
        "11: a:x: lifecycle.requires.0 makes a circle: a:x needs a:y, which needs a:z, which needs a:x; "
        "none of them can start first",
        "14: a:self: lifecycle.requires.0 makes a circle: a:self needs a:self; none of them can start first",
    ]
    assert set(registry.services()) == {"a:other"}
    assert registry.started_at_boot() == ("a:h",)


@pytest.mark.parametrize(
    ("needs", "expected"),
    [
        ("a: b:a c:a,b", []),
        ("a:b b:a c:a", ["ab"]),
        ("c:b b:a a:c", ["acb"]),
        ("d:c c:d b:a a:b e:", ["ab", "cd"]),
        ("a:a b:b", ["a", "b"]),
    ],
)
def test_circles_begin_with_the_lowest_id_and_go_the_way_of_the_need(needs: str, expected: list[str]) -> None:
    assert circles(graph(needs)) == [tuple(ring) for ring in expected]


def test_starting_goes_by_need_and_then_by_id_and_stopping_the_same_way_back() -> None:
    needs = graph("a:d b: c:b,a d: e:c")
    assert start_order(needs, ids("ecb")) == tuple("bdace")
    assert start_order(needs, ids("a")) == ("d", "a")
    assert stop_order(needs, ids("abcde")) == ("e", "c", "b", "a", "d")
    assert stop_order(needs, ids("ac")) == ("c", "a")
    assert (start_order(needs, []), stop_order(needs, [])) == ((), ())


def test_dependents_are_all_that_cannot_run_without_an_entry() -> None:
    needs = graph("a: b:a c:b d: e:d,c")
    assert dependents(needs, EntryId("b")) == {"b", "c", "e"}


@given(st.lists(st.frozensets(st.integers(0, 11), max_size=4), max_size=12), st.frozensets(st.integers(0, 11)))
def test_any_order_has_everything_once_and_after_what_it_needs(
    on: list[frozenset[int]], wanted: frozenset[int]
) -> None:
    names = [EntryId(f"{i:02}") for i in range(12)]
    needs = {names[i]: tuple(sorted(names[j] for j in js if j < i)) for i, js in enumerate(on)}
    order = start_order(needs, [names[i] for i in wanted])
    assert circles(needs) == []
    assert len(set(order)) == len(order)
    assert {names[i] for i in wanted} <= set(order)
    for place, entry in enumerate(order):
        assert set(needs.get(entry, ())) <= set(order[:place])
    assert stop_order(needs, order) == start_order(needs, order)[::-1]
