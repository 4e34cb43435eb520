"""What has to run before what (contract 2.2). Pure: references in, orders and circles out.

A thing needs what its `lifecycle` requires and what its fields `host`, `client`, `driver`, `storage`, `queue` and
`func` refer to. Code and data count for nothing here: they do not start, so nobody waits for them.

Invariants: everything comes after all it needs, and otherwise in the order of ids; stopping goes the same way back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import TypeAlias

from node.registry.documents import FieldPath
from node.registry.entries import Entry, EntryId, Problem
from node.registry.kinds import FUNCTION_KINDS, KNOWN_KINDS, LUA_KINDS, canonical_kind

Needs: TypeAlias = Mapping[EntryId, tuple[EntryId, ...]]
References: TypeAlias = Iterable[tuple[FieldPath, EntryId]]

_FIELDS = frozenset({"host", "client", "driver", "storage", "queue", "func"})
_LIFECYCLE_FIELDS = frozenset({"requires", "depends_on"})


def is_started(kind: str) -> bool:
    """Whether entries of this kind start and stop; the others are code, data, or unknown."""
    kind = canonical_kind(kind)
    return kind in KNOWN_KINDS - LUA_KINDS - FUNCTION_KINDS and kind != "registry.entry" and not kind.startswith("env.")


def needs_of(references: References, entries: Mapping[EntryId, Entry]) -> dict[EntryId, FieldPath]:
    """Return what an entry with these references needs, each with the field that says so."""
    found: dict[EntryId, FieldPath] = {}
    for path, target in sorted(references, key=lambda reference: reference[1]):
        if _is_need(path) and is_started(entries[target].kind):
            found.setdefault(target, path)
    return found


def circles(needs: Needs) -> list[tuple[EntryId, ...]]:
    """Return the circles: each member needs the next one and the last one needs the first, which has the lowest id.

    Of circles that share a member only one is told; the others show when it is mended.
    """
    left = {entry: needs[entry] for entry in sorted(needs)}
    found: list[tuple[EntryId, ...]] = []
    while True:
        try:
            TopologicalSorter(left).prepare()
        except CycleError as error:
            ring: list[EntryId] = error.args[1][:0:-1]  # given with the needed one first, and closed
            first = ring.index(min(ring))
            found.append((*ring[first:], *ring[:first]))
            left = {entry: on for entry, on in left.items() if entry not in ring}
        else:
            return sorted(found)


def circle_problem(ring: tuple[EntryId, ...], entry: Entry, path: FieldPath) -> Problem:
    """Say what is wrong with a circle, at the field with which its first member needs the second."""
    needed = ", which needs ".join([*ring[1:], ring[0]])
    reason = f"{'.'.join(str(p) for p in path)} makes a circle: {ring[0]} needs {needed}; none of them can start first"
    return Problem(entry.file, entry.line_of(path), entry.id, reason)


def start_order(needs: Needs, wanted: Iterable[EntryId]) -> tuple[EntryId, ...]:
    """Return what has to start for the wanted ones to run, in the order to do it. Circles must have been taken out."""
    order: dict[EntryId, None] = {}

    def add(entry: EntryId) -> None:
        if entry not in order:
            for needed in needs.get(entry, ()):
                add(needed)
            order[entry] = None

    for entry in sorted(wanted):
        add(entry)
    return tuple(order)


def stop_order(needs: Needs, running: Collection[EntryId]) -> tuple[EntryId, ...]:
    """Return what runs in the order to stop it: everything before what it needs."""
    return tuple(entry for entry in reversed(start_order(needs, running)) if entry in running)


def dependents(needs: Needs, entry: EntryId) -> frozenset[EntryId]:
    """Return all that cannot run without an entry, itself included."""
    found = {entry}
    size = 0
    while len(found) > size:
        size = len(found)
        found |= {other for other, on in needs.items() if not found.isdisjoint(on)}
    return frozenset(found)


def _is_need(path: FieldPath) -> bool:
    match path:
        case (str(name),):
            return name in _FIELDS
        case ("lifecycle", str(name), _):
            return name in _LIFECYCLE_FIELDS
        case _:
            return False
