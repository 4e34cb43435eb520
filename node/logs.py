"""How this process logs: key=value lines on a terminal, one JSON object per line elsewhere, always on stderr.

The code logs through the standard library (`logging.getLogger(__name__)`); what it passes as `extra` (workflow, run,
queue, function) becomes fields, and what is true of the whole process (the node's id) is added here. Only programs
call `set_up`: imported as a library, nothing here touches anybody's logging.

Invariant: a line is one line; text with line breaks, as Lua code may print, is escaped. In text form the frames of a
failed unit of Lua code (`stack`) follow below it, indented, as a Python traceback does.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, Literal, TextIO

import structlog
from structlog.typing import Processor, WrappedLogger

from node.log_fields import fields_of

LogFormat = Literal["auto", "text", "json"]
# Fields that say what a line is about come first and in this order.
_FIRST: Final = ("timestamp", "level", "event", "node", "queue", "workflow", "run", "pid", "function")


def set_up(
    log_format: LogFormat = "auto",
    level: str = "info",
    *,
    fields: Mapping[str, object] | None = None,
    stream: TextIO | None = None,
    color: bool | None = None,
) -> None:
    """Send everything that is logged in this process to stderr, in one form.

    fields: put on every line that does not say otherwise. color: None = when the stream is a terminal.
    Calling it again replaces what it set up before.
    """
    out = stream or sys.stderr
    terminal = out.isatty()
    as_text = log_format == "text" or (log_format == "auto" and terminal)
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        _add_extra,
        structlog.processors.TimeStamper(fmt="%H:%M:%S.%f" if as_text else "iso", utc=not as_text),
        _Fields(dict(fields or {})),
        structlog.processors.format_exc_info,
    ]
    render: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if as_text:
        render.append(TextLine(colors=terminal if color is None else color))
    else:
        render += [_in_order, structlog.processors.JSONRenderer(ensure_ascii=False, default=str)]
    handler = logging.StreamHandler(out)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=render))
    root = logging.getLogger()
    for old in [h for h in root.handlers if isinstance(h.formatter, structlog.stdlib.ProcessorFormatter)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())


def _add_extra(_logger: WrappedLogger, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Make fields of what was passed as `extra`, and of whom the code works for."""
    record = event.get("_record")
    if record is not None:
        for name, value in fields_of(record).items():
            event.setdefault(name, value)
    return event


class _Fields:
    """Adds what is true of the whole process."""

    def __init__(self, fields: Mapping[str, object]) -> None:
        self._fields = fields

    def __call__(
        self, _logger: WrappedLogger, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        for name, value in self._fields.items():
            event.setdefault(name, value)
        return event


class TextLine:
    """`12:00:00.123 WARNING  what happened  key=value ...`."""

    _COLOR: Final = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "31;1"}

    def __init__(self, *, colors: bool) -> None:
        self._colors = colors

    def __call__(self, _logger: WrappedLogger, _method: str, event: MutableMapping[str, Any]) -> str:
        """As structlog calls it, to write a line with these fields."""
        fields = _in_order(None, "", event)
        level = str(fields.pop("level", "info"))
        time, text = str(fields.pop("timestamp", ""))[:12], _one_line(str(fields.pop("event", "")))
        trace = str(fields.pop("exception", ""))
        stack = [_one_line(line.strip()) for line in str(fields.pop("stack", "")).splitlines()]
        name = level.upper().ljust(7)
        if self._colors:
            name = f"\x1b[{self._COLOR.get(level, '0')}m{name}\x1b[0m"
            time = f"\x1b[2m{time}\x1b[0m"
        pairs = "".join(f"  {key}={_value(value)}" for key, value in fields.items())
        if self._colors and pairs:
            pairs = f"\x1b[2m{pairs}\x1b[0m"
        below = "".join(f"\n    {line}" for line in stack)
        return f"{time} {name} {text}{pairs}{below}" + (f"\n{trace}" if trace else "")


def _in_order(_logger: WrappedLogger, _method: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
    first = {name: event[name] for name in _FIRST if name in event}
    return first | {name: value for name, value in event.items() if name not in first}


def _value(value: object) -> str:
    text = _one_line(str(value))
    return f'"{text}"' if not text or any(c in text for c in ' ="') else text


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
