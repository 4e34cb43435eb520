"""YAML and JSON texts as plain values, with the line of every field.

Responsible for the text formats alone: what a registry file means is said in `node.registry.loader`.

The values are those of YAML 1.2's core schema: `on`, `yes`, `017` and dates are a string, a string, the number 17 and
strings. They are built here from the parser's events rather than by the library's loader, which is twice as slow and
gives types of its own. Anchors, aliases and the merge key `<<` work. Mapping keys are always strings.

Invariants: a key stands once in a mapping; nesting and the size after following aliases are bounded, so no small text
becomes a large value; nothing is ever constructed from a tag.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from mesh.errors import MeshError

Value: TypeAlias = "bool | int | float | str | list[Value] | dict[str, Value] | None"
FieldPath: TypeAlias = tuple[str | int, ...]

NESTING_MAX = 64  # far above any sensible entry, far below Python's recursion limit
VALUES_MAX = 1_000_000  # values of one file with every alias counted in full

_TAG_PREFIX = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NUMBER_STARTS = frozenset("0123456789+-.")
_JSON_PART = re.compile(r'"(?:[^"\\]|\\.)*"|[][{},:]|[^][{},:"\s]+|\n')


class Unreadable(MeshError, ValueError):
    """Raised when a text is not the YAML or JSON it should be."""

    code = "unreadable"

    def __init__(self, line: int, reason: str) -> None:
        self.line = line
        self.reason = reason
        super().__init__(f"line {line}: {reason}")


@dataclass(frozen=True, slots=True)
class Document:
    """One parsed text: its value and the line (from 1) on which each field or list item starts."""

    value: Value
    lines: Mapping[FieldPath, int]

    def line_of(self, path: FieldPath) -> int:
        """Return the line of `path`, or of the nearest enclosing value whose line is known."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def parse_yaml(text: str) -> Document:
    """Read a text with one YAML document. Raises Unreadable."""
    try:
        return _YamlBuilder().build(YAML(typ="safe", pure=True).parse(text))
    except MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        reason = " ".join(str(part) for part in (e.context, e.problem) if part)
        raise Unreadable(mark.line + 1 if mark else 1, f"not valid YAML: {reason}") from e
    except YAMLError as e:
        raise Unreadable(1, f"not valid YAML: {' '.join(str(e).split())}") from e


def parse_json(text: str) -> Document:
    """Read a JSON text. Raises Unreadable."""
    try:
        value: Value = json.loads(text, object_pairs_hook=_unique_object, parse_constant=_refuse_constant)
    except json.JSONDecodeError as e:
        raise Unreadable(e.lineno, f"not valid JSON: {e.msg}") from e
    except (ValueError, RecursionError) as e:
        raise Unreadable(1, f"not valid JSON: {e}") from e
    return Document(value, _json_lines(text))


@dataclass(slots=True)
class _Open:
    """A mapping or list whose end has not been read yet."""

    value: dict[str, Value] | list[Value]
    path: FieldPath
    anchor: str | None
    size: int = 1
    depth: int = 1
    key: str | None = None
    merging: bool = False
    merges: list[Value] = field(default_factory=list)


class _Anchored(NamedTuple):
    """A finished value an alias may stand for, how many values it holds and how deep it nests."""

    value: Value
    size: int = 1
    depth: int = 0


class _YamlBuilder:
    """Turns the events of one document into its value."""

    def __init__(self) -> None:
        self._lines: dict[FieldPath, int] = {}
        self._anchors: dict[str, _Anchored] = {}
        self._open: list[_Open] = []
        self._values = 0
        self._root: Value = None

    def build(self, events: Iterable[Event]) -> Document:
        documents = 0
        for event in events:
            line = event.start_mark.line + 1
            match event:
                case ScalarEvent():
                    self._scalar(event, line)
                case MappingStartEvent():
                    self._start({}, event, line, "map")
                case SequenceStartEvent():
                    self._start([], event, line, "seq")
                case MappingEndEvent() | SequenceEndEvent():
                    self._end(line)
                case AliasEvent():
                    self._alias(event.anchor, line)
                case DocumentStartEvent():
                    documents += 1
                    if documents > 1:
                        raise Unreadable(line, "a file holds one YAML document, here a second one starts")
                case DocumentEndEvent():
                    self._anchors.clear()
                case _:
                    pass
        return Document(self._root, self._lines)

    def _scalar(self, event: ScalarEvent, line: int) -> None:
        top = self._open[-1] if self._open else None
        if top is not None and isinstance(top.value, dict) and top.key is None:
            if event.anchor:
                self._anchors[event.anchor] = _Anchored(event.value)
            self._start_field(top, event.value, plain=bool(event.implicit[0]), line=line)
            return
        value = _scalar_value(event, line)
        if event.anchor:
            self._anchors[event.anchor] = _Anchored(value)
        self._add(_Anchored(value), line)

    def _start_field(self, top: _Open, key: str, *, plain: bool, line: int) -> None:
        if key in top.value:
            raise Unreadable(line, f"key {key!r} stands twice in one mapping")
        top.key = key
        top.merging = plain and key == "<<"  # a quoted << is a key like any other
        if not top.merging:
            self._lines[(*top.path, key)] = line

    def _start(self, value: dict[str, Value] | list[Value], event: CollectionStartEvent, line: int, name: str) -> None:
        if event.tag not in (None, "!", _TAG_PREFIX + name):
            raise Unreadable(line, f"tag {event.tag} is not supported")
        if len(self._open) >= NESTING_MAX:
            raise Unreadable(line, f"nested deeper than {NESTING_MAX} levels")
        self._open.append(_Open(value, self._next_path(line), event.anchor))

    def _end(self, line: int) -> None:
        done = self._open.pop()
        if isinstance(done.value, dict):
            for merged in done.merges:
                _merge(done.value, merged, line)
        shape = _Anchored(done.value, done.size, done.depth)
        if done.anchor:
            self._anchors[done.anchor] = shape
        self._add(shape, line, finished=True)

    def _alias(self, anchor: str, line: int) -> None:
        if anchor not in self._anchors:
            raise Unreadable(line, f"alias *{anchor} stands for nothing that is complete at this point")
        self._add(self._anchors[anchor], line)

    def _next_path(self, line: int) -> FieldPath:
        """Return where the value that starts now will stand; complain if that place is a mapping's key."""
        if not self._open:
            return ()
        top = self._open[-1]
        if isinstance(top.value, list):
            path = (*top.path, len(top.value))
            self._lines[path] = line
            return path
        if top.key is None:
            raise Unreadable(line, "a mapping key must be a plain text")
        return (*top.path, top.key)

    def _add(self, child: _Anchored, line: int, *, finished: bool = False) -> None:
        """Put a value where it belongs. finished: a mapping or list whose parts have been counted already."""
        if not finished:
            self._values += child.size
            if self._values > VALUES_MAX:
                raise Unreadable(line, f"more than {VALUES_MAX} values, aliases counted in full")
        if len(self._open) + child.depth > NESTING_MAX:
            raise Unreadable(line, f"nested deeper than {NESTING_MAX} levels")
        if not self._open:
            self._root = child.value
            return
        top = self._open[-1]
        top.size += child.size
        top.depth = max(top.depth, child.depth + 1)
        if isinstance(top.value, list):
            if not finished:
                self._lines[(*top.path, len(top.value))] = line
            top.value.append(child.value)
        elif top.key is None:
            raise Unreadable(line, "a mapping key must be a plain text")
        else:
            if top.merging:
                top.merges.append(child.value)
            else:
                top.value[top.key] = child.value
            top.key = None


def _scalar_value(event: ScalarEvent, line: int) -> Value:
    text: str = event.value
    if event.implicit[0]:
        return _plain_value(text, line)
    tag = event.tag
    if tag is None or tag in ("!", _TAG_PREFIX + "str"):
        return text
    value = _plain_value(text, line)
    match tag.removeprefix(_TAG_PREFIX):
        case "int" if isinstance(value, int) and not isinstance(value, bool):
            return value
        case "float" if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        case "bool" if isinstance(value, bool):
            return value
        case "null" if value is None:
            return None
        case "int" | "float" | "bool" | "null" as name:
            raise Unreadable(line, f"{text!r} is not of the type !!{name} it is tagged with")
        case _:
            raise Unreadable(line, f"tag {tag} is not supported")


def _plain_value(text: str, line: int) -> Value:
    """Resolve an unquoted scalar by the core schema."""
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if text[0] not in _NUMBER_STARTS:
        return text
    if _INT.fullmatch(text):
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        try:
            return int(text, base)
        except ValueError as e:  # Python refuses thousands of digits
            raise Unreadable(line, f"not a usable number: {e}") from e
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def _merge(into: dict[str, Value], merged: Value, line: int) -> None:
    for source in merged if isinstance(merged, list) else [merged]:
        if not isinstance(source, dict):
            raise Unreadable(line, "<< takes a mapping or a list of mappings")
        for key, value in source.items():
            into.setdefault(key, value)


def _unique_object(pairs: list[tuple[str, Value]]) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key!r} stands twice in one object")
        found[key] = value
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _json_lines(text: str) -> dict[FieldPath, int]:
    """Find the line of every field and item of a text that is known to be valid JSON."""
    lines: dict[FieldPath, int] = {}
    path: list[str | int] = []
    in_object: list[bool] = []
    expect_key = False
    line = 1

    def place() -> None:
        if in_object and not in_object[-1]:
            lines.setdefault(tuple(path), line)

    for part in _JSON_PART.findall(text):
        match part:
            case "\n":
                line += 1
            case "{" | "[":
                place()
                if len(in_object) >= NESTING_MAX:
                    raise Unreadable(line, f"nested deeper than {NESTING_MAX} levels")
                in_object.append(part == "{")
                expect_key = part == "{"
                path.append("" if expect_key else 0)
            case "}" | "]":
                in_object.pop()
                path.pop()
                expect_key = False
            case ",":
                expect_key = in_object[-1]
                last = path[-1]
                if isinstance(last, int):
                    path[-1] = last + 1
            case ":":
                expect_key = False
            case _ if expect_key:
                path[-1] = json.loads(part)
                lines[tuple(path)] = line
            case _:
                place()
    return lines
