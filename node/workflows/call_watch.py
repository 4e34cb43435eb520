"""A call that its owner looks after until it has its outcome. Pure.

Not here: looking after it (`node.workflows.calls`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mesh.subjects import WorkflowKey
from node.workflows.ops import OpState
from node.workflows.run import Run


@dataclass(slots=True)
class Watch:
    """A call to look after. Times are monotonic seconds; 0 = no limit."""

    key: WorkflowKey
    run: Run
    op: OpState
    attempt: int
    published: bool
    begun_s: float
    close_by_s: float
    due_s: float = 0.0
    no_host_since_s: float = 0.0
    waits: bool = False  # a retry that is not due yet
    storing: bool = False  # its arguments are too large for a message and become an object
    stored: bytes = b""  # the reference to that object
    waits_to_start: bool = True  # no host has said yet that it runs
    claiming: bool = False  # that a service is asked is being written into the history, as it may be once only
    claimed: bool = False  # it was: by this owner
    unlisten: Callable[[], None] | None = None  # ends listening for whether anybody serves it

    @property
    def once_only(self) -> bool:
        """Whether it may run only once, so that it is claimed before."""
        return self.run.call_options(self.op.n).policy.at_most_once

    @property
    def ret(self) -> str:
        """The subject of the outcome."""
        return self.run.ret_subject(self.op, self.attempt)
