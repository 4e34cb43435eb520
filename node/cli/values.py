"""What people type as values: durations, JSON, files. A wrong one is answered with what would do."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from mesh.duration import SECOND, BadDuration, parse_duration_ns


class Duration(click.ParamType[float]):
    """A duration as in Go (`1h30m`, `250ms`); a plain number is seconds. The value is float seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read a duration that is not below zero."""
        if isinstance(value, (int, float)):
            return float(value)
        text = str(value).strip()
        try:
            ns = parse_duration_ns(text if not _is_number(text) else float(text), number_unit_ns=SECOND)
        except BadDuration:
            ns = -1
        if ns < 0:
            self.fail(
                f"{value!r} is no duration; write for example 500ms, 30s, 1h30m, or a number of seconds", param, ctx
            )
        return ns / SECOND


class Age(Duration):
    """How long ago something is: a duration, or days (`3d`). The value is float seconds."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read a duration or days."""
        text = str(value).strip()
        if text.endswith("d") and _is_number(text[:-1]) and float(text[:-1]) >= 0:
            return float(text[:-1]) * 86_400
        return super().convert(value, param, ctx)


class JsonValue(click.ParamType[Any]):
    """JSON on the command line, in a file (`@order.json`) or on standard input (`-`)."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read one JSON value; what is no JSON is refused, not sent as text."""
        if not isinstance(value, str):
            return value
        where, text = "", value
        if value == "-":
            where, text = "standard input: ", sys.stdin.read()
        elif value.startswith("@"):
            where = f"{value[1:]}: "
            try:
                text = Path(value[1:]).read_text(encoding="utf-8-sig")
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
                self.fail(f"{where}cannot be read: {reason}", param, ctx)
        try:
            parsed = json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            self.fail(f"{where}{_fault(text, error)}", param, ctx)
        from mesh import codec

        try:
            codec.pack(parsed)
        except (ValueError, OverflowError) as error:
            self.fail(f"{where}cannot be sent: {error}", param, ctx)
        return parsed


class Attribute(click.ParamType[tuple[str, Any]]):
    """`KEY=VALUE`, the value as JSON if it is JSON, else as text."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        """Read one pair."""
        if isinstance(value, tuple):
            return value
        key, equals, text = str(value).partition("=")
        if not (key and equals):
            self.fail(f"{value!r} is not KEY=VALUE", param, ctx)
        try:
            return key, json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError):
            return key, text


class MetricsAddress(click.ParamType[str]):
    """`[HOST]:PORT`, an address to serve metrics on."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check an address."""
        from node.telemetry.address import BadAddress, parse_address

        try:
            parse_address(str(value))
        except BadAddress as error:
            self.fail(str(error), param, ctx)
        return str(value)


DURATION = Duration()
AGE = Age()
METRICS_ADDRESS = MetricsAddress()
JSON = JsonValue()
ATTRIBUTE = Attribute()


def _fault(text: str, error: Exception) -> str:
    shown = text if len(text) <= 60 else f"{text[:57]}..."
    if not text.strip():
        return 'there is nothing; write a JSON value such as 3, "text" or \'{"a": 1}\''
    if isinstance(error, json.JSONDecodeError):
        place = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno} column {error.colno}"
        hint = ""
        if text.strip()[0] not in "{[\"'" and all(c not in text for c in '{}[]"'):
            hint = f"; for a text, write '{json.dumps(text.strip(), ensure_ascii=False)}'"
        elif "'" in text and '"' not in text:
            hint = '; JSON quotes with ", so put the whole into single quotes for the shell'
        return f"not JSON at {place} ({error.msg}): {shown}{hint}"
    return f"not JSON ({error}): {shown}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.lower().strip("+-") not in ("nan", "inf", "infinity")


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
