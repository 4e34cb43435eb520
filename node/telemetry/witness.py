"""Takes note of what happens to the runs of one queue: counts it.

The engine shows it every event that it handles live, and of a replay those that nobody has handled before. Everything
here follows from the run, the event and what came of it; nothing is asked of anybody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mesh import codec
from mesh.events import decode_end
from node.telemetry.counts import QueueCounts
from node.workflows.ops import Effect, RetryLater

if TYPE_CHECKING:
    from mesh.events import Event
    from node.workflows.run import Run


class Witness:
    """Sees what happens to the runs of a queue."""

    def __init__(self) -> None:
        self.counts = QueueCounts()

    def note(self, run: Run, event: Event, effects: list[Effect]) -> None:
        """An event was applied to a run for the first time, and this came of it."""
        counts, kind = self.counts, event.kind
        if kind == "ret":
            answered = run.answered
            if answered is None:
                for effect in effects:
                    if type(effect) is RetryLater:
                        counts.retries[effect.op.target].value += 1
                return
            run.answered = None
            op, outcome = answered
            if op.kind == "call":
                ended = "completed" if outcome[:3] == codec.SUCCESS_PREFIX else "failed"
                counts.steps[op.target, ended].observe((event.at_ns - op.issued_ns) / 1e9)
        elif kind == "start":
            if event.seq == run.run:
                counts.started[run.type_name].value += 1
        elif kind == "end" and run.closed and event.run == run.run:
            counts.ended[run.type_name, decode_end(event.data).status].value += 1
            counts.durations[run.type_name].observe((event.at_ns - (run.started_ns or event.at_ns)) / 1e9)

    def replayed(self, took_s: float, events: int) -> None:
        """A history was replayed."""
        self.counts.replays.observe(took_s)
        self.counts.replayed_events += events

    def taken_over(self, took_s: float, *, handed_over: bool) -> None:
        """A partition was claimed so long ago, and by now all its runs that need their owner are loaded."""
        self.counts.takeovers["free" if handed_over else "lost"].observe(took_s)

    def history_is_long(self, workflow: str) -> None:
        """A run of this type has come to the length at which its worker warns."""
        self.counts.history_warnings[workflow].value += 1

    def does_not_fit(self, run: Run) -> None:
        """The code of a run is not the code that wrote its history."""
        self.counts.nondeterminism[run.type_name].value += 1
