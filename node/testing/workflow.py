"""A workflow in a simulation, as tests see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mesh import codec
from mesh.duration import SECOND
from mesh.events import EndRecord
from mesh.failure import Failure
from mesh.history_files import RecordedHistory
from mesh.results import WorkflowFailed, WorkflowSuspended
from node.testing.engine import Engine, Instance, RunRecord
from node.testing.errors import SimulationError, StillWaiting
from node.testing.outcomes import duration_ns

if TYPE_CHECKING:
    from mesh.subjects import WorkflowKey


class Workflow:
    """One workflow, from the run it was started with on. existing: it ran before it was to be started."""

    def __init__(self, engine: Engine, instance: Instance, run: int, *, existing: bool = False) -> None:
        self.existing = existing
        self._engine = engine
        self._instance = instance
        self._run = run

    @property
    def id(self) -> str:
        """Its id."""
        return self._instance.key.id

    @property
    def key(self) -> WorkflowKey:
        """Its queue and id."""
        return self._instance.key

    @property
    def pid(self) -> str:
        """Its PID, as other workflows name it."""
        return self._instance.host.pid(self.id)

    @property
    def status(self) -> str:
        """running, suspended, completed, failed, canceled, terminated or timed-out."""
        end = self._last.end
        if end is not None and not end.next_start:
            return end.status
        run = self._instance.run
        return "suspended" if run is not None and run.suspended else "running"

    @property
    def runs(self) -> int:
        """How many runs it has had: more than one after retries and `continue as new`."""
        return len(self._chain)

    @property
    def elapsed_s(self) -> float:
        """Virtual seconds from its start to its end, or until now."""
        last = self._last
        until_ns = last.ended_ns if last.end is not None and not last.end.next_start else self._engine.agenda.now_ns
        return (until_ns - self._chain[0].began_ns) / SECOND

    @property
    def memo(self) -> Mapping[str, Any]:
        """Its memo: as it was started, and as its code has changed it since."""
        run = self._instance.run
        return dict(run.attributes.memo if run is not None else self._last.memo)

    @property
    def attrs(self) -> Mapping[str, Any]:
        """Its search attributes."""
        run = self._instance.run
        return dict(run.attributes.search if run is not None else self._last.attrs)

    def signal(
        self, topic: str, value: Any = None, *, at: str | float | None = None, after: str | float = 0, sender: str = ""
    ) -> None:
        """Send it a signal: now, after some time, or at a time from the beginning of the simulation.

        at, after: Go text or seconds. sender: the PID that the workflow sees.
        """
        body = codec.encode(value)
        self._do(lambda: self._engine.others.signal(self.key, topic, body, sender), at, after)

    def cancel(self, *, at: str | float | None = None, after: str | float = 0) -> None:
        """Ask it to stop. It decides itself what comes of that."""
        self._do(lambda: self._engine.publish(self.key, "cancel"), at, after)

    def terminate(self, *, at: str | float | None = None, after: str | float = 0) -> None:
        """End it, without asking it."""
        self._do(lambda: self._engine.publish(self.key, "kill"), at, after)

    def reset(self, event: int, *, reason: str = "", signals: bool = True) -> Workflow:
        """Have a new run go on from an event of the newest one, as `mesh reset`; an open run is ended.

        event: its number in the history, from 1. Raises CannotReset.
        """
        before = len(self._instance.runs)
        self._engine.reset(self._instance, event, reason=reason, signals=signals)
        self._engine.run_until(self._engine.agenda.now_ns)
        return Workflow(self._engine, self._instance, self._instance.runs[before].id)

    def result(self) -> Any:
        """Let time pass until it ends and return its result. Raises WorkflowFailed, WorkflowSuspended, StillWaiting."""
        end = self._ended()
        value = end.value()
        if isinstance(value, Failure):
            raise WorkflowFailed(self.id, end.status, value)
        return value

    def failure(self) -> Failure:
        """Let time pass until it ends and return why it failed. Raises SimulationError when it has not failed."""
        end = self._ended()
        value = end.value()
        if not isinstance(value, Failure):
            raise SimulationError(f"workflow {self.id!r} has not failed: it {end.status} with {codec.to_json(value)}")
        return value

    def waiting(self) -> list[str]:
        """What it waits for and where in its code, for people."""
        return self._engine.waiting(self._instance)

    def history(self, run: int = 0) -> RecordedHistory:
        """The history of a run, by default its newest: for `replay`, and for files of the form of `mesh export`."""
        return self._engine.history(self._instance, run)

    def __repr__(self) -> str:
        return f"<workflow {self.id} on {self.key.queue}: {self.status}>"

    @property
    def _chain(self) -> list[RunRecord]:
        """Its runs, up to the one that is not followed by another."""
        chain = []
        for record in self._instance.runs:
            if record.id >= self._run:
                chain.append(record)
                if record.end is not None and not record.end.next_start:
                    break
        return chain

    @property
    def _last(self) -> RunRecord:
        return self._chain[-1]

    def _do(self, action: Callable[[], object], at: str | float | None, after: str | float) -> None:
        agenda = self._engine.agenda
        due_ns = agenda.now_ns + duration_ns(after) if at is None else agenda.began_ns + duration_ns(at)
        if due_ns < agenda.now_ns:
            raise SimulationError(f"at={at!r} is over: it is {agenda.elapsed_s:g} s after the beginning already")
        agenda.at(due_ns, action)
        self._engine.run_until(agenda.now_ns)

    def _ended(self) -> EndRecord:
        self._engine.run_until(None, lambda: self.status != "running")
        end = self._last.end
        if end is not None and not end.next_start:
            return end
        run = self._instance.run
        if run is not None and run.suspended:
            raise WorkflowSuspended(self.id, run.suspended)
        waiting = "\n".join(self.waiting()) or f"workflow {self.id!r} waits for a signal"
        raise StillWaiting(
            f"workflow {self.id!r} does not end by itself, and nothing else is going to happen:\n{waiting}"
        )
