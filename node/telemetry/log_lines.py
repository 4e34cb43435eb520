"""Log lines as nodes publish them: JSON objects, and which of them somebody wants to see. Pure.

    {"time": "2026-11-25T12:00:00.123456Z", "level": "info", "event": "what happened", "node": "node-1", "n": 17,
     "logger": "lua", "queue": ..., "workflow": ..., "run": ..., "pid": ..., "function": ..., "trace_id": ..., ...}

n counts the lines of a node since its start; with node and time it tells a line from all others. What is not known is
left out. An `exception` has the lines of its trace.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

LEVELS: Final = ("debug", "info", "warning", "error", "critical")
LINE_BYTES_MAX: Final = 32 * 1024
TEXT_CHARACTERS_MAX: Final = 8 * 1024

# What is left of a line that is too long.
_ALWAYS: Final[tuple[str, ...]] = ("time", "level", "event", "node", "n", "logger", "queue", "workflow", "run", "pid")

LogLine = dict[str, Any]


def line_of(record: logging.LogRecord, fields: Mapping[str, object], node_id: str, n: int) -> LogLine:
    """A record as a line. What is long is cut, so that a line fits into a message."""
    line: LogLine = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "event": _cut(record.getMessage()),
        "node": node_id,
        "n": n,
        "logger": record.name,
        **{name: _cut(value) if isinstance(value, str) else value for name, value in fields.items()},
    }
    if record.exc_info:
        line["exception"] = _cut(logging.Formatter().formatException(record.exc_info))
    return line


def encode_line(line: LogLine) -> bytes:
    """A line as it is published; one that is too long says only what it is."""
    text = json.dumps(line, ensure_ascii=False, default=str, separators=(",", ":")).encode("utf-8", "replace")
    if len(text) <= LINE_BYTES_MAX:
        return text
    kept = {name: line[name] for name in _ALWAYS if name in line}
    kept["cut"] = f"the line took {len(text)} bytes"
    return json.dumps(kept, ensure_ascii=False, default=str, separators=(",", ":")).encode("utf-8", "replace")


def decode_lines(data: bytes) -> list[LogLine]:
    """The lines of a message, one or many; what is none is left out."""
    lines = []
    for text in data.split(b"\n"):
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("time"), str):
            lines.append(line)
    return lines


def identity(line: LogLine) -> tuple[Any, ...]:
    """What tells a line from all others."""
    return line.get("node"), line["time"], line.get("n")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines are wanted. level: the least. text: in any field, whatever its case. since: as `time`."""

    workflow: str = ""
    pid: str = ""
    level: str = "debug"
    text: str = ""
    since: str = ""

    def __call__(self, line: LogLine) -> bool:
        """Whether a line is."""
        if self.since and line["time"] < self.since:
            return False
        if _severity(line) < LEVELS.index(self.level):
            return False
        pid = str(line.get("pid") or "")
        if self.workflow and line.get("workflow") != self.workflow and not pid.endswith(f"|{self.workflow}}}"):
            return False
        if self.pid and self.pid != pid:
            return False
        return not self.text or any(self.text.lower() in str(value).lower() for value in line.values())


def _severity(line: LogLine) -> int:
    level = line.get("level")
    return LEVELS.index(level) if level in LEVELS else LEVELS.index("info")


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_CHARACTERS_MAX else f"{text[:TEXT_CHARACTERS_MAX]}... ({len(text)} characters)"
