"""What a run is doing, as a record: what it waits for, and where its code stands. Asks nobody, changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from node.machine.vm import Machine
from node.workflows.children import child_pid
from node.workflows.ops import OpState
from node.workflows.run import Run

# An error's text may be as long as its writer liked.
ERROR_CHARACTERS_MAX: Final = 2000


def described(run: Run) -> dict[str, Any]:
    """The state of a run, and what it waits for."""
    machine = run.machine
    return {
        "run": run.run, "workflow": run.spec.workflow, "status": "suspended" if run.suspended else "running",
        "reason": run.suspended, "unreadable": run.is_unread, "waiting": [_waiting(op) for op in run.open.values()],
        "children": [child_pid(op) for op in run.children.by_n.values()],
        "stacks": machine.stacks() if machine is not None and not run.suspended else [],
        "started_ns": run.started_ns, "attempt": run.spec.attempt, "delayed_until_ns": run.delayed_until_ns,
        "deadline_ns": run.deadline_ns, "memo": run.attributes.memo, "attrs": run.attributes.search,
        "cancel_requested": run.cancel_requested, "events": run.length,
        "mailbox": _mailbox(machine) if machine is not None and not run.suspended else {},
    }  # fmt: skip


def _mailbox(machine: Machine) -> dict[str, Any]:
    """What the code listens to and has not read; empty when that is nothing."""
    seen = machine.mailbox()
    return seen if any(seen.values()) else {}


def _waiting(op: OpState) -> dict[str, Any]:
    item: dict[str, Any] = {"n": op.n, "kind": op.kind, "since_ns": op.issued_ns}
    if op.target:
        item["target"] = op.target
    if op.kind == "call":
        item["attempt"] = op.attempt
        if op.last_failure:
            item["last_error"] = op.last_failure[:ERROR_CHARACTERS_MAX]
        if op.failed_seq and op.due_ns:
            item["next_attempt_ns"] = op.due_ns
    elif op.due_ns:
        item["due_ns"] = op.due_ns
    return item


def looked_at(run: Run, machine: Machine) -> dict[str, Any]:
    """Where the code of a run stands (`LuaMachine.inspect`), with `what` the ops are about that tasks wait for."""
    seen = machine.inspect()
    for wait in _waits(seen):
        n = wait.get("op")
        if isinstance(n, int):
            wait["what"] = _about(run, n)
    return seen


def _waits(seen: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for task in seen["tasks"]:
        yield task["waits"]
        yield from task["waits"].get("cases") or ()


def _about(run: Run, n: int) -> str:
    op = run.open.get(n)
    if op is not None:
        return f"{op.kind} {op.target}".rstrip()
    child = run.children.by_n.get(n)
    return f"child {child_pid(child)}" if child is not None else ""
