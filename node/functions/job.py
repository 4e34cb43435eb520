"""The functions that a host offers, and the calls of them that it has taken. Values: what happens is in the host."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

from node.log_fields import caller_of
from node.micro import Endpoint
from node.telemetry.counts import FunctionCounts
from node.units.unit import LiveUnit

# How the reply subject of a workflow's call begins: mesh.wf.<queue>.<id>.ret.<run>.<n>.<attempt>.<fp>.<seen>
WORKFLOW_REPLY: Final = "mesh.wf."

if TYPE_CHECKING:
    from mesh.tracecontext import TraceContext
    from node.functions.limits import WorkerLimit
    from node.telemetry.tracing import FunctionSpan


@dataclass(slots=True)
class Job:
    """A call that was taken. reply: where the outcome goes. identity: what it is asked after by; mostly that, too.

    limit: that of the function's worker, if it holds for this call. waits_since_s: monotonic, when it began to wait.
    trace: the span that it is made in, and from when it has begun its own. span: that, where spans are made.
    serves: where the outcome of the workflow's call goes that it is made for, when a function has made it.
    """

    function: Function
    reply: str
    request: bytes
    once: bool
    identity: str
    limit: WorkerLimit | None = None
    waits_since_s: float = 0.0
    begun_s: float = 0.0
    unit: LiveUnit | None = None
    pid: str = ""  # of the process that the call is, if it is one
    serves: str = ""
    trace: TraceContext | None = None
    span: FunctionSpan | None = None
    stop: Callable[[], None] | None = None
    unwanted: bool = False
    ended: bool = False

    def about(self) -> dict[str, object]:
        """What every log line about this call says in its fields."""
        fields: dict[str, object] = {"function": self.function.id}
        fields |= caller_of(self.serves or self.reply)
        if self.trace is not None:
            fields["trace_id"] = self.trace.trace_id_text
        return fields


Answer = Callable[[Job, bytes], None]  # gives a call its outcome; only the first one counts


class Runner(Protocol):
    """What runs the calls of a function. kind: of its functions, for people: lua, python or process."""

    kind: ClassVar[str]

    def start(self, job: Job) -> None:
        """Run a call and answer it in the end."""
        ...


@dataclass(slots=True)
class Function:
    """A function this node offers. running: calls under way.

    inline_s: how long its calls take on the event loop, as of late; infinite when they do not run there, or none has.

    What is taken and not begun: waiting, for a place; limited, for a place and for leave of the limit of its worker.
    """

    id: str
    runner: Runner
    size_max: int
    buffer: int
    limit: WorkerLimit | None = None
    running: int = 0
    inline_s: float = math.inf
    waiting: deque[Job] = field(default_factory=deque)
    limited: deque[Job] = field(default_factory=deque)
    beginning: bool = False  # what waits is being begun
    endpoint: Endpoint | None = None
    counts: FunctionCounts = field(default_factory=FunctionCounts)

    @property
    def is_full(self) -> bool:
        """Whether no more calls may begin for now."""
        return self.running >= self.size_max

    @property
    def limited_first(self) -> bool:
        """Whether the next place belongs to a call that needs leave of the worker's limit: it has waited longest."""
        if not self.limited:
            return False
        return not self.waiting or self.limited[0].waits_since_s <= self.waiting[0].waits_since_s
