"""The versions of a registry in the memory of one node: what code has changed since it was loaded, and how to go back.

Pure. Versions are numbered from 1, what the files say. A change makes a new one, all of it or nothing; going to another
version changes only which one is current. Only data entries (`registry.entry`) can change while a node runs: what other
kinds stand for was built from the files when it started.

Invariants: a version never changes; `versions_max` of them are kept, the current one always.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from mesh.failure import Kind
from node.registry.documents import Value
from node.registry.entries import EntryId, name_fault, namespace_fault
from node.registry.finding import Item

DATA_KIND: Final = "registry.entry"
VERSIONS_MAX: Final = 100
ENTRIES_MAX: Final = 100_000  # of the app's own and made ones together
CREATE, UPDATE, DELETE = "entry.create", "entry.update", "entry.delete"

_ENTRY_KEYS: Final = ("id", "kind", "meta", "data")


class Unfit(Exception):
    """Raised when a version does not exist or a change cannot be made. kind: as of the Lua API."""

    def __init__(self, message: str, kind: str = Kind.INVALID, *, retryable: bool = False) -> None:
        self.kind = kind
        self.retryable = retryable
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Version:
    """One state of the registry. previous: the version it was made from."""

    id: int
    previous: int | None
    items: Mapping[EntryId, Item]


class Versions:
    """All versions that are kept, and which is current."""

    def __init__(
        self, items: Iterable[Item], *, versions_max: int = VERSIONS_MAX, entries_max: int = ENTRIES_MAX
    ) -> None:
        first = Version(1, None, {item.id: item for item in sorted(items, key=lambda item: item.id)})
        self._kept = {1: first}
        self._last = 1
        self._versions_max = versions_max
        self._entries_max = entries_max
        self.current = first

    def all(self) -> list[Version]:
        """Return the versions that are kept, oldest first."""
        return list(self._kept.values())

    def get(self, version_id: int) -> Version:
        """Return a version. Raises Unfit."""
        version = self._kept.get(version_id)
        if version is None:
            gone = 0 < version_id <= self._last
            raise Unfit(f"version v{version_id} {'is no longer kept' if gone else 'does not exist'}", Kind.NOT_FOUND)
        return version

    def next_of(self, version_id: int) -> Version | None:
        """Return the newest version that was made from this one."""
        return next((v for v in reversed(self._kept.values()) if v.previous == version_id), None)

    def select(self, version_id: int) -> None:
        """Make another version the current one. Raises Unfit."""
        self.current = self.get(version_id)

    def apply(self, base_id: int, ops: object) -> Version:
        """Make a new version of the current one with changes planned at the version `base_id`. Raises Unfit.

        A change of an entry that is no longer as it was at that version is a conflict.
        """
        if not isinstance(ops, list) or not ops:
            raise Unfit("there are no changes to apply")
        base = self.get(base_id)
        items = dict(self.current.items)
        touched: set[EntryId] = set()
        for op in ops:
            kind, entry = op["kind"], op["entry"] or {}  # an empty table of Lua's comes as a list
            item_id = read_id(entry.get("id"))
            if item_id not in touched and items.get(item_id) is not base.items.get(item_id):
                reason = f"{item_id} has changed since v{base_id}; take a new snapshot"
                raise Unfit(reason, Kind.CONFLICT, retryable=True)
            touched.add(item_id)
            _change(items, kind, item_id, entry)
        if len(items) > self._entries_max:
            raise Unfit(f"a registry may have {self._entries_max} entries, this would make {len(items)}")
        return self._add(items)

    def _add(self, items: dict[EntryId, Item]) -> Version:
        self._last += 1
        self.current = Version(self._last, self.current.id, dict(sorted(items.items())))
        self._kept[self._last] = self.current
        while len(self._kept) > self._versions_max:
            del self._kept[next(iter(self._kept))]
        return self.current


def read_id(given: object) -> EntryId:
    """Return the id that code gave, as a text or as `{ns, name}`. Raises Unfit."""
    if isinstance(given, dict):
        namespace, name = given.get("ns"), given.get("name")
    elif isinstance(given, str) and ":" in given:
        namespace, _, name = given.partition(":")
    else:
        raise Unfit(f"an entry needs an id such as app:name, not {given!r}")
    if not isinstance(namespace, str) or not isinstance(name, str):
        raise Unfit("an id given as a table needs the texts ns and name")
    fault = namespace_fault(namespace) or name_fault(name)
    if fault:
        raise Unfit(fault)
    return EntryId(f"{namespace}:{name}")


def read_items(given: object) -> dict[EntryId, Item]:
    """Return a list of entries of any kind as code gave it, by id. Raises Unfit."""
    if not isinstance(given, list) or not all(isinstance(entry, dict) for entry in given):
        raise Unfit("a list of entries is needed, each a table with id, kind, meta and data")
    items = [_item(read_id(entry.get("id")), entry) for entry in given]
    return {item.id: item for item in items}


def delta(before: Mapping[EntryId, Item], after: Mapping[EntryId, Item]) -> list[dict[str, Any]]:
    """Return the operations that lead from one set of entries to another, by id."""
    ops = []
    for item_id in sorted({*before, *after}):
        old, new = before.get(item_id), after.get(item_id)
        if new is None and old is not None:
            ops.append({"kind": DELETE, "entry": shown(old)})
        elif new is not None and new != old:
            ops.append({"kind": CREATE if old is None else UPDATE, "entry": shown(new)})
    return ops


def shown(item: Item) -> dict[str, Any]:
    """Return an entry as code sees it."""
    return {"id": item.id, "kind": item.kind, "meta": dict(item.meta), "data": item.data}


def _change(items: dict[EntryId, Item], kind: str, item_id: EntryId, entry: dict[str, Any]) -> None:
    old = items.get(item_id)
    if kind == CREATE:
        if old is not None:
            raise Unfit(f"entry {item_id} exists already", Kind.ALREADY_EXISTS)
    elif old is None:
        raise Unfit(f"entry {item_id} does not exist", Kind.NOT_FOUND)
    else:
        _only_data(item_id, old.kind)
    if kind == DELETE:
        del items[item_id]
        return
    item = _item(item_id, entry)
    _only_data(item_id, item.kind)
    items[item_id] = item


def _only_data(item_id: EntryId, kind: str) -> None:
    if kind != DATA_KIND:
        raise Unfit(
            f"{item_id} is a {kind}; while a node runs only entries of the kind {DATA_KIND} can be made, changed and "
            "deleted. Change the registry files and start the node again"
        )


def _item(item_id: EntryId, entry: dict[str, Any]) -> Item:
    kind, meta = entry.get("kind", DATA_KIND), entry.get("meta")
    if not isinstance(kind, str) or not kind:
        raise Unfit(f"{item_id}: kind must be a text")
    unknown = sorted(str(key) for key in entry if key not in _ENTRY_KEYS)
    if unknown:
        raise Unfit(f"{item_id}: unknown field {unknown[0]}; an entry has id, kind, meta and data")
    data: Value = entry.get("data")
    return Item(item_id, kind, _meta(item_id, meta), data)


def _meta(item_id: EntryId, meta: object) -> dict[str, Value]:
    if meta is None or meta == []:  # an empty table of Lua's may come as a list
        return {}
    if not isinstance(meta, dict) or not all(isinstance(key, str) for key in meta):
        raise Unfit(f"{item_id}: meta must be a table with texts as keys")
    return dict(meta)
