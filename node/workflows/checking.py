"""Checking code against what it has run before: a recorded history is replayed, and what does not fit is named.

Pure, as replaying is. For tests, for `mesh replay`, for whoever wants to know before code is deployed.

What is found: an event that answers what the code does not ask for, or asks for otherwise (the run would be
suspended there); code that is missing or fails; an end that is not the recorded one. Not found: other arguments
of the same call, as they are not in a history.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from mesh import codec
from mesh.events import EndRecord, Event, decode_end
from mesh.failure import Failure
from mesh.subjects import WorkflowKey
from node.machine.vm import LuaVM, OutOfMemory
from node.registry import Registry
from node.workflows.opening import Opening
from node.workflows.ops import OpState, fingerprint
from node.workflows.replaying import recorded_marks, replay_steps, start_of
from node.workflows.run import Run

# Ends that a node has written for the code: what a replay comes to says nothing about them.
_WRITTEN_BY_NODES = ("the result takes ", "the workflow took more memory ")


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Where code does not fit a history. number, event: at which event, from 1.

    line: where the code stands, `file:line`, or "". expected: what the history has. got: what the code
    does instead. reason: the same as one sentence.
    """

    number: int
    event: Event
    line: str
    expected: str
    got: str
    reason: str


@dataclass(frozen=True, slots=True)
class Checked:
    """What a replay came to. run: as it stands after its last event, or at the mismatch; to be closed."""

    run: Run
    mismatch: Mismatch | None
    events: int


def check_history(
    opening: Opening,
    key: WorkflowKey,
    run_id: int,
    events: Sequence[Event],
    *,
    known: Mapping[str, str] | None = None,
    vm: LuaVM | None = None,
) -> Checked:
    """Replay a history and say whether the code fits it. Raises NoStart, Undecodable.

    known: ops by their fingerprints (`known_ops`), so that what was recorded can be named.
    """
    spec = start_of(run_id, events)
    machine_vm = vm or LuaVM()
    run = opening.new_run(key, run_id, spec, recorded_marks(run_id, events), vm=lambda: machine_vm)
    number = 0
    over = 0  # the event at which the code came to its end
    line = ""  # where the code stood before its recorded end
    try:
        for step in replay_steps(run, events):
            number = step.number
            if run.suspended:
                return Checked(run, _misfit(run, number, step.event, known or {}), number)
            if step.event.kind == "end" and step.event.run == run_id:
                return Checked(run, _other_end(run, number, step.event, line), number)
            if over and _answers_nothing(run, step.event):
                return Checked(run, _ended_before(run, number, step.event, known or {}), number)
            if run.finished is not None:
                over = over or number
            elif number < len(events) and events[number].kind == "end":
                line = _line(run, 0)
    except OutOfMemory as error:
        reason = f"the code takes more memory than a run may have: {error}"
        event = events[min(number, len(events) - 1)]
        return Checked(run, Mismatch(number + 1, event, "", _told(event, known or {}), str(error), reason), number)
    return Checked(run, None, number)


def known_ops(registry: Registry) -> dict[str, str]:
    """The ops that the code of an app can ask for by their fingerprints, as far as the registry names their targets."""
    found = {fingerprint("call", str(name)): f"call {name}" for name in (*registry.functions(), *registry.processes())}
    for name, entry in registry.workflows().items():
        for target in (str(name), entry.type_name):
            if target:
                found[fingerprint("spawn", target)] = f"spawn {target}"
    return found


def event_label(event: Event) -> str:
    """An event in a few words: `ret 3`, `signal approve`."""
    match event.kind:
        case "signal":
            return f"signal {event.topic}"
        case "ret" | "claim" | "tick" | "exit" | "mark":
            return f"{event.kind} {event.args[1]}"
        case kind:
            return kind


def _misfit(run: Run, number: int, event: Event, known: Mapping[str, str]) -> Mismatch:
    n = int(event.args[1]) if event.kind in ("ret", "tick", "exit") and event.args[1].isdecimal() else 0
    op = run.open.get(n)
    if n and op is not None:
        got = _asked(op)
    elif n:
        asked = run.ops.next_n - 1
        got = f"has asked for {asked} {'op' if asked == 1 else 'ops'} so far"
    else:
        got = run.suspended
    return Mismatch(number, event, _line(run, n), _told(event, known), got, run.suspended)


def _ended_before(run: Run, number: int, event: Event, known: Mapping[str, str]) -> Mismatch:
    expected, got = _told(event, known), _end(run.finished.record) if run.finished is not None else ""
    return Mismatch(number, event, "", expected, got, f"the history goes on with {expected}, the code has ended: {got}")


def _other_end(run: Run, number: int, event: Event, line: str) -> Mismatch | None:
    recorded = decode_end(event.data)
    value = recorded.value()
    if recorded.status == "failed" and isinstance(value, Failure) and value.message.startswith(_WRITTEN_BY_NODES):
        return None
    if run.finished is None:
        expected = _end(recorded)
        waiting = ", ".join(_asked(op) for op in run.open.values()) or "a message"
        got = f"waits for {waiting}"
        reason = f"the history has the end of the run ({expected}), the code {got}"
        return Mismatch(number, event, line, expected, got, reason)
    record = run.finished.record
    if record == recorded or _same_end(record, recorded):
        return None
    expected, got = _end(recorded), _end(record)
    return Mismatch(number, event, "", expected, got, f"the run ended with {expected}, the code ends with {got}")


def _same_end(one: EndRecord, other: EndRecord) -> bool:
    """Whether two ends say the same. Where in the code a failure came up is not part of it: lines move."""
    if (one.status, one.next_start) != (other.status, other.next_start):
        return False
    a, b = one.value(), other.value()
    if isinstance(a, Failure) and isinstance(b, Failure):
        return (a.message, a.kind, a.retryable) == (b.message, b.kind, b.retryable)
    return bool(a == b)


def _answers_nothing(run: Run, event: Event) -> bool:
    """Whether an event answers an op that was never asked for."""
    if event.kind not in ("ret", "tick", "exit") or event.run != run.run or not event.args[1].isdecimal():
        return False
    return int(event.args[1]) >= run.ops.next_n


def _told(event: Event, known: Mapping[str, str]) -> str:
    match event.kind:
        case "ret":
            fp = event.args[3]
            return f"the outcome of op {event.args[1]}, {known.get(fp) or f'of fingerprint {fp}'}"
        case "tick":
            return f"the timer {event.args[1]}"
        case "exit":
            return f"the end of the child that op {event.args[1]} started"
        case _:
            return event_label(event)


def _asked(op: OpState) -> str:
    return f"{op.kind} {op.target}".rstrip() + f" (op {op.n})"


def _end(record: EndRecord) -> str:
    value = record.value()
    shown = str(value) if isinstance(value, Failure) else codec.to_json(value)
    return f"{record.status} {shown if len(shown) <= 200 else shown[:200] + '...'}"


def _line(run: Run, n: int) -> str:
    """Where the code waits for op n, or else where its main function stands."""
    if run.machine is None:
        return ""
    tasks = []
    with suppress(OutOfMemory):
        tasks = run.machine.inspect(values=False)["tasks"]
    waiting = [task for task in tasks if n and (task.get("waits") or {}).get("op") == n]
    for task in (*waiting, *(task for task in tasks if task.get("main")), *tasks):
        for frame in task.get("frames") or ():
            if frame.get("line"):
                return f"{frame['file']}:{frame['line']}"
    return ""
