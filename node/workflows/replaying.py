"""Replaying a history: recorded events go to a fresh run in their order, and what follows from each is told.

Pure, as `run` is. The same for a node that takes a workflow over, for a look at how a workflow was at some event, and
for checking changed code against what it has run before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from mesh import codec
from mesh.envelopes import may_open_later
from mesh.errors import Undecodable
from mesh.events import Event, StartSpec, start_spec_of
from mesh.lineage import taken_over
from mesh.references import is_reference
from mesh.subjects import WorkflowKey, untoken
from node.machine.code import CodeMissing
from node.machine.vm import LuaVM, MachineFailed, OutOfMemory
from node.workflows.opening import Opening
from node.workflows.ops import Effect, OpState, Suspend
from node.workflows.run import Run

_NO_STEP: Final = frozenset({"mark", "claim", "monitor", "attrs"})


class Step(NamedTuple):
    """What one event did. number: of the event, from 1. asked: the ops that came up in it, when they are recorded."""

    number: int
    event: Event
    effects: list[Effect]
    asked: tuple[OpState, ...]


class NoStart(ValueError):
    """Raised when a list of events has no start of the run it is said to be of."""


def replay_steps(run: Run, events: Sequence[Event], *, record_ops: bool = False) -> Iterator[Step]:
    """Apply the events of a history (as `History.events` gives it) to a fresh run, one at each turn.

    A machine that fails suspends the run. Raises OutOfMemory.
    """
    last = last_step(events, run.run, taken_over(run.run, run.spec, events))
    run.killed_early = any(event.seq < run.run and event.kind == "kill" for event in events)
    if not record_ops:
        for i, event in enumerate(events):
            yield Step(i + 1, event, _applied(run, event, i < last), ())
        return
    asked = run.ops.asked = []
    for i, event in enumerate(events):
        yield Step(i + 1, event, _applied(run, event, i < last), tuple(asked))
        asked.clear()


def last_step(events: Sequence[Event], run: int, taken: int = 0) -> int:
    """Index of the last event that is not part of a step itself; before it, `apply` is told that there is more.

    A mark comes out of the step before it: a run that was left between two marks of its newest step is still in that
    step, and still takes the newest version of the second one.
    taken: how many events a reset run has from another (`mesh.lineage.taken_over`). Until something has happened to a
    run of its own, its newest step is the last one of these, or its start; what else it takes over is news to it.
    """
    # Nearly always found at once: the newest events are the run's own.
    newest = next((i for i in range(len(events) - 1, -1, -1) if _is_step(events[i], run)), 0)
    if events and events[newest].seq > run:
        return newest
    return next((i for i in range(min(max(1, taken), len(events)) - 1, -1, -1) if _is_step(events[i], run)), 0)


def _is_step(event: Event, run: int) -> bool:
    return event.kind not in _NO_STEP and event.run in (0, run)


def replayed(
    opening: Opening, key: WorkflowKey, run_id: int, events: Sequence[Event], *, vm: LuaVM | None = None
) -> tuple[Run, list[Step]]:
    """Replay events in a VM of their own. Raises NoStart, Undecodable, OutOfMemory."""
    spec = start_of(run_id, events)
    machine_vm = vm or LuaVM()
    run = opening.new_run(key, run_id, spec, recorded_marks(run_id, events), vm=lambda: machine_vm)
    return run, list(replay_steps(run, events, record_ops=True))


def start_of(run_id: int, events: Sequence[Event]) -> StartSpec:
    """The start among a run's events. Raises NoStart, Undecodable."""
    for event in events:
        if event.kind == "start" and event.seq == run_id:
            return start_spec_of(event)
    raise NoStart(f"the history has no start of run {run_id}")


def recorded_marks(run_id: int, events: Sequence[Event]) -> dict[str, Any]:
    """The decisions that a history has recorded for a run, by name."""
    marks: dict[str, Any] = {}
    for event in events:
        if event.kind == "mark" and event.run == run_id:
            name = untoken(event.args[1])
            try:
                value = codec.decode(event.data)
            except Undecodable:
                value = event.data
            # Somebody else's nonsense stands for ever: the code is told that it is no version. None would look like no
            # mark, and what is nested may be so deeper than Lua reads.
            marks.setdefault(name, value if isinstance(value, int | str) else b"")
    return marks


def closed_mark(run_id: int, events: Sequence[Event]) -> Event | None:
    """A decision of the run that cannot be read here, and that the code would take anew."""
    marks = (event for event in events if event.kind == "mark" and event.run == run_id)
    return next((e for e in marks if may_open_later(e.data) and not is_reference(e.data)), None)


def _applied(run: Run, event: Event, more: bool) -> list[Effect]:
    try:
        return run.apply(event, more=more)
    except OutOfMemory:
        raise
    except (MachineFailed, CodeMissing) as error:
        run.suspended = str(error)
    except Exception as error:
        run.suspended = fault_of_ours(event, error)
    return [Suspend(run.suspended)]


def fault_of_ours(event: Event, error: Exception) -> str:
    """Why a run is suspended whose event we could not handle, though nothing that is in a history may be the reason."""
    return f"moonmesh failed at event {event.kind} (sequence {event.seq}): {type(error).__name__}: {error}"[:500]
