"""Reading requests to the control API: a JSON object in, checked values out. Pure.

What is not known is refused: a mistyped field would otherwise be a wish that nobody hears.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from mesh import codec
from mesh.duration import SECOND, BadDuration, parse_duration_ns
from mesh.errors import MeshError
from mesh.spelling import proposal

SHOWN_CHARACTERS_MAX: Final = 80


class BadRequest(MeshError, ValueError):
    """Raised when a request cannot be read as what it should be."""

    code = "bad-request"


class Kind(StrEnum):
    """What a field may hold. DURATION: seconds, or a text as in Go (`1h30m`); read as float seconds."""

    TEXT = "text"
    INTEGER = "integer"
    FLAG = "true or false"
    OBJECT = "object"
    LIST = "list"
    TEXTS = "text or a list of texts"
    DURATION = "duration"
    ANY = "any value"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a request. choices: the only texts it may be. least, most: limits of a number (seconds)."""

    name: str
    kind: Kind
    about: str
    required: bool = False
    choices: tuple[str, ...] = ()
    least: float = -math.inf
    most: float = math.inf

    @property
    def argument(self) -> str:
        """What a verb calls it: durations are in seconds there."""
        return f"{self.name}_s" if self.kind is Kind.DURATION else self.name


def read_request(fields: Iterable[Field], data: bytes) -> dict[str, Any]:
    """The values of the fields that are given, as the arguments of a verb. Raises BadRequest.

    No body at all is an empty object.
    """
    known = {field.name: field for field in fields}
    given = _object(data)
    for name in given:
        if name not in known:
            raise BadRequest(f"no field {_shown(name)}; {proposal(name, known)}")
    missing = [field.name for field in known.values() if field.required and given.get(field.name) is None]
    if missing:
        raise BadRequest(f"the field {missing[0]} is missing: {known[missing[0]].about}")
    # null is nothing said, but where any value may be meant.
    said = {name: value for name, value in given.items() if value is not None or known[name].kind is Kind.ANY}
    return {known[name].argument: _checked(known[name], value) for name, value in said.items()}


def schema_of(fields: Iterable[Field]) -> dict[str, Any]:
    """The fields as a JSON schema."""
    listed = list(fields)
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {field.name: _property(field) for field in listed},
        "additionalProperties": False,
    }
    required = [field.name for field in listed if field.required]
    return schema | ({"required": required} if required else {})


def _object(data: bytes) -> dict[str, Any]:
    if not data.strip():
        return {}
    try:
        value = json.loads(data.decode("utf-8-sig"), parse_constant=_refuse)
    except UnicodeDecodeError:
        raise BadRequest("the request is no UTF-8 text; it must be a JSON object") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise BadRequest(f"the request is no JSON at {where}: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the request is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadRequest(f"the request must be a JSON object, not {_shown(value)}")
    return value


def _checked(field: Field, value: Any) -> Any:
    kind = field.kind
    if kind is Kind.DURATION:
        value = _duration(field, value)
    elif not _fits(kind, value):
        raise BadRequest(f"the field {field.name} must be {_a(kind)}, not {_shown(value)}")
    if field.choices and value not in field.choices:
        hint = proposal(str(value), field.choices, f"write one of {', '.join(field.choices)}")
        raise BadRequest(f"the field {field.name} cannot be {_shown(value)}; {hint}")
    if kind in (Kind.INTEGER, Kind.DURATION) and not field.least <= value <= field.most:
        limits = f"at least {field.least:g}" if value < field.least else f"at most {field.most:g}"
        unit = " seconds" if kind is Kind.DURATION else ""
        raise BadRequest(f"the field {field.name} must be {limits}{unit}, not {_shown(value)}")
    if kind in (Kind.ANY, Kind.LIST, Kind.OBJECT):
        try:
            codec.pack(value)
        except (ValueError, OverflowError) as error:
            raise BadRequest(f"the field {field.name} cannot be sent: {error}") from None
    return value


def _fits(kind: Kind, value: object) -> bool:
    match kind:
        case Kind.TEXT:
            return isinstance(value, str)
        case Kind.INTEGER:
            return isinstance(value, int) and not isinstance(value, bool)
        case Kind.FLAG:
            return isinstance(value, bool)
        case Kind.OBJECT:
            return isinstance(value, dict)
        case Kind.LIST:
            return isinstance(value, list)
        case Kind.TEXTS:
            return isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value))
        case _:
            return True


def _duration(field: Field, value: Any) -> float:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            return parse_duration_ns(value, number_unit_ns=SECOND) / SECOND
        except (BadDuration, OverflowError):
            pass
    raise BadRequest(
        f"the field {field.name} must be a duration, not {_shown(value)}: a number of seconds, or a text such as 1h30m"
    )


_JSON_TYPES: Final[Mapping[Kind, Mapping[str, Any]]] = {
    Kind.TEXT: {"type": "string"},
    Kind.INTEGER: {"type": "integer"},
    Kind.FLAG: {"type": "boolean"},
    Kind.OBJECT: {"type": "object"},
    Kind.LIST: {"type": "array"},
    Kind.TEXTS: {"type": ["string", "array"], "items": {"type": "string"}},
    Kind.DURATION: {"type": ["number", "string"]},
    Kind.ANY: {},
}


def _property(field: Field) -> dict[str, Any]:
    schema: dict[str, Any] = {**_JSON_TYPES[field.kind], "description": field.about}
    if field.choices:
        schema["enum"] = list(field.choices)
    if math.isfinite(field.least):
        schema["minimum"] = field.least
    if math.isfinite(field.most):
        schema["maximum"] = field.most
    return schema


def _a(kind: Kind) -> str:
    return kind.value if kind in (Kind.FLAG, Kind.ANY) else f"{'an' if kind.value[0] in 'aeio' else 'a'} {kind.value}"


def _shown(value: object) -> str:
    text = codec.to_json(value)
    return text if len(text) <= SHOWN_CHARACTERS_MAX else f"{text[:SHOWN_CHARACTERS_MAX]}..."


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
