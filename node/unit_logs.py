"""Log lines of Lua code: what `print` and `logger` say, as records of the Python logger `lua`.

Responsible for: reading a `log` op and keeping its fields apart from what a record has anyhow. Not responsible for:
whether a line is told at all (the kernel is silent while it replays), and what a line looks like (`node.logs`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from mesh import codec
from mesh.errors import Undecodable
from mesh.failure import Failure

_log = logging.getLogger("lua")

_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}

# Names that a field of the user's cannot have: `logging` refuses those of a record, and those that `node.logs` gives a
# line would be lost. Such a field gets a `_` behind its name.
_RESERVED: Final = frozenset(logging.makeLogRecord({}).__dict__) | {
    "message", "asctime", "event", "level", "timestamp", "exception", "stack", "node", "logger", "source",
}  # fmt: skip


def log_line(level: str, payload: bytes, options: bytes | None, **who: object) -> None:
    """Write the line of a `log` op from its target, payload and options.

    who: where it comes from (pid, function, workflow, run), also fields.
    """
    severity = _LEVELS.get(level, logging.INFO)
    if _log.isEnabledFor(severity):
        _log.log(severity, "%s", payload.decode("utf-8", "replace"), extra=_fields(options, who))


def _fields(options: bytes | None, who: Mapping[str, object]) -> dict[str, object]:
    said: Any = {}
    if options:
        try:
            said = codec.unpack(options)
        except Undecodable:
            said = {"fields": {"unreadable_fields": "undecodable"}}
    if not isinstance(
        said, Mapping
    ):  # an empty table arrives as an empty list: no fields, and a tail call left no source
        said = {}
    extra: dict[str, object] = {name: value for name, value in who.items() if value not in (None, "")}
    if said.get("source"):
        extra["source"] = _shown(said["source"])
    if said.get("name"):
        extra["logger"] = _shown(said["name"])
    fields = said.get("fields")
    if isinstance(fields, Mapping):  # an empty table arrives as an empty list
        for name, value in fields.items():
            free = str(_shown(name))
            while free in _RESERVED or free in extra:
                free += "_"
            extra[free] = _shown(value)
    return extra


def _shown(value: object) -> object:
    """A value of the user's in a form that every formatter can write."""
    match value:
        case bytes():
            return value.decode("utf-8", "replace")
        case str():
            return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        case Failure():
            return str(value)
        case list():
            return [_shown(item) for item in value]
        case dict():
            return {str(_shown(key)): _shown(item) for key, item in value.items()}
        case _:
            return value
