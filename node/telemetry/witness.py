"""Takes note of what happens to the runs of one queue: counts it, and makes spans of it where traces are asked for.

The engine shows it every event that it handles live, and of a replay those that nobody has handled before. Everything
here follows from the run, the event and what came of it; nothing is asked of anybody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mesh import codec
from mesh.events import HEADER_NODE, decode_end
from mesh.tracecontext import followed_context, read_context
from node.telemetry.counts import QueueCounts
from node.telemetry.run_trace import PassedTrace, RunTrace
from node.workflows.ops import Effect, OpState, RetryLater

if TYPE_CHECKING:
    from mesh.events import Event
    from node.telemetry.tracing import Tracing
    from node.workflows.run import Run

FAILURE_CHARACTERS_MAX = 500
# How a run ends that has not failed.
_WELL = frozenset({"completed", "continued"})


class Witness:
    """Sees what happens to the runs of a queue. tracing: makes the spans, if there are to be any."""

    def __init__(self, tracing: Tracing | None = None) -> None:
        self.counts = QueueCounts()
        self._tracing = tracing

    def opened(self, run: Run, raw_headers: bytes | None) -> None:
        """A run was made of a start with these headers, and nothing was applied to it yet."""
        context = read_context(raw_headers)
        if self._tracing is not None:
            spans = run.trace = self._tracing.run_trace(run.key, run.run, run.type_name, context)
            spans.follows = followed_context(raw_headers)
        elif context is not None:
            run.trace = PassedTrace(context)

    def note(self, run: Run, event: Event, effects: list[Effect]) -> None:
        """An event was applied to a run for the first time, and this came of it."""
        counts, kind, answered = self.counts, event.kind, run.answered
        if answered is not None:
            run.answered = None
            op, outcome = answered
            if op.kind == "call":
                ended = "completed" if outcome[:3] == codec.SUCCESS_PREFIX else "failed"
                counts.steps[op.target, ended].observe((event.at_ns - op.issued_ns) / 1e9)
        elif kind == "ret":
            for effect in effects:
                if type(effect) is RetryLater:
                    counts.retries[effect.op.target].value += 1
        elif kind == "start":
            if event.seq == run.run:
                counts.started[run.type_name].value += 1
        elif kind == "end" and run.closed and event.run == run.run:
            counts.ended[run.type_name, decode_end(event.data).status].value += 1
            counts.durations[run.type_name].observe((event.at_ns - (run.started_ns or event.at_ns)) / 1e9)
        if self._tracing is not None and isinstance(run.trace, RunTrace):
            self._trace(self._tracing, run.trace, run, event, effects, answered)

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

    # -- spans -------------------------------------------------------------------------------------------------

    def _trace(
        self, tracing: Tracing, spans: RunTrace, run: Run, event: Event, effects: list[Effect],
        answered: tuple[OpState, bytes] | None,
    ) -> None:  # fmt: skip
        if answered is not None:
            op, outcome = answered
            ok, value = codec.decode_outcome(outcome)
            self._step(tracing, spans, run, op, op.attempt, op.begun_ns, event, None if ok else str(value))
        elif event.kind == "ret":
            for effect in effects:
                if type(effect) is RetryLater:
                    op, attempt = effect.op, int(event.args[2])
                    self._step(tracing, spans, run, op, attempt, effect.begun_ns, event, op.last_failure)
        elif event.kind == "end":
            if run.closed and event.run == run.run:
                self._run_ended(tracing, spans, run, event)
        else:
            spans.see(event)

    @staticmethod
    def _step(
        tracing: Tracing, spans: RunTrace, run: Run, op: OpState, attempt: int, begun_ns: int, event: Event,
        failure: str | None,
    ) -> None:  # fmt: skip
        attributes: dict[str, str | int] = {
            "mesh.workflow_id": run.key.id,
            "mesh.op": op.n,
            "mesh.kind": op.kind,
            "mesh.outcome": "completed" if failure is None else "failed",
        }
        name = op.kind
        if op.kind == "call":
            name = f"call {op.target}"
            attributes |= {"mesh.function": op.target, "mesh.attempt": attempt}
            node = event.headers.get(HEADER_NODE)
            if node is not None:
                attributes["mesh.host_node"] = node
        elif op.kind == "spawn":
            name = f"spawn {op.target}"
        if op.target:
            attributes["mesh.target"] = op.target
        tracing.step(
            spans, name, spans.step(op.n, attempt), begun_ns or op.issued_ns, event.at_ns, attributes=attributes,
            failure=failure[:FAILURE_CHARACTERS_MAX] if failure is not None else None, remote=op.kind == "call",
        )  # fmt: skip

    @staticmethod
    def _run_ended(tracing: Tracing, spans: RunTrace, run: Run, event: Event) -> None:
        record = decode_end(event.data)
        failure = None
        if record.status not in _WELL:
            failure = record.status if record.next_start else f"{record.status}: {record.value()}"
        attributes: dict[str, str | int] = {
            "mesh.workflow_id": run.key.id,
            "mesh.workflow": run.type_name,
            "mesh.queue": run.key.queue,
            "mesh.run": run.run,
            "mesh.attempt": run.spec.attempt,
            "mesh.outcome": record.status,
            "mesh.events": run.length,
        }
        tracing.run(
            spans, f"workflow {run.type_name}", run.started_ns or event.at_ns, event.at_ns, attributes=attributes,
            failure=failure[:FAILURE_CHARACTERS_MAX] if failure is not None else None,
        )  # fmt: skip
