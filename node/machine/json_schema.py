"""JSON Schema for the Lua module `json`: does a value fit a schema, and if not, where and why?

Answers depend on the two texts alone: a schema's references are looked up in itself and among the published
meta-schemas, never on the network, and no clock is read. Schemas without `$schema` are draft 2020-12. Formats are
checked.

Lua has one empty table where JSON has two values, and writes it as `[]`. Where a text was a Lua table, an empty one
therefore fits `object` as well as `array`; in a schema it is what its keyword wants.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, ItemsView
from datetime import date
from functools import lru_cache
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import SchemaError, best_match
from jsonschema.protocols import Validator
from jsonschema.validators import extend, validator_for
from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]  # it has no stubs
from referencing.exceptions import Unresolvable

VALIDATORS_MAX: Final = 256  # compiled schemas kept per process; a program has a few
REASON_CHARACTERS_MAX: Final = 500  # a reason quotes the value, which may be large

_LISTS: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems", "required", "enum", "examples", "type"})
_NAMED: Final = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})


class _Empty(list[Any]):
    """An empty Lua table: an empty list that passes for an empty object too."""

    def items(self) -> ItemsView[str, Any]:
        return {}.items()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, list | dict) and not other

    __hash__ = None


class _Unusable(ValueError):
    pass


def fault(schema: bytes, data: bytes, schema_is_table: bool, data_is_table: bool) -> bytes | None:
    """Return None when the data fits, else what is wrong: `$.items[2].price: -1 is less than the minimum of 0`.

    Both are JSON texts. The flags say which of them the kernel wrote from a Lua value.
    """
    try:
        validator = _compiled(schema, schema_is_table)
        value = _parsed("data", data)
        if data_is_table:
            value = _with_empty_tables(value)
        error = best_match(validator.iter_errors(value))
    except _Unusable as problem:
        return str(problem).encode("utf-8", "replace")
    except Unresolvable as problem:
        return f"schema: the reference {problem.ref!r} leads nowhere; it must be within the schema".encode()
    except RecursionError:
        return b"schema: it refers to itself without end, or the data is nested too deep"
    if error is None:
        return None
    return f"{error.json_path}: {_shortened(error.message)}".encode("utf-8", "replace")


@lru_cache(VALIDATORS_MAX)
def _compiled(text: bytes, is_table: bool) -> Validator:
    schema = _parsed("schema", text)
    if is_table:
        schema = _as_schema(schema)
    if not isinstance(schema, dict | bool):
        raise _Unusable(f"schema: an object or a boolean is expected, got {text[:50].decode('utf-8', 'replace')}")
    try:
        kind = validator_for(schema, default=Draft202012Validator)
        kind.check_schema(schema)  # type: ignore[arg-type]  # true and false are schemas too
    except SchemaError as error:
        raise _Unusable(f"schema: {error.json_path}: {_shortened(error.message)}") from error
    except (TypeError, ValueError, re.error, RecursionError) as error:  # a `$schema` or pattern that is none
        raise _Unusable(f"schema: {error}") from error
    lenient = extend(  # type: ignore[no-untyped-call]  # the stubs leave it out
        kind, type_checker=kind.TYPE_CHECKER.redefine("object", _is_object)
    )
    validator: Validator = lenient(schema, format_checker=_FORMATS, registry=REGISTRY)
    return validator


def _is_object(_checker: object, value: object) -> bool:
    return isinstance(value, dict | _Empty)


def _parsed(what: str, text: bytes) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise _Unusable(f"{what}: no valid JSON: {error}") from error


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _with_empty_tables(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_empty_tables(item) for item in value] if value else _Empty()
    if isinstance(value, dict):
        return {key: _with_empty_tables(item) for key, item in value.items()}
    return value


def _as_schema(value: Any, *, names: bool = False) -> Any:
    """Make objects of the empty tables in a schema, except where its keyword wants a list.

    names: the keys of this object are the data's names, not keywords.
    """
    if isinstance(value, list):
        return [_as_schema(item) if item != [] else {} for item in value] if value else {}
    if not isinstance(value, dict):
        return value
    return {
        key: item
        if item == [] and key in _LISTS and not names
        else item
        if key in ("const", "default", "enum", "examples") and not names
        else _as_schema(item, names=not names and key in _NAMED)
        for key, item in value.items()
    }


def _shortened(text: str) -> str:
    return text if len(text) <= REASON_CHARACTERS_MAX else text[: REASON_CHARACTERS_MAX - 3] + "..."


# -- formats -------------------------------------------------------------------------------------------------------
#
# The library checks some by itself and others only where further packages are installed. Which ones are checked must
# not depend on the node, so the list is closed: those that need nothing, and the rest here.

_TIME: Final = re.compile(r"(\d\d):(\d\d):(\d\d)(\.\d+)?(z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE)
_DURATION: Final = re.compile(r"P(?=.)(\d+W|(\d+Y)?(\d+M)?(\d+D)?(T(?=.)(\d+H)?(\d+M)?(\d+S)?)?)", re.ASCII)
_HOST_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII | re.IGNORECASE)
_FORMATS: Final = FormatChecker(formats=())
for _name in ("email", "idn-email", "ipv4", "ipv6", "regex", "date", "uuid"):
    _FORMATS.checkers[_name] = FormatChecker.checkers[_name]


def _format(name: str) -> Callable[[Callable[[str], bool]], Callable[[str], bool]]:
    def register(fits: Callable[[str], bool]) -> Callable[[str], bool]:
        _FORMATS.checkers[name] = (lambda value: not isinstance(value, str) or fits(value), ValueError)
        return fits

    return register


@_format("time")
def _is_time(text: str) -> bool:
    match = _TIME.fullmatch(text)
    if not match:
        return False
    hour, minute, second = int(match[1]), int(match[2]), int(match[3])
    offset = match[5]
    if len(offset) > 1 and (int(offset[1:3]) > 23 or int(offset[4:]) > 59):
        return False
    return hour < 24 and minute < 60 and second <= 60  # 60: a leap second


@_format("date-time")
def _is_date_time(text: str) -> bool:
    if text[10:11] not in ("T", "t", " ") or not _is_time(text[11:]):
        return False
    date.fromisoformat(text[:10])
    return text[:10].isascii()


@_format("duration")
def _is_duration(text: str) -> bool:
    return _DURATION.fullmatch(text) is not None


@_format("hostname")
def _is_hostname(text: str) -> bool:
    return len(text) <= 253 and all(_HOST_LABEL.fullmatch(label) for label in text.removesuffix(".").split("."))


@_format("uri")
def _is_uri(text: str) -> bool:
    return _is_uri_reference(text) and bool(urlsplit(text).scheme)


@_format("uri-reference")
def _is_uri_reference(text: str) -> bool:
    urlsplit(text)
    return not re.search(r"[^\x21-\x7e]|[\"<>\\^`{|}]|%(?![0-9A-Fa-f]{2})", text)
