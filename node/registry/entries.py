"""What a registry is made of: entries, their ids, and the problems found with them.

An entry here is what the files say, placeholders untouched; what a kind makes of it is in `node.registry.kinds`.

Invariants: an entry never changes; an id is `namespace:name`, and only its first `:` splits it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NewType

from mesh.errors import MeshError
from mesh.spelling import nearest
from node.registry.documents import Document, FieldPath, Value

EntryId = NewType("EntryId", str)

# Both are parts of NATS subjects: no blanks, no wildcards, no empty token between dots.
_NAMESPACE = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_NAME = re.compile(r"[A-Za-z0-9_/-]+(\.[A-Za-z0-9_/-]+)*")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry as written. `data` has the text of `file://` values in place; `${...}` is left as it stands."""

    id: EntryId
    namespace: str
    name: str
    kind: str
    meta: Mapping[str, Value]
    data: Value
    file: Path
    line: int
    root: Path
    # Field paths start at the entry: ("meta", "type") or, for data, ("pool", "size").
    included: Mapping[FieldPath, str] = field(default_factory=dict)  # file:// values: path below the root
    document: Document = field(default=Document(None, {}), repr=False, compare=False)
    at: FieldPath = ()  # where the entry stands in the document
    data_at: FieldPath = ()  # where its data stands, below `at`

    def line_of(self, path: FieldPath) -> int:
        """Return the line of a field, or of the entry if the field was inherited or its line is not known."""
        below = path if path[:1] == ("meta",) else (*self.data_at, *path)
        for end in range(len(below), 0, -1):
            found = self.document.lines.get((*self.at, *below[:end]))
            if found is not None:
                return found
        return self.line

    @property
    def source_name(self) -> str:
        """Name of the entry's code in error positions: its file below the root, or `file.yaml#name` for inline code."""
        path = self.included.get(("source",))
        return path if path is not None else f"{_below(self.file, self.root)}#{self.name}"

    @property
    def source_file(self) -> Path:
        """The file that holds the entry's code."""
        path = self.included.get(("source",))
        return self.root / path if path is not None else self.file


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """Something wrong with a registry file or entry; `str()` gives one line for people."""

    file: Path
    line: int
    entry: EntryId | None
    reason: str

    def __str__(self) -> str:
        subject = f"{self.entry}: " if self.entry else ""
        return f"{self.file}:{self.line}: {subject}{self.reason}"


class RegistryError(MeshError):
    """Raised when a registry must be free of problems and is not. It lists them all."""

    code = "registry-invalid"

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = "one problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__("\n".join([f"{count} in the registry:", *(f"  {p}" for p in self.problems)]))


def entry_id(namespace: str, name: str) -> EntryId:
    """Build an id from its two parts, which are not checked."""
    return EntryId(f"{namespace}:{name}")


def resolve_reference(reference: str, namespace: str) -> EntryId:
    """Return the id a reference means: a full id as it is, a bare name in the given namespace."""
    return EntryId(reference) if ":" in reference else entry_id(namespace, reference)


def namespace_fault(namespace: str) -> str | None:
    """Say what is wrong with a namespace, None if nothing is."""
    if _NAMESPACE.fullmatch(namespace):
        return None
    return f"bad namespace {namespace!r}: letters, digits, _ and - only, in parts joined by single dots"


def name_fault(name: str) -> str | None:
    """Say what is wrong with an entry's name, None if nothing is."""
    if _NAME.fullmatch(name):
        return None
    return f"bad name {name!r}: letters, digits, _, - and / only, in parts joined by single dots"


def did_you_mean(word: str, known: Iterable[str], *, alike: float = 0.8) -> str:
    """Return `; did you mean "x"?` if a known word is spelled much like this one, else an empty text."""
    close = nearest(word, known, alike=alike)
    return f"; did you mean {close!r}?" if close is not None else ""


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
