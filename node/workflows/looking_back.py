"""How a workflow was at one of its events: its history is replayed up to there, and the run is looked at.

Nothing is written and nobody is asked, so that a look is possible for workflows that have ended or are suspended, on a
node that owns them or anywhere that has their code. A replay may take seconds: it runs in a worker thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import anyio
import anyio.to_thread

from mesh.errors import CannotLookBack, MeshError
from mesh.events import Event, StartSpec
from mesh.subjects import WorkflowKey
from node.machine.vm import LuaVM, Machine, OutOfMemory
from node.workflows.describing import described, looked_at
from node.workflows.op_table import OpTable
from node.workflows.opening import Opening
from node.workflows.replaying import NoStart, Step, recorded_marks, replay_steps, start_of
from node.workflows.run import Run

REPLAY_S_MAX: Final = 20.0
OPS_MAX: Final = 4000  # the newest; an answer has to fit into a message of NATS
OUTCOME_BYTES_MAX: Final = 64 * 1024
VM_LOOKS_MAX: Final = 100  # a VM is made in some milliseconds, and its heap must not fragment for ever


OpeningFor = Callable[[WorkflowKey, StartSpec], Opening]


class LookingBack:
    """Replays histories to look at them, one at a time. A VM is kept for that.

    opening_for: what opens a run of a workflow, by its start.
    """

    def __init__(self, opening_for: OpeningFor) -> None:
        self._opening_for = opening_for
        self._limit = anyio.CapacityLimiter(1)
        self._vm: LuaVM | None = None
        self._looks = 0

    async def at(
        self, key: WorkflowKey, run_id: int, events: Sequence[Event], seq: int = 0, *, seconds: float = REPLAY_S_MAX
    ) -> dict[str, Any]:
        """How the run was when the event at stream sequence `seq` had been applied; 0: the newest. See `look_back`.

        Raises CannotLookBack, also when replaying takes longer than so many seconds.
        """
        return await anyio.to_thread.run_sync(self._look, key, run_id, events, seq, seconds, limiter=self._limit)

    def _look(self, key: WorkflowKey, run_id: int, events: Sequence[Event], seq: int, seconds: float) -> dict[str, Any]:
        if self._vm is None or self._looks >= VM_LOOKS_MAX:
            self._vm, self._looks = LuaVM(), 0
        self._looks += 1
        try:
            return look_back(self._opening_for, key, run_id, events, seq, vm=self._vm, seconds=seconds)
        except OutOfMemory as error:
            self._vm = None
            raise CannotLookBack(f"the history of workflow {key.id!r} cannot be replayed: {error}") from error


def look_back(
    opening_for: OpeningFor,
    key: WorkflowKey,
    run_id: int,
    events: Sequence[Event],
    seq: int = 0,
    *,
    vm: LuaVM,
    seconds: float = REPLAY_S_MAX,
) -> dict[str, Any]:
    """Replay a history up to an event and describe the run as it was then.

    What `described` says, and: at_seq, the event; tasks, coroutines, globals as `looked_at` says; ops, the rows of the
    op table as lists; suspended_seq, the event that did not fit; ended: {status, outcome} when the code had come to its
    end. Of a run that has ended the tasks are as they stood at its end. Raises CannotLookBack, OutOfMemory.
    """
    try:
        spec = start_of(run_id, events)
    except (NoStart, MeshError) as error:
        raise CannotLookBack(f"workflow {key.id!r}: {error}") from error
    run = opening_for(key, spec).new_run(key, run_id, spec, recorded_marks(run_id, events), vm=lambda: vm)
    try:
        return _replayed(run, events, seq, seconds)
    finally:
        run.close()


def _replayed(run: Run, events: Sequence[Event], seq: int, seconds: float) -> dict[str, Any]:
    at_end: dict[str, Any] = {}

    def on_end(machine: Machine) -> None:
        at_end.update(looked_at(run, machine))

    run.on_end = on_end
    table = OpTable()
    ends_s = time.monotonic() + seconds
    step: Step | None = None
    suspended_seq = 0
    for step in replay_steps(run, events, record_ops=True):
        table.note(step, run)
        if run.suspended and not suspended_seq:
            suspended_seq = step.event.seq
        if step.event.seq == seq:
            break
        if time.monotonic() > ends_s:
            raise CannotLookBack(
                f"replaying workflow {run.key.id!r} takes longer than {seconds:g} s: event {step.number} was reached"
            )
    if step is None or (seq and step.event.seq != seq):
        raise CannotLookBack(f"the history of workflow {run.key.id!r} has no event with sequence {seq}")
    state = described(run)
    state["at_seq"] = step.event.seq
    state["suspended_seq"] = suspended_seq
    state["ops"] = [
        [row.n, row.kind, row.target, row.asked, row.asked_ns, row.due_ns, row.attempt, row.ended, row.answered]
        for row in list(table.rows.values())[-OPS_MAX:]
    ]
    if run.finished is not None:
        record = run.finished.record
        state["status"] = record.status
        state["ended"] = {
            "status": record.status, "outcome": record.outcome if len(record.outcome) <= OUTCOME_BYTES_MAX else None,
        }  # fmt: skip
        state |= at_end
    elif run.machine is not None:
        state |= looked_at(run, run.machine)
    return state
