"""Checking code against what it has run before: a recorded history is replayed, and what does not fit is named.

Pure, as replaying is. For tests, for `mesh replay`, for whoever wants to know before code is deployed.

What is found: an event that answers what the code does not ask for, or asks for otherwise (the run would be
suspended there); code that is missing or fails; an end that is not the recorded one. Not found: other arguments
of the same call, as they are not in a history.

In a VM that remembers places (`LuaVM.remember_places`) the line is the one that asked for the op, with the frames above
it; else it is the one where a task waits for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

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
_WRITTEN_BY_NODES: Final = ("the result takes ", "the workflow took more memory ")
_ENDED_FROM_OUTSIDE: Final = frozenset({"terminated", "timed-out"})
_PLACE: Final = re.compile(r"\S+\.lua:\d+|^\S+:\d+")


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Where code does not fit a history. number, event: at which event, from 1.

    line: where the code stands, `file:line`, or "". expected: what the history has. got: what the code
    does instead. reason: the same as one sentence. stack: the user's frames at the line, innermost first, one a line.
    """

    number: int
    event: Event
    line: str
    expected: str
    got: str
    reason: str
    stack: str = ""


@dataclass(frozen=True, slots=True)
class Checked:
    """What a replay came to. run: as it stands after its last event, or at the mismatch; to be closed.

    notes: what is different and lets the run go on all the same. vm_lost: the VM has used up its memory.
    """

    run: Run
    mismatch: Mismatch | None
    events: int
    notes: tuple[str, ...] = ()
    vm_lost: bool = False


def check_history(
    opening: Opening,
    key: WorkflowKey,
    run_id: int,
    events: Sequence[Event],
    *,
    known: Mapping[str, str] | None = None,
    vm: LuaVM | None = None,
    same_result: bool = True,
) -> Checked:
    """Replay a history and say whether the code fits it. Raises NoStart, Undecodable.

    known: ops by their fingerprints (`known_ops`), so that what was recorded can be named.
    same_result: another result than the recorded one is a mismatch, else a note.
    """
    spec = start_of(run_id, events)
    machine_vm = vm or LuaVM()
    run = opening.new_run(key, run_id, spec, recorded_marks(run_id, events), vm=lambda: machine_vm)
    number = 0
    over = 0  # the event at which the code came to its end
    stood = ""  # where the code stood before its recorded end
    names = dict(known or {})
    asked: dict[int, OpState] = {}
    try:
        for step in replay_steps(run, events, record_ops=True):
            number = step.number
            for op in step.asked:
                asked[op.n] = op
                names.setdefault(op.fp, f"{op.kind} {op.target}")
            if run.suspended:
                return Checked(run, _misfit(run, number, step.event, asked, names), number)
            if step.event.kind == "end" and step.event.run == run_id:
                return _at_end(run, number, events, stood, over, same_result=same_result)
            if over and _answers_nothing(run, step.event):
                return Checked(run, _ended_before(run, number, step.event, names), number)
            if run.finished is not None:
                over = over or number
            elif number < len(events) and events[number].kind == "end":
                stood = _stack(run, next(iter(run.open), 0))
    except OutOfMemory as error:
        reason = f"the code takes more memory than a run may have: {error}"
        event = events[min(number, len(events) - 1)]
        mismatch = Mismatch(number + 1, event, "", _told(event, names), str(error), reason)
        return Checked(run, mismatch, number, vm_lost=True)
    notes = (f"the code would end the run at event {over}: {_end(run.finished.record)}",) if run.finished else ()
    return Checked(run, None, number, notes)


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


def _misfit(run: Run, number: int, event: Event, asked: Mapping[int, OpState], known: Mapping[str, str]) -> Mismatch:
    n = int(event.args[1]) if event.kind in ("ret", "tick", "exit") and event.args[1].isdecimal() else 0
    op = asked.get(n)
    stack = _stack(run, n)
    if n and op is not None:
        got = _asked(op)
    elif n and n >= run.ops.next_n:
        count = run.ops.next_n - 1
        got = f"has asked for {count} {'op' if count == 1 else 'ops'} so far"
    else:
        # No code, code that does not compile, or a fault of ours: what is said names the line, if there is one.
        found = _PLACE.search(run.suspended)
        return Mismatch(number, event, found[0] if found else "", _told(event, known), run.suspended, run.suspended)
    return Mismatch(number, event, _first(stack), _told(event, known), got, run.suspended, stack)


def _ended_before(run: Run, number: int, event: Event, known: Mapping[str, str]) -> Mismatch:
    expected, record = _told(event, known), run.finished.record if run.finished is not None else EndRecord("completed")
    got, stack = _end(record), _blamed(record)
    reason = f"the history goes on with {expected}, the code has ended: {got}"
    return Mismatch(number, event, _first(stack), expected, got, reason, stack)


def _at_end(run: Run, number: int, events: Sequence[Event], stood: str, over: int, *, same_result: bool) -> Checked:
    mismatch = _other_end(run, number, events[number - 1], stood)
    if mismatch is None:
        return Checked(run, None, number, _unread(events, over, number))
    record, recorded = run.finished.record if run.finished is not None else None, decode_end(events[number - 1].data)
    if not same_result and record is not None and record.status == recorded.status:
        return Checked(run, None, number, (mismatch.reason, *_unread(events, over, number)))
    return Checked(run, mismatch, number)


def _unread(events: Sequence[Event], over: int, number: int) -> tuple[str, ...]:
    """Signals that came between the event at which the code ends and the recorded end."""
    unread = [str(n) for n in range(over + 1, number) if events[n - 1].kind == "signal"] if over else []
    if not unread:
        return ()
    more = " ..." if len(unread) > 5 else ""
    return (f"the code ends at event {over}, before it was given the signals of events {', '.join(unread[:5])}{more}",)


def _other_end(run: Run, number: int, event: Event, stood: str) -> Mismatch | None:
    recorded = decode_end(event.data)
    value = recorded.value()
    if recorded.status == "failed" and isinstance(value, Failure) and value.message.startswith(_WRITTEN_BY_NODES):
        return None
    if run.finished is None:
        if recorded.status in _ENDED_FROM_OUTSIDE:
            return None
        expected = _end(recorded)
        waiting = ", ".join(_asked(op) for op in run.open.values()) or "a message"
        got = f"waits for {waiting}"
        reason = f"the history has the end of the run ({expected}), the code {got}"
        return Mismatch(number, event, _first(stood), expected, got, reason, stood)
    record = run.finished.record
    if record == recorded or _same_end(record, recorded):
        return None
    expected, got, stack = _end(recorded), _end(record), _blamed(record)
    reason = f"the run ended with {expected}, the code ends with {got}"
    return Mismatch(number, event, _first(stack), expected, got, reason, stack)


def _same_end(one: EndRecord, other: EndRecord) -> bool:
    """Whether two ends say the same. Where in the code a failure came up is not part of it: lines move.

    other: the recorded one. That of an imported run does not say what followed.
    """
    if other.status in ("continued", "retried") and not other.next_start:
        return one.status == other.status
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


def _stack(run: Run, n: int) -> str:
    """The frames that asked for op n, or else those of the task that waits for it, or of the main task."""
    machine = run.machine
    if machine is None:
        return ""
    tasks = []
    with suppress(OutOfMemory):
        if n and (remembered := machine.place(n)):
            return remembered
        tasks = machine.inspect(values=False)["tasks"]
    waiting = [task for task in tasks if n and (task.get("waits") or {}).get("op") == n]
    for task in (*waiting, *(task for task in tasks if task.get("main")), *tasks):
        frames = [f"{frame['file']}:{frame['line']}" for frame in task.get("frames") or () if frame.get("line")]
        if frames:
            return "\n".join(frames)
    return ""


def _blamed(record: EndRecord) -> str:
    """The frames of the error that a run has ended with, or the place that it names when it has none."""
    value = record.value() if not record.next_start else None
    if not isinstance(value, Failure):
        return ""
    frames = [line.strip() for line in value.stack.partition("\n")[2].splitlines() if line.strip()]
    found = _PLACE.match(value.message)
    return "\n".join(frames) or (found[0] if found is not None else "")


def _first(stack: str) -> str:
    """`file.lua:12` of the innermost frame."""
    found = _PLACE.match(stack)
    return found[0] if found is not None else ""
