"""The books: one JSON line for each thing that really happened, whoever did it and however often.

What stands here is counted from outside, so a line is written by the side that does the thing and never taken back.
The file is named by ORDERS_LEDGER. Writers are several processes on one machine: a line goes out in one write to a file
opened for appending, under a lock.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ENVIRONMENT = "ORDERS_LEDGER"
DEFAULT = ".mesh/orders-ledger.jsonl"

Entry = dict[str, Any]


def path() -> Path:
    """Return where the books are."""
    return Path(os.environ.get(ENVIRONMENT, DEFAULT))


def entries(file: Path | None = None) -> list[Entry]:
    """Return everything that happened so far, in order."""
    file = file or path()
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def record(effect: str, order_id: str, **details: object) -> Entry:
    """Write down that something happened; every call is one more line."""
    with _opened() as fd:
        return _append(fd, effect, order_id, details)


def record_once(effect: str, order_id: str, **details: object) -> Entry:
    """Write it down unless it stands there already: for what may be asked for twice and is to happen once."""
    with _opened() as fd:
        for entry in entries():
            if entry["effect"] == effect and entry["order_id"] == order_id:
                return entry
        return _append(fd, effect, order_id, details)


def find(effect: str, order_id: str) -> Entry | None:
    """Return the first entry of this kind for an order."""
    return next((e for e in entries() if e["effect"] == effect and e["order_id"] == order_id), None)


@contextmanager
def _opened() -> Iterator[int]:
    file = path()
    file.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


def _append(fd: int, effect: str, order_id: str, details: dict[str, object]) -> Entry:
    entry = {"effect": effect, "order_id": order_id, **details, "pid": os.getpid()}
    os.write(fd, json.dumps(entry).encode() + b"\n")
    return entry
