"""Typed reading of an entry's fields: takes a value, resolves its placeholders, checks its type, notes what is wrong.

One `EntryReader` per entry collects the problems, so that all of an entry's faults are told at once; a getter that
finds a fault reports it and returns the default. What fields a kind has is said in `node.registry.decoding`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import TypeVar

from mesh.duration import SECOND, BadDuration, parse_duration_ns
from mesh.redaction import unresolved
from node.registry.documents import FieldPath, Value
from node.registry.entries import Entry, EntryId, Problem, did_you_mean, resolve_reference
from node.registry.environment import Environment
from node.registry.kinds import canonical_kind
from node.registry.placeholders import BadPlaceholder, Substituted, substitute

Choice = TypeVar("Choice", bound=StrEnum)

_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG]i?B|B)", re.IGNORECASE)
_UNITS = {
    "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "kib": 1024, "mib": 1024**2, "gib": 1024**3,
}  # fmt: skip


class EntryReader:
    """Reads one entry and collects its problems."""

    def __init__(self, entry: Entry, entries: Mapping[EntryId, Entry], environment: Environment) -> None:
        self.entry = entry
        self.problems: list[Problem] = []
        self.references: list[tuple[FieldPath, EntryId]] = []  # the sound ones, with the fields they stand in
        self._entries = entries
        self._environment = environment
        self._placeholders: dict[str, str] = {}  # what a placeholder gave -> the text with it, for messages

    def report(self, path: FieldPath, reason: str) -> None:
        """Note a problem of the field at `path`. What a variable holds is not shown: it may be a secret."""
        reason = unresolved(reason, self._placeholders)
        problem = Problem(self.entry.file, self.entry.line_of(path), self.entry.id, reason)
        if problem not in self.problems:
            self.problems.append(problem)

    def fields(self) -> Fields:
        """Return the entry's data as fields."""
        data = self.entry.data
        if data is not None and not isinstance(data, dict):
            self.report((), f"data of a {self.entry.kind} must be a mapping")
        return Fields(self, data if isinstance(data, dict) else {}, ())

    def resolved(self, value: Value, path: FieldPath) -> Value:
        """Replace the placeholders in a value; a text that came from a file is code or data and stays as it is."""
        match value:
            case str() if path not in self.entry.included:
                try:
                    found = substitute(value, lambda name: self._environment.get(name, self.entry.namespace))
                except BadPlaceholder as e:
                    self.report(path, f"{_dotted(path)}: {e}")
                    return None
                if found != value:
                    self._placeholders[str(found)] = str(value)
                return found
            case dict():
                return {key: self.resolved(item, (*path, key)) for key, item in value.items()}
            case list():
                return [self.resolved(item, (*path, index)) for index, item in enumerate(value)]
            case _:
                return value

    def reference(self, value: Value, path: FieldPath, kinds: Collection[str] = ()) -> EntryId | None:
        """Return the id a value refers to; the entry must exist and, if kinds are given, be of one of them."""
        if not isinstance(value, str) or not value:
            self.report(path, f"{_dotted(path)} must be the id of an entry")
            return None
        target = resolve_reference(str(value), self.entry.namespace)
        found = self._entries.get(target)
        if found is None:
            hint = did_you_mean(target, self._entries, alike=0.85)
            self.report(path, f"{_dotted(path)}: no entry {target}{hint}")
            return None
        if kinds and canonical_kind(found.kind) not in kinds:
            self.report(path, f"{_dotted(path)}: {target} is a {found.kind}, not a {' or '.join(kinds)}")
            return None
        self.references.append((path, target))
        return target


class Fields:
    """The fields of one mapping of an entry. Call `close` when all have been taken."""

    def __init__(self, reader: EntryReader, values: Mapping[str, Value], at: FieldPath) -> None:
        self._reader = reader
        self._values = values
        self._at = at
        self._taken: set[str] = set()

    def __contains__(self, name: str) -> bool:
        self._taken.add(name)
        return self._values.get(name) is not None

    def value(self, name: str) -> Value:
        """Return a field of any type, placeholders resolved, None if it is absent or null."""
        self._taken.add(name)
        return self._reader.resolved(self._values.get(name), self.path(name))

    def raw(self, name: str) -> Value:
        """Return a field as it was written."""
        self._taken.add(name)
        return self._values.get(name)

    def all(self, numbers: Collection[str] = ()) -> dict[str, Value]:
        """Return every field, placeholders resolved; for mappings whose content is free.

        numbers: the fields in which a placeholder that reads as a number is one, and not a text.
        """
        return {name: _plain(self.value(name), numbers=name in numbers) for name in self._values}

    def path(self, name: str) -> FieldPath:
        """Return the path of a field, for reports."""
        return (*self._at, name)

    def fault(self, name: str, reason: str) -> None:
        """Report a problem of one field; `reason` goes on after the field's name."""
        self._reader.report(self.path(name), f"{_dotted(self.path(name))} {reason}")

    def text(self, name: str, default: str = "") -> str:
        """Return a text."""
        value = self.value(name)
        if value is None:
            return default
        if not isinstance(value, str):
            self.fault(name, f"must be a text, not {_shown(value)}")
            return default
        return str(value)

    def required_text(self, name: str) -> str:
        """Return a text that must be there and not be empty."""
        text = self.text(name)
        if not text and self._values.get(name) in (None, ""):
            self.fault(name, "is required")
        return text

    def optional_text(self, name: str) -> str | None:
        """Return a text, None if it is absent or empty."""
        return self.text(name) or None

    def integer(self, name: str, default: int, *, least: int = 0) -> int:
        """Return a whole number of at least `least`."""
        value = self.value(name)
        if value is None:
            return default
        number = _integer(value)
        if number is None:
            self.fault(name, f"must be a whole number, not {_shown(value)}")
        elif number < least:
            self.fault(name, f"must be at least {least}, not {number}")
        else:
            return number
        return default

    def count(self, name: str, default: int) -> int:
        """Return a size or a number of things; 0 means the default."""
        return self.integer(name, default) or default

    def number(self, name: str, default: float, *, least: float = 0.0, most: float = math.inf) -> float:
        """Return a number from `least` to `most`."""
        value = self.value(name)
        if value is None:
            return default
        number = _number(value)
        if number is None or not math.isfinite(number):
            self.fault(name, f"must be a number, not {_shown(value)}")
        elif number < least:
            self.fault(name, f"must be at least {least:g}, not {number:g}")
        elif number > most:
            self.fault(name, f"must be at most {most:g}, not {number:g}")
        else:
            return number
        return default

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return true or false."""
        value = self.value(name)
        match value:
            case None:
                return default
            case bool():
                return value
            case Substituted() if value in _TRUE:
                return True
            case Substituted() if value in _FALSE:
                return False
            case _:
                self.fault(name, f"must be true or false, not {_shown(value)}")
                return default

    def duration_s(self, name: str, default_s: float, *, number_unit_ns: int = 1) -> float:
        """Return a duration in seconds; a plain number counts units of `number_unit_ns`."""
        value = self.value(name)
        if value is None:
            return default_s
        if isinstance(value, Substituted) and (number := _number(value)) is not None:
            value = number
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            self.fault(name, f"must be a duration such as 10s, not {_shown(value)}")
            return default_s
        try:
            ns = parse_duration_ns(value, number_unit_ns=number_unit_ns)
        except BadDuration as e:
            self.fault(name, f"must be a duration such as 10s: {e}")
            return default_s
        if ns < 0:
            self.fault(name, f"must not be negative, not {_shown(value)}")
            return default_s
        return ns / SECOND

    def optional_duration_s(self, name: str) -> float | None:
        """Return a duration in seconds, None if it is absent."""
        return self.duration_s(name, 0.0) if name in self else None

    def size_bytes(self, name: str, default: int) -> int:
        """Return a number of bytes, as a number or with a unit such as 10MiB; 0 means the default."""
        value = self.value(name)
        if value is None:
            return default
        size = _integer(value)
        if size is None and isinstance(value, str) and (found := _SIZE.fullmatch(value.strip())) is not None:
            size = round(float(found[1]) * _UNITS[found[2].lower()])
        if size is None:
            self.fault(name, f"must be a number of bytes or a size such as 10MiB, not {_shown(value)}")
        elif size < 0:
            self.fault(name, f"must not be negative, not {size}")
        else:
            return size or default
        return default

    def choice(self, name: str, choices: type[Choice], default: Choice) -> Choice:
        """Return one of a closed set of words."""
        text = self.text(name)
        if not text:
            return default
        try:
            return choices(text)
        except ValueError:
            words = [str(c) for c in choices]
            self.fault(name, f"must be one of {', '.join(words)}, not {text!r}{did_you_mean(text, words)}")
            return default

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts."""
        value = self.value(name)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            self.fault(name, "must be a list of texts")
            return ()
        return tuple(str(item) for item in value)

    def items(self, name: str) -> tuple[Value, ...]:
        """Return a list whose items are free."""
        value = self.value(name)
        if value is None:
            return ()
        if not isinstance(value, list):
            self.fault(name, f"must be a list, not {_shown(value)}")
            return ()
        return tuple(_plain(item, numbers=False) for item in value)

    def mapping(self, name: str) -> dict[str, Value]:
        """Return a mapping whose content is free."""
        value = self.value(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.fault(name, f"must be a mapping, not {_shown(value)}")
            return {}
        return value

    def section(self, name: str) -> Fields:
        """Return a mapping as fields of its own; empty if it is absent."""
        value = self.raw(name)
        if value is not None and not isinstance(value, dict):
            self.fault(name, f"must be a mapping, not {_shown(value)}")
        return Fields(self._reader, value if isinstance(value, dict) else {}, self.path(name))

    def reference(self, name: str, kinds: Collection[str] = (), *, required: bool = False) -> EntryId | None:
        """Return the id of the entry a field refers to."""
        value = self.value(name)
        if value is None:
            if required and self._values.get(name) is None:
                self.fault(name, "is required")
            return None
        return self._reader.reference(value, self.path(name), kinds)

    def references(self, name: str) -> tuple[EntryId, ...]:
        """Return the ids of the entries a list refers to."""
        found = (self._reader.reference(text, (*self.path(name), index)) for index, text in enumerate(self.texts(name)))
        return tuple(target for target in found if target is not None)

    def close(self, *accepted: str) -> None:
        """Report fields that were never taken but are spelled like one that is known; others are left alone."""
        known = self._taken.union(accepted)
        for name in self._values:
            if name not in known and (hint := did_you_mean(name, known)):
                self._reader.report(self.path(name), f"unknown field {_dotted(self.path(name))}{hint}")


def _plain(value: Value, *, numbers: bool) -> Value:
    """Forget which texts were placeholders, so that what leaves this module is made of plain types.

    numbers: those that read as a number become one.
    """
    match value:
        case Substituted():
            number: float | None = _integer(value) if numbers else None
            if numbers and number is None:
                number = _number(value)
            return str(value) if number is None else number
        case dict():
            return {key: _plain(item, numbers=numbers) for key, item in value.items()}
        case list():
            return [_plain(item, numbers=numbers) for item in value]
        case _:
            return value


def _integer(value: Value) -> int | None:
    match value:
        case bool():
            return None
        case int():
            return value
        case float() if value.is_integer():
            return int(value)
        case Substituted():
            try:
                return int(value)
            except ValueError:
                return None
        case _:
            return None


def _number(value: Value) -> float | None:
    match value:
        case bool():
            return None
        case int() | float():
            return float(value) if abs(value) < 2**63 else None
        case Substituted():
            try:
                return float(value)
            except ValueError:
                return None
        case _:
            return None


def _dotted(path: FieldPath) -> str:
    return ".".join(str(part) for part in path) or "data"


def _shown(value: Value) -> str:
    match value:
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case bool():
            return str(value).lower()
        case _:
            return repr(value if not isinstance(value, str) else str(value))
