"""The ops of a run as a table: which event asked for each, which answered it.

Pure. Ops are not recorded; they come up again when the history is replayed.
"""

from __future__ import annotations

from dataclasses import dataclass

from mesh.events import Event
from node.workflows.attempts import RETRY_TICK
from node.workflows.ops import Abandon, OpState
from node.workflows.replaying import Step
from node.workflows.run import Run


@dataclass(slots=True)
class OpRow:
    """One op. asked, ended: stream sequences of events; ended 0: it is open. asked_ns: when it came up.

    answered: whether `ended` is its outcome; else the code has given it up there, or it could not be made.
    due_ns: of a timer.
    """

    n: int
    kind: str
    target: str
    asked: int
    asked_ns: int
    due_ns: int = 0
    attempt: int = 1
    ended: int = 0
    answered: bool = False


class OpTable:
    """The ops of a run, noted step by step. `rows`: by number, in the order in which they came up."""

    def __init__(self) -> None:
        self.rows: dict[int, OpRow] = {}
        self._open: dict[int, OpState] = {}

    def note(self, step: Step, run: Run) -> None:
        """Take notice of what a step of the replay did; `run` is as the step has left it."""
        seq = step.event.seq
        for op in step.asked:
            self.rows[op.n] = OpRow(op.n, op.kind, op.target, seq, op.issued_ns, op.due_ns if op.kind == "timer" else 0)
            self._open[op.n] = op
        answered = op_of(step.event)
        # All that may have changed: looking at every open op at every event would take for ever in a large fan-out.
        given_up = [effect.n for effect in step.effects if isinstance(effect, Abandon)]
        for n in (answered, *given_up, *(op.n for op in step.asked)):
            if n not in self._open:
                continue
            row = self.rows[n]
            row.attempt = self._open[n].attempt
            if n not in run.open:
                row.ended, row.answered = seq, n == answered
                del self._open[n]


def op_of(event: Event) -> int:
    """The op that an event is about, 0 for none."""
    if event.kind in ("ret", "exit", "claim"):
        return int(event.args[1])
    if event.kind == "tick":
        name = event.args[1].removeprefix(RETRY_TICK).partition("-")[0]
        return int(name) if name.isdecimal() else 0
    return 0
