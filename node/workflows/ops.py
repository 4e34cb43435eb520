"""The words between a run and its engine: what is due (effects), and how ops are told apart.

Pure values. A run (`node.workflows.run`) produces effects; the engine (`node.workflows.effects`) carries them out.
Every effect may be carried out twice: the history takes the first outcome of an op and ignores the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from mesh.events import EndRecord


@lru_cache(maxsize=16384)
def fingerprint(kind: str, target: str) -> str:
    """Ten characters that tell one kind of op on one target from another; part of every outcome's subject."""
    return hashlib.blake2s(f"{kind}\0{target}".encode("utf-8", "surrogateescape"), digest_size=5).hexdigest()


@dataclass(slots=True)
class OpState:
    """An op without an outcome yet, or a child that has not ended.

    issued_ns, issued_seq: clock and event of the step that asked for it.
    attempt: the one that is due or running, from 1. begun_ns: when that was due; 0 for the first. due_seq: the event in
    which it came up; whoever has not handled that has not called anybody.
    seen: what the code had seen when it asked for it (`node.workflows.seen`).
    durable: the next attempt waits for a timer of the server.
    stopping: the code has asked the call to stop and waits for its end. told: by this owner, the host was told so.
    failed_seq: the latest failed attempt in the history, 0 for none. overtaken: an older attempt has failed after it.
    decided_seq: where it is recorded that this one is made again.
    """

    n: int
    kind: str
    target: str
    fp: str
    payload: bytes = b""
    seen: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    issued_ns: int = 0
    issued_seq: int = 0
    due_seq: int = 0
    due_ns: int = 0
    attempt: int = 1
    begun_ns: int = 0
    claimed: bool = False
    durable: bool = False
    failed_seq: int = 0
    decided_seq: int = 0
    overtaken: bool = False
    last_failure: str = ""
    stopping: bool = False
    told: bool = False


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Call a function: publish attempt `op.attempt` to its hosts."""

    op: OpState


@dataclass(frozen=True, slots=True)
class RetryLater:
    """Call again at due_ns; what is recorded of the attempt before may be deleted, in the order of `drop` (sequences).

    begun_ns: when the attempt that failed was due; 0 when that was the first, or is not known any more.
    """

    op: OpState
    due_ns: int
    drop: tuple[int, ...] = ()
    begun_ns: int = 0


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Have the server publish the tick `name` at due_ns."""

    name: str
    due_ns: int


@dataclass(frozen=True, slots=True)
class Abandon:
    """Nobody waits for op n any more: a timer is taken back, a call's host is asked to stop."""

    n: int
    op: OpState | None


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask the host of a call to stop; the op stays open until its outcome comes."""

    op: OpState


@dataclass(frozen=True, slots=True)
class Perform:
    """Do something to another workflow (spawn, send, cancel, terminate) and record the outcome of op n."""

    op: OpState


@dataclass(frozen=True, slots=True)
class WriteMark:
    """Record a decision of the code before anything that follows from it becomes visible."""

    name: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class WriteAttrs:
    """Record what the code says of itself (search attributes, memo) for those who list workflows."""


@dataclass(frozen=True, slots=True)
class ChildAtEnd:
    """A child that is still open when its parent ends, and what is to be done with it."""

    op: OpState
    verb: str  # kill or cancel


@dataclass(frozen=True, slots=True)
class Finish:
    """End the run: children first, then parent, then the record."""

    record: EndRecord
    children: tuple[ChildAtEnd, ...]


@dataclass(frozen=True, slots=True)
class Suspend:
    """The code does not fit the history, or there is no code: go no further."""

    reason: str


@dataclass(frozen=True, slots=True)
class Log:
    """A line the user's code wrote, or the error that ended it, with the user's frames.

    options: what else is known of a line, encoded (`node.unit_logs`).
    """

    level: str
    payload: bytes
    options: bytes | None = None
    stack: str = ""


@dataclass(frozen=True, slots=True)
class Ignore:
    """An event that is none, and why, for the log."""

    reason: str


Effect = (
    Ignore
    | Dispatch
    | RetryLater
    | SetTimer
    | Abandon
    | Stop
    | Perform
    | WriteMark
    | WriteAttrs
    | Finish
    | Suspend
    | Log
)
