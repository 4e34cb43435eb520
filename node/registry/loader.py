"""Reads the registry files below the source directories into entries.

Responsible for which files count, for the shape all entries share (namespace, name, kind, meta, data) and for replacing
`file://` values by the files' texts. Fields that depend on the kind are checked elsewhere.

Invariants: the result depends on the content of the directories alone, not on the order the file system gives; a file
whose shape is wrong gives no entries at all, and every other file still loads; nothing outside a root is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from node.registry.documents import Document, FieldPath, Unreadable, Value, parse_json, parse_yaml
from node.registry.entries import (
    Entry,
    EntryId,
    Problem,
    did_you_mean,
    entry_id,
    name_fault,
    namespace_fault,
)

_SUFFIXES = (".yaml", ".yml", ".json")
_FILE_SCHEME = "file://"
_HEAD_KEYS = ("version", "namespace", "meta", "entries")
_ENTRY_KEYS = ("name", "kind", "meta")
# Foreign files (lock files, API descriptions) can be large and our YAML parser is slow; above this size a file is only
# parsed if the word `namespace` stands in it at all.
_UNSEEN_BYTES_MAX = 64 * 1024


@dataclass(slots=True)
class Reading:
    """What was read: entries by id, the problems, and the entries that cannot be used because of one."""

    entries: dict[EntryId, Entry] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    broken: set[EntryId] = field(default_factory=set)


def read_entries(roots: Sequence[Path]) -> Reading:
    """Read every registry file below the roots. Problems are collected, none is raised."""
    reading = Reading()
    seen: set[Path] = set()
    for given in roots:
        root = given.resolve()
        if not root.is_dir():
            reading.problems.append(Problem(given, 1, None, "is not a directory"))
            continue
        for path in _registry_files(root):
            if path.resolve() not in seen:  # roots may overlap
                seen.add(path.resolve())
                _read_file(path, root, reading)
    return reading


def _registry_files(root: Path) -> Iterator[Path]:
    for directory, subdirectories, files in os.walk(root):
        # Dot directories hold tools' files (.git, .venv), never an app's.
        subdirectories[:] = sorted(d for d in subdirectories if d != "node_modules" and not d.startswith("."))
        for name in sorted(files):
            if name.endswith(_SUFFIXES):
                yield Path(directory, name)


def _read_file(path: Path, root: Path, reading: Reading) -> None:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if len(text) > _UNSEEN_BYTES_MAX and "namespace" not in text:
            return
        document = parse_json(text) if path.suffix == ".json" else parse_yaml(text)
    except Unreadable as e:
        reading.problems.append(Problem(path, e.line, None, e.reason))
        return
    except (OSError, UnicodeDecodeError) as e:
        reading.problems.append(Problem(path, 1, None, f"cannot be read: {_why(e)}"))
        return
    if not isinstance(document.value, dict) or document.value.get("namespace") is None:
        return
    entries, problems = _File(path, root, document, document.value).entries()
    reading.problems.extend(problems)
    if problems:
        return
    for entry in entries:
        _admit(entry, reading)


def _admit(entry: Entry, reading: Reading) -> None:
    """Take an entry over into the reading: give it its files' texts and refuse an id that exists."""
    first = reading.entries.get(entry.id)
    if first is not None:
        where = f"{first.file}:{first.line}"
        reading.problems.append(Problem(entry.file, entry.line, entry.id, f"duplicate id, first defined at {where}"))
        return
    inclusion = _Inclusion(entry)
    complete = inclusion.complete()
    reading.entries[entry.id] = complete
    if inclusion.problems:
        reading.problems.extend(inclusion.problems)
        reading.broken.add(entry.id)


@dataclass(frozen=True, slots=True)
class _File:
    """A parsed registry file."""

    path: Path
    root: Path
    document: Document
    head: Mapping[str, Value]

    def entries(self) -> tuple[list[Entry], list[Problem]]:
        """Return the file's entries and everything that is wrong with its shape."""
        problems: list[Problem] = []
        namespace, meta = self.head["namespace"], self.head.get("meta")
        if not isinstance(namespace, str):
            problems.append(self._problem(("namespace",), "namespace must be a text"))
            return [], problems
        if fault := namespace_fault(namespace):
            problems.append(self._problem(("namespace",), fault))
            return [], problems
        if meta is not None and not isinstance(meta, dict):
            problems.append(self._problem(("meta",), "meta must be a mapping"))
            return [], problems
        entries = []
        for at, fields in self._raw_entries(problems):
            entry = self._entry(namespace, meta or {} if at else {}, at, fields, problems)
            if entry is not None:
                entries.append(entry)
        return entries, problems

    def _raw_entries(self, problems: list[Problem]) -> Iterator[tuple[FieldPath, Mapping[str, Value]]]:
        if "entries" not in self.head:
            if "name" in self.head or "kind" in self.head:
                yield (), {key: value for key, value in self.head.items() if key not in ("version", "namespace")}
                return
            problems.extend(self._misspelt_head())
            return
        problems.extend(self._misspelt_head())
        listed = self.head["entries"]
        if listed is None:
            return
        if not isinstance(listed, list):
            problems.append(self._problem(("entries",), "entries must be a list"))
            return
        for index, fields in enumerate(listed):
            if isinstance(fields, dict):
                yield ("entries", index), fields
            else:
                problems.append(self._problem(("entries", index), "an entry must be a mapping"))

    def _misspelt_head(self) -> Iterator[Problem]:
        for key in self.head:
            if key not in _HEAD_KEYS and (hint := did_you_mean(key, _HEAD_KEYS)):
                yield self._problem((key,), f"unknown field {key!r}{hint}")

    def _entry(
        self,
        namespace: str,
        inherited: Mapping[str, Value],
        at: FieldPath,
        fields: Mapping[str, Value],
        problems: list[Problem],
    ) -> Entry | None:
        name, kind, meta = fields.get("name"), fields.get("kind"), fields.get("meta")
        known_id = entry_id(namespace, name) if isinstance(name, str) and name else None
        faults: list[tuple[FieldPath, str]] = []
        for key, value in (("name", name), ("kind", kind)):
            if value is None or value == "":
                slip = next((k for k in fields if k not in _ENTRY_KEYS and did_you_mean(k, (key,), alike=0.75)), None)
                faults.append(((), f"{key} is missing" + (f"; is {slip!r} meant to be it?" if slip else "")))
            elif not isinstance(value, str):
                faults.append(((key,), f"{key} must be a text"))
        if isinstance(name, str) and name and (fault := name_fault(name)):
            faults.append((("name",), fault))
        if meta is not None and not isinstance(meta, dict):
            faults.append((("meta",), "meta must be a mapping"))
        if faults or known_id is None or not isinstance(kind, str) or not isinstance(name, str):
            problems.extend(self._problem((*at, *path), reason, known_id) for path, reason in faults)
            return None
        has_data = "data" in fields
        return Entry(
            id=known_id,
            namespace=namespace,
            name=name,
            kind=kind,
            meta={**inherited, **(meta if isinstance(meta, dict) else {})},
            data=fields["data"] if has_data else {k: v for k, v in fields.items() if k not in _ENTRY_KEYS},
            file=self.path,
            line=self.document.line_of((*at, "name")),
            root=self.root,
            document=self.document,
            at=at,
            data_at=("data",) if has_data else (),
        )

    def _problem(self, path: FieldPath, reason: str, entry: EntryId | None = None) -> Problem:
        return Problem(self.path, self.document.line_of(path), entry, reason)


class _Inclusion:
    """Replaces the `file://` values of one entry by the files' texts. A value that cannot be replaced stays."""

    def __init__(self, entry: Entry) -> None:
        self.problems: list[Problem] = []
        self._entry = entry
        self._included: dict[FieldPath, str] = {}

    def complete(self) -> Entry:
        e = self._entry
        meta = {key: self._replace(value, ("meta", key)) for key, value in e.meta.items()}
        data = self._replace(e.data, ())
        if not self._included:
            return e
        return replace(e, meta=meta, data=data, included=self._included)

    def _replace(self, value: Value, path: FieldPath) -> Value:
        match value:
            case str() if value.startswith(_FILE_SCHEME):
                return self._text(value, path)
            case dict():
                return {key: self._replace(item, (*path, key)) for key, item in value.items()}
            case list():
                return [self._replace(item, (*path, index)) for index, item in enumerate(value)]
            case _:
                return value

    def _text(self, value: str, path: FieldPath) -> str:
        reference = value.removeprefix(_FILE_SCHEME)
        root, base = self._entry.root, self._entry.file.parent
        target = root / reference.lstrip("/") if reference.startswith("/") else base / reference
        try:
            real = target.resolve()
            if not real.is_relative_to(root):
                return self._failed(value, path, "leaves the source directory")
            text = real.read_text(encoding="utf-8")
        except FileNotFoundError:
            return self._failed(value, path, "no such file")
        except (OSError, ValueError, RuntimeError) as e:
            return self._failed(value, path, _why(e))
        self._included[path] = real.relative_to(root).as_posix()
        return text

    def _failed(self, value: str, path: FieldPath, reason: str) -> str:
        e = self._entry
        field_name = ".".join(str(part) for part in path)
        self.problems.append(Problem(e.file, e.line_of(path), e.id, f"{field_name}: {value}: {reason}"))
        return value


def _why(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 text (byte {error.start})"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)
