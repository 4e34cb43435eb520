"""What Lua code requires and its entry does not list: found by reading the text, so a note and no problem.

Calls whose argument is no plain text, and those in comments, are not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from node.registry.entries import Entry, EntryId, Problem
from node.registry.kinds import LibraryEntry, LuaCode
from node.registry.modules import AVAILABLE, MODULES

# There without being listed.
ALWAYS: Final = frozenset(
    {"errors", "process", "channel", "payload", "string", "table", "math", "coroutine", "os", "package"}
)

_REQUIRE: Final = re.compile(r"""\brequire\s*\(?\s*(["'])([A-Za-z_][\w.]*)\1""")


def unlisted_modules(entries: Mapping[EntryId, Entry], views: Mapping[EntryId, object]) -> list[Problem]:
    """A note for each module that code requires without its entry listing it: that raises when the code is run."""
    notes = []
    for view in views.values():
        if not isinstance(view, LuaCode) or isinstance(view, LibraryEntry):
            continue  # a library sees what the code that imports it lists
        listed = ALWAYS | set(view.modules) | {alias for alias, _ in view.imports} | _of_libraries(view, views)
        entry = entries[view.id]
        for number, line in enumerate(view.source_text.splitlines(), 1):
            for found in _REQUIRE.finditer(line.partition("--")[0]):
                name = found[2]
                if name in MODULES and name in AVAILABLE and name not in listed:
                    inline = entry.source_file == entry.file
                    where = entry.line_of(("source",)) if inline else number
                    reason = f"the code requires {name!r}, which the entry does not list under `modules`"
                    notes.append(Problem(entry.source_file, where, view.id, reason))
    return notes


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
