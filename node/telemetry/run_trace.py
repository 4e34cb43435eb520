"""The trace of one run of a workflow: which spans it has, before any of them is there.

Pure. The ids follow from the run, the op and the attempt, so each owner of the run has the same: whoever sends a
request names the span of that attempt as its parent, and whoever sees the outcome makes that span, be it another node.
The trace is that of whoever started the run, when the start said so; else one that follows from the run, too.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, NamedTuple

from mesh.subjects import WorkflowKey
from mesh.tracecontext import TraceContext

if TYPE_CHECKING:
    from mesh.events import Event

NOTES_MAX: Final = 128  # what an OpenTelemetry span holds by default
_NOTED: Final = frozenset({"signal", "cancel", "kill"})


class Note(NamedTuple):
    """Something that came to a run from outside: an event of its span."""

    name: str
    at_ns: int
    topic: str


class RunTrace:
    """The trace of a run. parent: the span it was started in. root: the run's own. follows: that of the run before it.

    notes: what came to the run from outside, also what its former owners saw.
    """

    __slots__ = ("_flags", "_noted_seq", "_seed", "_state", "follows", "notes", "parent", "root", "trace_id")

    def __init__(self, key: WorkflowKey, run: int, parent: TraceContext | None, *, flags: int, state: str = "") -> None:
        self._seed = f"{key.queue}/{key.id}/{run}".encode("utf-8", "surrogateescape")
        self._flags = flags
        self._state = state
        self._noted_seq = 0
        self.parent = parent
        self.follows: TraceContext | None = None
        self.trace_id = parent.trace_id if parent is not None else derived_trace_id(key, run)
        self.root = TraceContext(self.trace_id, self._id(b"run"), flags, state)
        self.notes: list[Note] = []

    @property
    def trace_id_text(self) -> str:
        """The trace's id as people look for it."""
        return self.root.trace_id_text

    def step(self, n: int, attempt: int = 1) -> TraceContext:
        """The span of an attempt of op n."""
        return TraceContext(self.trace_id, self._id(b"%d/%d" % (n, attempt)), self._flags, self._state)

    def see(self, event: Event) -> None:
        """Keep what came to the run from outside; seen twice it is kept once."""
        if event.kind in _NOTED and event.seq > self._noted_seq and len(self.notes) < NOTES_MAX:
            self._noted_seq = event.seq
            self.notes.append(Note(event.kind, event.at_ns, event.topic if event.kind == "signal" else ""))

    def _id(self, which: bytes) -> int:
        digest = hashlib.blake2b(which, digest_size=8, key=hashlib.blake2b(self._seed, digest_size=16).digest())
        return int.from_bytes(digest.digest(), "big") or 1


class PassedTrace:
    """The context that a start came with, on a node that makes no spans itself: handed on as it is."""

    __slots__ = ("_context",)

    def __init__(self, context: TraceContext) -> None:
        self._context = context

    @property
    def trace_id_text(self) -> str:
        """The trace's id as people look for it."""
        return self._context.trace_id_text

    def step(self, n: int, attempt: int = 1) -> TraceContext:
        """The same for every step."""
        return self._context


def derived_trace_id(key: WorkflowKey, run: int) -> int:
    """The trace of a run that was started outside of any."""
    text = f"moonmesh/{key.queue}/{key.id}/{run}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "big") or 1
