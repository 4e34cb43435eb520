"""The registry of an app: its entries, their typed views, its code units, and everything that is wrong with it.

Loaded once when a node starts; reads nothing afterwards and never changes. Decoding goes in order: the environment
(it resolves placeholders), clients (workers need their queue prefix), all other kinds, then what only shows between
entries.

Invariants: an entry with a problem has no view; the order of everything is that of ids, so two nodes with the same
files see the same registry; `content_fingerprint` is equal exactly when entries and sources are.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from mesh.errors import NotFound
from node.registry.code_notes import code_notes
from node.registry.decoding import decode_entry
from node.registry.dependencies import Needs, circle_problem, circles, is_started, needs_of, start_order
from node.registry.documents import FieldPath
from node.registry.entries import Entry, EntryId, Problem, RegistryError, did_you_mean, resolve_reference
from node.registry.environment import Environment, build_environment
from node.registry.kinds import (
    CLIENT,
    KNOWN_KINDS,
    LUA_KINDS,
    ClientEntry,
    CodeEntry,
    ConsumerEntry,
    Encryption,
    FunctionEntry,
    KvStoreEntry,
    LibraryEntry,
    MemoryStoreEntry,
    NatsFunctionEntry,
    ProcessEntry,
    ProcessHostEntry,
    QueueDriverEntry,
    QueueEntry,
    ServiceEntry,
    SqliteEntry,
    StartedEntry,
    StoreEntry,
    TerminalHostEntry,
    View,
    WorkerEntry,
    WorkflowEntry,
    canonical_kind,
)
from node.registry.loader import Reading, read_entries
from node.registry.units import CodeUnit, build_unit, import_faults
from node.registry.without_effect import options_without_effect

CompileSource = Callable[[str, str], str | None]

_FINGERPRINT_FORMAT = "registry 1"  # changes when the hashed form does

ViewType = TypeVar("ViewType")


class Registry:
    """The entries of an app. Build it with `load_registry`."""

    def __init__(self, reading: Reading, environ: Mapping[str, str]) -> None:
        self.entries: Mapping[EntryId, Entry] = MappingProxyType(dict(sorted(reading.entries.items())))
        problems = list(reading.problems)
        self.environment: Environment
        self.environment, env_problems = build_environment(self.entries, environ)
        problems += env_problems
        broken = reading.broken | {p.entry for p in env_problems}
        views, needs = _decode(self.entries, broken, self.environment, problems)
        _drop_unfit(self.entries, views, problems)
        _drop_same_types(self.entries, views, problems)
        _drop_circles(self.entries, views, needs, problems)
        self.needs: Needs = MappingProxyType({entry_id: tuple(on) for entry_id, on in needs.items()})
        self._views: Mapping[EntryId, View] = views
        self.problems: tuple[Problem, ...] = tuple(sorted(problems, key=_by_place))
        self.without_effect: tuple[Problem, ...] = tuple(options_without_effect(self.entries, views))
        self.notes: tuple[Problem, ...] = (
            *_unknown_kinds(self.entries), *code_notes(self.entries, views), *_cannot_decrypt(self.entries, views),
            *self.without_effect,
        )  # fmt: skip

    def get(self, entry_id: str) -> Entry | None:
        """Return an entry as written, None if there is none."""
        return self.entries.get(EntryId(entry_id))

    def of_kind(self, kind: str) -> Mapping[EntryId, Entry]:
        """Return the entries of a kind, whichever of its names they use."""
        wanted = canonical_kind(kind)
        return {entry.id: entry for entry in self.entries.values() if canonical_kind(entry.kind) == wanted}

    def resolve(self, reference: str, namespace: str) -> EntryId | None:
        """Return the id of the entry a reference means to code of `namespace`, None if there is no such entry."""
        target = resolve_reference(reference, namespace)
        return target if target in self.entries else None

    def workflows(self) -> Mapping[EntryId, WorkflowEntry]:
        """Return the workflows that can run."""
        return self._of_type(WorkflowEntry)

    def functions(self) -> Mapping[EntryId, FunctionEntry]:
        """Return the functions that can be called, of every kind."""
        return {entry_id: view for entry_id, view in self._views.items() if isinstance(view, FunctionEntry)}

    def libraries(self) -> Mapping[EntryId, LibraryEntry]:
        """Return the libraries."""
        return self._of_type(LibraryEntry)

    def processes(self) -> Mapping[EntryId, ProcessEntry]:
        """Return the processes that can be spawned."""
        return self._of_type(ProcessEntry)

    def clients(self) -> Mapping[EntryId, ClientEntry]:
        """Return the connections."""
        return self._of_type(ClientEntry)

    def workers(self) -> Mapping[EntryId, WorkerEntry]:
        """Return the workers."""
        return self._of_type(WorkerEntry)

    def process_hosts(self) -> Mapping[EntryId, ProcessHostEntry]:
        """Return the hosts processes can be spawned on."""
        return self._of_type(ProcessHostEntry)

    def terminal_hosts(self) -> Mapping[EntryId, TerminalHostEntry]:
        """Return the hosts of a command line."""
        return self._of_type(TerminalHostEntry)

    def services(self) -> Mapping[EntryId, ServiceEntry]:
        """Return the supervised processes."""
        return self._of_type(ServiceEntry)

    def started_at_boot(self) -> tuple[EntryId, ...]:
        """Return what has `auto_start` and all it needs, in the order to start it."""
        views = self._views.values()
        return start_order(self.needs, [v.id for v in views if isinstance(v, StartedEntry) and v.lifecycle.auto_start])

    def stores(self) -> Mapping[EntryId, StoreEntry]:
        """Return the stores, of every kind."""
        stores = (MemoryStoreEntry, KvStoreEntry)
        return {entry_id: view for entry_id, view in self._views.items() if isinstance(view, stores)}

    def queue_drivers(self) -> Mapping[EntryId, QueueDriverEntry]:
        """Return what can keep the messages of queues."""
        return self._of_type(QueueDriverEntry)

    def queues(self) -> Mapping[EntryId, QueueEntry]:
        """Return the message queues."""
        return self._of_type(QueueEntry)

    def consumers(self) -> Mapping[EntryId, ConsumerEntry]:
        """Return the consumers of message queues."""
        return self._of_type(ConsumerEntry)

    def databases(self) -> Mapping[EntryId, SqliteEntry]:
        """Return the databases."""
        return self._of_type(SqliteEntry)

    def code_unit(self, entry_id: str) -> CodeUnit:
        """Return an entry's code with all its libraries. Raises NotFound if the id is not that of sound code."""
        view = self._views.get(EntryId(entry_id))
        if not isinstance(view, CodeEntry):
            raise NotFound(f"no Lua code that can run under {entry_id}; `mesh check` tells what is wrong with an app")
        return build_unit(view, self._views)

    def _of_type(self, view_type: type[ViewType]) -> Mapping[EntryId, ViewType]:
        return {entry_id: view for entry_id, view in self._views.items() if isinstance(view, view_type)}


def load_registry(roots: Path | Sequence[Path], *, strict: bool = False, environ: Mapping[str, str]) -> Registry:
    """Load the registry files below one or several source directories.

    strict: raise RegistryError with all problems if there is any; else what is sound is loaded and the registry lists
    the rest under `problems`.
    environ: the operating system's variables, for placeholders.
    """
    directories = [roots] if isinstance(roots, Path) else list(roots)
    registry = Registry(read_entries(directories), dict(environ))
    if strict and registry.problems:
        raise RegistryError(registry.problems)
    return registry


def check_registry(registry: Registry, compile_source: CompileSource) -> tuple[Problem, ...]:
    """Return all problems of a registry and those of compiling every Lua source, also of entries with other faults.

    compile_source: takes a source and its name; returns None, or an error text `name:line: reason`.
    """
    problems = list(registry.problems)
    compiled: set[tuple[str, str]] = set()
    for entry in registry.entries.values():
        source = entry.data.get("source") if isinstance(entry.data, dict) else None
        if entry.kind not in LUA_KINDS or not isinstance(source, str) or source.startswith("file://"):
            continue
        key = (entry.source_name, source)
        if key in compiled:  # several entries may share a file
            continue
        compiled.add(key)
        error = compile_source(source, entry.source_name)
        if error is not None:
            problems.append(_compile_problem(entry, error))
    return tuple(sorted(problems, key=_by_place))


def content_fingerprint(registry: Registry) -> str:
    """Return a hash of all entries and sources. Nodes with equal ones run the same Lua code and the same settings.

    It covers what the files say, not where they stand, not the environment, and not the code of Python functions.
    """
    content = [[e.id, e.kind, dict(e.meta), e.data] for e in registry.entries.values()]
    text = json.dumps([_FINGERPRINT_FORMAT, content], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _decode(
    entries: Mapping[EntryId, Entry], broken: set[EntryId | None], environment: Environment, problems: list[Problem]
) -> tuple[dict[EntryId, View], dict[EntryId, dict[EntryId, FieldPath]]]:
    """Decode all entries. Returns the views, and what each entry that starts needs, with the field that says so."""
    clients: dict[EntryId, ClientEntry] = {}
    views: dict[EntryId, View] = {}
    needs: dict[EntryId, dict[EntryId, FieldPath]] = {}
    for entry in sorted(entries.values(), key=lambda e: (canonical_kind(e.kind) != CLIENT, e.id)):
        if entry.id in broken:
            continue
        decoded = decode_entry(entry, entries, environment, clients)
        problems += decoded.problems
        if isinstance(decoded.view, ClientEntry):
            clients[entry.id] = decoded.view
        if decoded.view is not None:
            views[entry.id] = decoded.view
        if is_started(entry.kind):
            needs[entry.id] = needs_of(decoded.references, entries)
    return dict(sorted(views.items())), dict(sorted(needs.items()))


def _drop_unfit(entries: Mapping[EntryId, Entry], views: dict[EntryId, View], problems: list[Problem]) -> None:
    """Take out the code entries that cannot run because of what they import."""
    for fault in import_faults(views):
        entry = entries[fault.entry]
        path: FieldPath = ("modules",) if fault.alias is None else ("imports", fault.alias)
        problems.append(Problem(entry.file, entry.line_of(path), entry.id, fault.reason))
        views.pop(fault.entry, None)


def _drop_same_types(entries: Mapping[EntryId, Entry], views: dict[EntryId, View], problems: list[Problem]) -> None:
    """Take out workflows whose type name another one of the same worker has: a start by that name would be a guess."""
    first: dict[tuple[EntryId, str], EntryId] = {}
    for view in list(views.values()):
        if not isinstance(view, WorkflowEntry) or view.worker is None:
            continue
        owner = first.setdefault((view.worker, view.type_name), view.id)
        if owner != view.id:
            entry = entries[view.id]
            reason = f"workflow name {view.type_name!r} on {view.worker} is already that of {owner}"
            problems.append(Problem(entry.file, entry.line_of(("meta",)), entry.id, reason))
            del views[view.id]


def _drop_circles(
    entries: Mapping[EntryId, Entry],
    views: dict[EntryId, View],
    needs: dict[EntryId, dict[EntryId, FieldPath]],
    problems: list[Problem],
) -> None:
    """Take out what would wait for itself."""
    for ring in circles({entry_id: tuple(on) for entry_id, on in needs.items()}):
        problems.append(circle_problem(ring, entries[ring[0]], needs[ring[0]][ring[1 % len(ring)]]))
        for member in ring:
            views.pop(member, None)
            del needs[member]


def _unknown_kinds(entries: Mapping[EntryId, Entry]) -> list[Problem]:
    return [
        Problem(e.file, e.line_of(("kind",)), e.id, f"kind {e.kind!r} has no handler, kept as data{hint}")
        for e in entries.values()
        if e.kind not in KNOWN_KINDS
        for hint in [did_you_mean(e.kind, KNOWN_KINDS, alike=0.9)]
    ]


def _cannot_decrypt(entries: Mapping[EntryId, Entry], views: Mapping[EntryId, View]) -> list[Problem]:
    """A note for each service outside of the mesh that is called in plain, or not at all, though workers encrypt."""
    workers = [view for view in views.values() if isinstance(view, WorkerEntry)]
    required = [view for view in workers if view.options.encryption is Encryption.REQUIRED]
    if required:
        reason = f"reads no encrypted payloads: workflows of {required[0].id}, which requires them, cannot call it"
    elif any(view.options.keys for view in workers):
        reason = "reads no encrypted payloads: calls of it, and its answers, are not encrypted"
    else:
        return []
    return [
        Problem(entries[view.id].file, entries[view.id].line_of(("kind",)), view.id, reason)
        for view in views.values()
        if isinstance(view, NatsFunctionEntry)
    ]


def _compile_problem(entry: Entry, error: str) -> Problem:
    """Place a compile error in the code's own file; for inline code that is the registry file, at the field's line."""
    prefix = f"{entry.source_name}:"
    found = re.match(r"(\d+):\s*(.*)", error.removeprefix(prefix), re.DOTALL) if error.startswith(prefix) else None
    if found is None or entry.source_file == entry.file:
        return Problem(entry.file, entry.line_of(("source",)), entry.id, error)
    return Problem(entry.source_file, int(found[1]), entry.id, found[2])


def _by_place(problem: Problem) -> tuple[str, int, str, str]:
    return str(problem.file), problem.line, problem.entry or "", problem.reason
