"""What the drivers know of a live unit: a process or function call, in memory and outside of any history."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from mesh.failure import Failure
from mesh.tracecontext import TraceContext
from node.log_fields import caller_of


class LiveUnit:
    """A unit that runs on this node. `post` hands it an event, in order; `kill` ends it without asking.

    pending: by number, the ops that have no outcome yet and how to give each up; True = somebody asks for that.
    parent: the PID of who has spawned it, "" when that is no unit. trace: the span in which it makes its calls.
    serves: where the outcome of the call goes that it is or that it is made for, "" when it is none.
    """

    __slots__ = ("began_ns", "ended", "entry_id", "outcome", "parent", "pending", "pid", "serves", "trace")

    def __init__(self, pid: str, entry_id: str) -> None:
        self.pid = pid
        self.entry_id = entry_id
        self.pending: dict[int, Callable[[bool], None]] = {}
        self.ended = False
        self.outcome = b""  # once it has ended
        self.parent = ""
        self.began_ns = time.time_ns()
        self.trace: TraceContext | None = None
        self.serves = ""

    def about(self) -> dict[str, object]:
        """What every log line about this unit says in its fields."""
        fields: dict[str, object] = {**caller_of(self.serves), "pid": self.pid}
        if self.trace is not None:
            fields["trace_id"] = self.trace.trace_id_text
        return fields

    @property
    def unread_max(self) -> int:
        """How many messages it takes that it does not read; 0 = no limit."""
        return 0

    def is_full(self) -> bool:
        """Whether it takes no more messages for now; to be asked before each."""
        return False

    def post(self, verb: str, a: Any = None, b: Any = None, c: Any = None) -> None:
        """Hand over an event: verb as `node.machine.vm` knows it; texts as bytes."""
        raise NotImplementedError

    def kill(self, failure: Failure) -> None:
        """End it now; whoever watches it is told this failure."""
        raise NotImplementedError

    def resolve(self, n: int, outcome: bytes) -> None:
        """Hand over the outcome of op n, unless nobody waits for it any more."""
        if self.pending.pop(n, None) is not None and not self.ended:
            self.post("resolve", n, outcome)

    def give_up(self, n: int) -> None:
        """The unit itself does not want op n any more."""
        cancel = self.pending.pop(n, None)
        if cancel is not None:
            cancel(True)

    def drop_pending(self) -> None:
        """Give up everything, as the unit is gone."""
        pending, self.pending = self.pending, {}
        for cancel in pending.values():
            cancel(False)


class Watcher(LiveUnit):
    """A unit of the runtime's own that waits for the end of another one: told(outcome) is called once."""

    __slots__ = ("_told",)

    def __init__(self, pid: str, told: Callable[[bytes], None]) -> None:
        super().__init__(pid, "")
        self._told = told

    def post(self, verb: str, a: Any = None, b: Any = None, c: Any = None) -> None:
        """Take the end of what is watched; anything else is nothing to us."""
        if verb in ("ended", "link_down") and not self.ended:
            self.ended = True
            self._told(b)

    def kill(self, failure: Failure) -> None:
        """Nobody else knows this PID."""
