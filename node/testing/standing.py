"""Where a run stands, as texts that are the same exactly when it waits for the same things.

For comparing a live run with one that was replayed, and for showing people what a workflow waits for.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from mesh import codec
from mesh.duration import format_duration
from mesh.errors import Undecodable
from node.workflows.children import child_pid
from node.workflows.ops import (
    Dispatch,
    Effect,
    Finish,
    OpState,
    Perform,
    RetryLater,
    SetTimer,
    Stop,
    Suspend,
    WriteAttrs,
    WriteMark,
)
from node.workflows.run import Run

SHOWN_CHARACTERS: Final = 200


def standing(run: Run, now_ns: int) -> list[str]:
    """What a run still waits for, or how it has ended."""
    told = [_told(effect, now_ns) for effect in run.outstanding() if not isinstance(effect, WriteAttrs)]
    if run.finished is None and not run.suspended:
        told += [f"the end of child {op.n}, {child_pid(op)}" for op in run.children.by_n.values()]
    return told


def position(run: Run, now_ns: int) -> list[str]:
    """Where a run stands, and what else has to be the same when it is replayed: what it says of itself, its stacks."""
    told = standing(run, now_ns)
    attributes = run.attributes
    if attributes.search or attributes.memo:
        told.append(f"attrs {_shown(attributes.search)} memo {_shown(attributes.memo)}")
    if run.machine is not None and not run.suspended:
        told += [f"at {' < '.join(stack.splitlines())}" for stack in sorted(run.machine.stacks()) if stack]
    return told


def _told(effect: Effect, now_ns: int) -> str:
    match effect:
        case Dispatch(op):
            return _call(op)
        case RetryLater(op, due_ns):
            # The pause is over for whoever looks now.
            return f"{_call(op)} in {_until(due_ns, now_ns)}" if op.durable or due_ns > now_ns else _call(op)
        case Stop(op):
            return f"{_call(op)} to stop"
        case SetTimer(name, due_ns):
            return f"timer {name} in {_until(due_ns, now_ns)}"
        case Perform(op):
            return f"{op.kind} {op.n} of {op.target} {_payload(op.payload)} {_shown(dict(op.options))}"
        case WriteMark(name, payload):
            return f"mark {name} = {_payload(payload)}"
        case Finish(record, children):
            told = ", ".join(f"{child.verb} of child {child.op.n}" for child in children)
            following = f", then {hashlib.sha256(record.next_start).hexdigest()[:12]}" if record.next_start else ""
            return f"its end: {record.status} {_payload(record.outcome)}{following}" + (f" with {told}" if told else "")
        case Suspend(reason):
            return f"code that fits: {reason}"
        case _:
            return repr(effect)


def _call(op: OpState) -> str:
    attempt = f", attempt {op.attempt}" if op.attempt > 1 else ""
    failed = f" (the last one failed: {op.last_failure})" if op.last_failure else ""
    options = f" with {_shown(dict(op.options))}" if op.options else ""
    return f"call {op.n} of {op.target}{_arguments(op.payload)}{options}{attempt}{failed}"


def _arguments(request: bytes) -> str:
    try:
        args, context = codec.decode(request)
    except (Undecodable, ValueError, TypeError):
        return f" {_payload(request)}"
    shown = _shown(args)
    listed = f"({shown[1:-1]})" if shown.startswith("[") and shown.endswith("]") else f" {shown}"
    return listed + (f" in context {_shown(context)}" if context else "")


def _until(due_ns: int, now_ns: int) -> str:
    return format_duration(max(0, due_ns - now_ns))


def _payload(payload: bytes) -> str:
    """A payload for people; what does not fit is told by its hash, so that no two are the same."""
    try:
        value = codec.decode(payload)
    except Undecodable:
        value = payload
    return _shown(value)


def _shown(value: Any) -> str:
    text = codec.to_json(value)
    if len(text) <= SHOWN_CHARACTERS:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return f"{text[:SHOWN_CHARACTERS]}... ({digest})"
