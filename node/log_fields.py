"""The fields of a log record: what was passed as `extra`, and whom the code that logs is working for.

The runtime passes `extra` itself. A Python function logs as it likes; while it runs, `working_for` says of which call,
so that its lines can be found by the workflow, too. Pure but for that context.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from mesh.subjects import parse_workflow

# What a record has anyhow. `message` and `asctime` are put there by the formatters of other handlers.
ORDINARY: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}

_working_for: ContextVar[Mapping[str, object] | None] = ContextVar("mesh_working_for", default=None)


@contextmanager
def working_for(fields: Mapping[str, object]) -> Iterator[None]:
    """Put these fields on what is logged in the block, and in threads that it waits for."""
    token = _working_for.set(fields)
    try:
        yield
    finally:
        _working_for.reset(token)


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """The fields of a record. To be called where it was logged."""
    fields = {name: value for name, value in record.__dict__.items() if name not in ORDINARY}
    return {**(_working_for.get() or {}), **fields}


def caller_of(reply: str) -> dict[str, object]:
    """The workflow that waits for an outcome on this subject, and for which attempt of which op, as fields.

    None when it is no workflow.
    """
    found = parse_workflow(reply)
    if found is None:
        return {}
    key, kind, args = found
    fields: dict[str, object] = {"queue": key.queue, "workflow": key.id}
    fields["run"] = int(args[0]) if args and args[0].isdecimal() else 0
    if kind == "ret" and len(args) > 2 and args[1].isdecimal() and args[2].isdecimal():
        fields |= {"op": int(args[1]), "attempt": int(args[2])}
    return fields
