"""Which entries a filter of `registry.find` takes (contract 14.4). Pure.

    .kind .name .ns .id    the text, which may hold one `*` for anything
    meta.x                 equal; a list: all its members are in the entry's list
    ~meta.x                a regular expression fits somewhere
    *meta.x ^meta.x $meta.x    contains (a text a text, a list a member), begins with, ends with

Every other key filters nothing; the caller is told, because it is nearly always a slip (`kind` for `.kind`).

A regular expression is searched for on the event loop and Python's engine tries everything: one that repeats a group
with repetitions or alternatives inside takes time without bound on a short text, so it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from node.registry.documents import Value
from node.registry.entries import EntryId
from node.registry.kinds import canonical_kind
from node.registry.meta import find_key

PATTERN_CHARS_MAX: Final = 200

_META = re.compile(r"([~*^$]?)meta\.(.+)", re.DOTALL)
_REPEAT = re.compile(r"[*+]|\{\d*,?\d*\}")
_ATOM = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.", re.DOTALL)


class BadFilter(ValueError):
    """Raised when a filter cannot be understood; the text says which key and why."""


@dataclass(frozen=True, slots=True)
class Item:
    """An entry as code sees it: what the files say, placeholders as they stand."""

    id: EntryId
    kind: str
    meta: Mapping[str, Value]
    data: Value

    @property
    def namespace(self) -> str:
        """What stands before the first colon."""
        return self.id.partition(":")[0]

    @property
    def name(self) -> str:
        """What stands behind it."""
        return self.id.partition(":")[2]


Fits = Callable[[Item], bool]


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter that was understood. ignored: its keys that filter nothing."""

    conditions: tuple[Fits, ...]
    ignored: tuple[str, ...]

    def takes(self, item: Item) -> bool:
        """Whether an entry fits all conditions."""
        return all(fits(item) for fits in self.conditions)


def read_filter(given: object) -> Filter:
    """Understand a filter as it came from Lua, where an empty table may be a list. Raises BadFilter."""
    if isinstance(given, list) and not given:
        given = {}
    if not isinstance(given, dict):
        raise BadFilter("the filter must be a table with texts as keys, such as { ['.kind'] = 'registry.entry' }")
    conditions, ignored = [], []
    for key, value in given.items():
        condition = _condition(key, value) if isinstance(key, str) else None
        if condition is None:
            ignored.append(str(key))
        else:
            conditions.append(condition)
    return Filter(tuple(conditions), tuple(sorted(ignored)))


def _condition(key: str, value: Value) -> Fits | None:
    if key in (".kind", ".name", ".ns", ".id"):
        return _root(key, value)
    found = _META.fullmatch(key)
    if found is None:
        return None
    fits = _fits_meta(key, found[1], value)
    name = found[2]
    return lambda item: any(fits(held) for _, held in find_key(item.meta, name))


def _root(key: str, value: Value) -> Fits:
    if not isinstance(value, str):
        raise BadFilter(f"{key} must be a text")
    if value.count("*") > 1:
        raise BadFilter(f"{key} may hold one * only, not {value!r}")
    head, star, tail = value.partition("*")

    def matches(text: str) -> bool:
        if not star:
            return text == value
        return len(text) >= len(head) + len(tail) and text.startswith(head) and text.endswith(tail)

    match key:
        case ".kind":
            wanted = canonical_kind(value)
            return lambda item: matches(item.kind) or canonical_kind(item.kind) == wanted
        case ".name":
            return lambda item: matches(item.name)
        case ".ns":
            return lambda item: matches(item.namespace)
        case _:
            return lambda item: matches(item.id)


def _fits_meta(key: str, how: str, value: Value) -> Callable[[Value], bool]:
    if how == "":
        if isinstance(value, list):
            members = value
            return lambda held: isinstance(held, list) and all(_holds(held, member) for member in members)
        return lambda held: _same(held, value)
    if how == "*" and not isinstance(value, str):
        return lambda held: isinstance(held, list) and _holds(held, value)
    if not isinstance(value, str):
        raise BadFilter(f"{key} must be a text")
    text = value
    match how:
        case "*":
            return lambda held: text in held if isinstance(held, str) else isinstance(held, list) and text in held
        case "^":
            return lambda held: isinstance(held, str) and held.startswith(text)
        case "$":
            return lambda held: isinstance(held, str) and held.endswith(text)
        case _:
            pattern = _pattern(key, text)
            return lambda held: isinstance(held, str) and pattern.search(held) is not None


def _same(a: Value, b: Value) -> bool:
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _holds(members: list[Value], wanted: Value) -> bool:
    return any(_same(member, wanted) for member in members)


def _pattern(key: str, text: str) -> re.Pattern[str]:
    if len(text) > PATTERN_CHARS_MAX:
        raise BadFilter(f"{key}: a regular expression may have {PATTERN_CHARS_MAX} characters, not {len(text)}")
    if _may_take_for_ever(text):
        raise BadFilter(f"{key}: {text!r} repeats a group that repeats or branches inside; write it without")
    try:
        return re.compile(text)
    except (re.error, OverflowError) as error:
        raise BadFilter(f"{key}: {text!r} is no regular expression: {error}") from error


def _may_take_for_ever(text: str) -> bool:
    """Whether a group with a repetition or an alternative in it is itself repeated."""
    open_groups: list[bool] = []
    inner = False  # whether what is open has a repetition or an alternative in it
    closed_inner = False  # the same for the group that ended right before here
    at = 0
    while at < len(text):
        repeat = _REPEAT.match(text, at)
        if repeat is not None and at > 0:
            if closed_inner:
                return True
            inner, closed_inner = True, False
            at = repeat.end()
            continue
        found = _ATOM.match(text, at)
        atom = found[0] if found is not None else text[at]
        closed_inner = False
        match atom:
            case "(":
                open_groups.append(inner)
                inner = False
            case ")" if open_groups:
                closed_inner = inner
                inner = open_groups.pop() or inner
            case "|":
                inner = True
            case _:
                pass
        at += len(atom)
    return False
