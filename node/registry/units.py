"""Which code a Lua unit runs: its own source and every library it reaches, and whether they fit together.

Pure. Checks what only shows when entries are seen together: imports in a circle, imports of something broken, and
modules a workflow may not reach. Compiling is left to the caller.

Invariants: in a `CodeUnit` a library stands after every library it imports, and once, however many ways lead to it; the
order is that of the entries' `imports`, so it is the same on every node.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from node.registry.entries import EntryId
from node.registry.kinds import CodeEntry, LibraryEntry, View, WorkflowEntry
from node.registry.modules import workflow_fault


@dataclass(frozen=True, slots=True)
class CodeUnit:
    """What a machine needs to run an entry's code.

    method: None for libraries, whose value is whatever their chunk returns.
    imports: alias -> id of one of the unit's libraries.
    libraries: all libraries reached, dependencies first; empty in the libraries themselves.
    """

    entry_id: EntryId
    source_text: str = field(repr=False)
    source_name: str
    method: str | None
    modules: tuple[str, ...]
    imports: tuple[tuple[str, EntryId], ...]
    libraries: tuple[CodeUnit, ...] = ()


@dataclass(frozen=True, slots=True)
class ImportFault:
    """Something wrong between code entries. alias: the import that leads there, None for the entry's own modules."""

    entry: EntryId
    alias: str | None
    reason: str


def build_unit(entry: CodeEntry, views: Mapping[EntryId, View]) -> CodeUnit:
    """Put an entry and its libraries together. `entry` must have passed `import_faults`."""
    libraries = tuple(_unit(library) for library in _reached(entry, views) if library.id != entry.id)
    return _unit(entry, None if isinstance(entry, LibraryEntry) else entry.method, libraries)


def import_faults(views: Mapping[EntryId, View]) -> tuple[ImportFault, ...]:
    """Return what is wrong between the code entries; an entry named in it cannot run.

    views: the entries that are right by themselves. An import of any other is a fault, and so is one of an entry that
    has a fault of this sort itself.
    """
    code = {entry_id: view for entry_id, view in views.items() if isinstance(view, CodeEntry)}
    faults: list[ImportFault] = []
    for entry in code.values():
        cycle = _cycle(entry, code)
        if cycle:
            alias = next(alias for alias, target in entry.imports if target == cycle[1])
            faults.append(ImportFault(entry.id, alias, f"cyclic import: {' -> '.join(cycle)}"))
    bad = {fault.entry for fault in faults}
    spreading = True
    while spreading:
        spreading = False
        for entry in code.values():
            if entry.id in bad:
                continue
            for alias, target in entry.imports:
                if target in bad or target not in code:
                    faults.append(ImportFault(entry.id, alias, f"imports {target}, which has a problem of its own"))
                    bad.add(entry.id)
                    spreading = True
    for entry in code.values():
        if isinstance(entry, WorkflowEntry) and entry.id not in bad:
            faults.extend(_module_faults(entry, code))
    return tuple(faults)


def _module_faults(workflow: WorkflowEntry, code: Mapping[EntryId, CodeEntry]) -> Iterator[ImportFault]:
    for entry in _reached(workflow, code):
        for module in entry.modules:
            if fault := workflow_fault(module):
                through = "" if entry.id == workflow.id else f"library {entry.id}: "
                yield ImportFault(workflow.id, _alias_towards(workflow, entry.id, code), through + fault)


def _alias_towards(workflow: WorkflowEntry, target: EntryId, code: Mapping[EntryId, CodeEntry]) -> str | None:
    """Return the alias of the workflow's import that leads to `target`, None if that is the workflow itself."""
    for alias, first in workflow.imports:
        if any(entry.id == target for entry in _reached(code[first], code)):
            return alias
    return None


def _reached(entry: CodeEntry, views: Mapping[EntryId, View]) -> list[CodeEntry]:
    """Return the entry and all it imports, dependencies first. There must be no cycle."""
    order: dict[EntryId, CodeEntry] = {}

    def visit(current: CodeEntry) -> None:
        if current.id in order:
            return
        for _, target in current.imports:
            library = views[target]
            if isinstance(library, CodeEntry):
                visit(library)
        order[current.id] = current

    visit(entry)
    return list(order.values())


def _cycle(entry: CodeEntry, code: Mapping[EntryId, CodeEntry]) -> list[EntryId] | None:
    """Return a shortest way through imports from the entry back to itself."""
    ways: list[list[EntryId]] = [[entry.id]]
    seen: set[EntryId] = set()
    for way in ways:
        current = code.get(way[-1])
        for _, target in current.imports if current else ():
            if target == entry.id:
                return [*way, target]
            if target not in seen:
                seen.add(target)
                ways.append([*way, target])
    return None


def _unit(entry: CodeEntry, method: str | None = None, libraries: tuple[CodeUnit, ...] = ()) -> CodeUnit:
    return CodeUnit(
        entry_id=entry.id,
        source_text=entry.source_text,
        source_name=entry.source_name,
        method=method,
        modules=entry.modules,
        imports=entry.imports,
        libraries=libraries,
    )
