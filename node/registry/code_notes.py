"""What Lua code asks for and cannot get: found by reading the text, so these are notes and no problems.

Calls whose argument is no plain text, and those in comments, are not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from typing import Final

from node.registry.entries import Entry, EntryId, Problem, did_you_mean
from node.registry.kinds import LibraryEntry, LuaCode
from node.registry.modules import AVAILABLE, MODULES

# There without being listed.
ALWAYS: Final = frozenset(
    {"errors", "process", "channel", "payload", "string", "table", "math", "coroutine", "os", "package"}
)

_REQUIRE: Final = re.compile(r"""\brequire\s*\(?\s*(["'])([A-Za-z_][\w.]*)\1""")
_CALL: Final = re.compile(r"""\bfuncs\s*\.\s*(?:call|async)\s*\(?\s*(["'])([\w.\-/]+:[\w.\-/:]+)\1""")


def code_notes(entries: Mapping[EntryId, Entry], views: Mapping[EntryId, object]) -> list[Problem]:
    """A note for each module that code requires without its entry listing it, and each function that is not there.

    Both fail when the code is run. Functions of other namespaces are other apps' affair.
    """
    namespaces = {entry.id.partition(":")[0] for entry in entries.values()}
    notes = []
    for view in views.values():
        if not isinstance(view, LuaCode):
            continue
        entry = entries[view.id]
        # A library sees what the code that imports it lists, so of one only the calls are looked at.
        listed = None if isinstance(view, LibraryEntry) else _listed(view, views)
        for number, line in enumerate(view.source_text.splitlines(), 1):
            code = line.partition("--")[0]
            found = [*_missing_modules(code, listed)] if listed is not None else []
            found += _missing_functions(code, entries, namespaces)
            where = entry.line_of(("source",)) if entry.source_file == entry.file else number
            notes += [Problem(entry.source_file, where, view.id, reason) for reason in found]
    return notes


def _missing_modules(code: str, listed: Set[str]) -> Iterator[str]:
    for found in _REQUIRE.finditer(code):
        name = found[2]
        if name in MODULES and name in AVAILABLE and name not in listed:
            yield f"the code requires {name!r}, which the entry does not list under `modules`"


def _missing_functions(code: str, entries: Mapping[EntryId, Entry], namespaces: Set[str]) -> Iterator[str]:
    for found in _CALL.finditer(code):
        name = found[2]
        if name not in entries and name.partition(":")[0] in namespaces:
            yield f"the code calls {name}, which is no entry{did_you_mean(name, entries)}"


def _listed(view: LuaCode, views: Mapping[EntryId, object]) -> Set[str]:
    return ALWAYS | set(view.modules) | {alias for alias, _ in view.imports} | _of_libraries(view, views)


def _of_libraries(view: LuaCode, views: Mapping[EntryId, object]) -> set[str]:
    """The modules of the libraries that an entry imports, and of those that they import."""
    names: set[str] = set()
    seen: set[EntryId] = set()
    left = [target for _, target in view.imports]
    while left:
        target = left.pop()
        library = views.get(target)
        if target in seen or not isinstance(library, LuaCode):
            continue
        seen.add(target)
        names |= set(library.modules)
        left += [other for _, other in library.imports]
    return names
