"""A workflow described: one record with its state, what it waits for, where its code stands, and its history.

`mesh show --json` prints it and the control API answers `describe` with it; docs/api.md has its fields. Of a run that
is open the owner is asked, of one that has ended or of an event in the past whoever owns its partition now; without a
node there are still the events, and `code`, if it is there, says the rest.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from mesh import codec
from mesh.client import Client
from mesh.errors import CannotLookBack, Undecodable
from mesh.event_numbers import event_number
from mesh.events import EndRecord, Event, StartSpec, decode_attrs, decode_end, decode_start
from mesh.failure import Failure
from mesh.history import OpenRun
from mesh.instants import iso
from mesh.lineage import up_to_end
from mesh.states import ask_owner, ask_owner_back, past_value, workflow_name
from mesh.subjects import WorkflowKey
from mesh.wire import parse_headers
from node.api.directory import offered
from node.api.event_records import SECOND_NS, Known, event_records
from node.api.topics import listened, unread_records
from node.workflows.looking_back import LookingBack
from node.workflows.op_table import OpRow, op_of
from node.workflows.ops import fingerprint

Record = dict[str, Any]

# A workflow may have gone on as very many runs; `mesh ls --all-runs` has them all.
RUNS_TOLD_MAX: Final = 100

_LEFT_OUT: Final = {
    "waiting": "what it waits for",
    "ops": "the steps",
    "tasks": "its tasks",
    "stacks": "their stacks",
    "mailbox": "its unread messages",
    "unread": "its unread messages",
}


async def describe(
    client: Client, key: WorkflowKey, *, run: int = 0, at: int | None = None, code: LookingBack | None = None
) -> Record:
    """Describe a run of a workflow, the newest by default, or how it was at one of its events.

    at: an event's number or stream sequence. code: an app's, asked instead of the mesh's nodes. Raises NotFound,
    NoSuchRun, UnknownEvent, and CannotLookBack when `at` is given and nobody can say.
    """
    history = client.history(key.queue)
    opened, outcome = await history.run_named(key, run)
    ended = decode_end(outcome.data) if outcome is not None else None
    runs = await history.runs(key, 0 if run else opened.run)
    events = await history.events(key, opened.run)
    if outcome is not None and opened.run != runs[-1]:
        events = up_to_end(opened.run, events, outcome.seq)
    number = event_number(key.id, events, at, run) if at is not None else len(events)
    detail: Mapping[str, Any]
    if at is not None:
        detail = await _past(client, key, opened, events, events[number - 1].seq, code)
    elif code is not None:
        detail = await code.at(key, opened.run, events)
    elif ended is None:
        detail = await ask_owner(client, key, opened, full=True)
    else:
        detail = await _ops_of_ended(client, key, opened)
    known = await _known(client, events, detail)
    return described(key, opened, events[:number], detail, known, ended=ended, is_past=at is not None, runs=runs)


async def _past(
    client: Client, key: WorkflowKey, opened: OpenRun, events: Sequence[Event], seq: int, code: LookingBack | None
) -> Mapping[str, Any]:
    if code is not None:
        return await code.at(key, opened.run, events, seq)
    return await ask_owner_back(client, key, opened, seq)


async def _ops_of_ended(client: Client, key: WorkflowKey, opened: OpenRun) -> Mapping[str, Any]:
    """Of a run that has ended only its ops are asked for: the rest is in its end."""
    try:
        seen = await ask_owner_back(client, key, opened)
    except CannotLookBack as error:
        return {"ops_problem": str(error)}
    return {name: seen[name] for name in ("ops", "suspended_seq", "node") if name in seen}


async def _known(client: Client, events: Sequence[Event], detail: Mapping[str, Any]) -> Known:
    ops = {row[0]: OpRow(*row) for row in detail.get("ops") or ()}
    names = {(row.kind, row.target) for row in ops.values() if row.target}
    names |= {(str(item.get("kind")), str(item["target"])) for item in detail.get("waiting") or () if "target" in item}
    targets = {fingerprint(kind, target): f"{kind} {target}" for kind, target in names}
    if any(event.kind == "ret" and event.args[3] not in targets for event in events):
        # Nobody has replayed this far: the functions that are on offer are guesses, and the fingerprint checks them.
        targets |= {fingerprint("call", name): f"call {name}" for name in await offered(client)}
    return Known(targets, ops)


# -- pure ------------------------------------------------------------------------------------------------------------


def described(
    key: WorkflowKey,
    opened: OpenRun,
    events: Sequence[Event],
    detail: Mapping[str, Any],
    known: Known,
    *,
    ended: EndRecord | None,
    is_past: bool,
    runs: Sequence[int] = (),
) -> Record:
    """The record of a run from its events (up to the wanted one), what was said of it, and how it ended.

    runs: those that its workflow has, the oldest first.
    """
    spec = _spec(opened)
    if is_past or (ended is None and "status" in detail):
        status, value = str(detail["status"]), past_value(detail)
    elif ended is not None:
        status, value = ended.status, ended.value()
    else:
        status, value = "running", None
    is_over = status not in ("running", "suspended")
    failure = value if isinstance(value, Failure) else None
    started_ns = events[0].at_ns if events else 0
    # Attributes that the last step has set may be recorded after the end.
    ended_ns = next((event.at_ns for event in reversed(events) if event.kind != "attrs"), None) if is_over else None
    until_ns = ended_ns or (events[-1].at_ns if is_past and events else time.time_ns())
    numbers = {event.seq: number for number, event in enumerate(events, 1)}
    last = events[-1] if events else None
    attrs, memo = _attributes(spec, events, detail)
    mailbox = detail.get("mailbox") or {}
    suspended_at = numbers.get(detail.get("suspended_seq") or 0) if status == "suspended" else None
    expected, got = _mismatch(events[suspended_at - 1], known) if suspended_at else (None, None)
    return {
        "id": key.id,
        "queue": key.queue,
        "run": opened.run,
        "runs": list(runs[-RUNS_TOLD_MAX:]) or [opened.run],
        "runs_total": len(runs) or 1,
        "type": spec.workflow if spec else workflow_name(opened),
        "workflow": workflow_name(opened),
        "status": status,
        "at": {"n": len(events), "seq": last.seq, "time": iso(last.at_ns)} if is_past and last else None,
        "started": iso(started_ns) if events else None,
        "ended": iso(ended_ns) if ended_ns else None,
        "duration_s": (until_ns - started_ns) / SECOND_NS if events else None,
        "parent": spec.parent.id if spec and spec.parent else None,
        "attempt": spec.attempt if spec else 1,
        "memo": memo,
        "attrs": attrs,
        "value": None if failure else value,
        "error": failure.to_wire() if failure else None,
        "args": _args(spec),
        "node": detail.get("node") if not is_over or is_past else None,
        "reason": detail.get("reason") or detail.get("note") or None,
        "unreadable": status == "suspended" and bool(detail.get("unreadable")),
        "suspended_at": suspended_at,
        "expected": expected,
        "got": got,
        "waiting": [waiting_record(item) for item in detail.get("waiting") or ()],
        "listens": listened(mailbox),
        "inbox": bool(mailbox.get("inbox")),
        "unread": unread_records(mailbox),
        "children": list(detail.get("children") or ()),
        "cancel_requested": bool(detail.get("cancel_requested")),
        "delayed_until": _iso_or_none(detail.get("delayed_until_ns")),
        "deadline": _iso_or_none(detail.get("deadline_ns")),
        "stacks": list(detail.get("stacks") or ()),
        "tasks": list(detail.get("tasks") or ()),
        "tasks_total": detail.get("tasks_total") or 0,
        "coroutines": list(detail.get("coroutines") or ()),
        "globals": list(detail.get("globals") or ()),
        "ops": [_op_record(row, numbers) for row in known.ops.values()],
        "history_warning": detail.get("history_warning") or None,
        "note": _note(detail),
        "events_total": len(events),
        "events": event_records(events, known),
    }  # fmt: skip


def _note(detail: Mapping[str, Any]) -> str | None:
    """What cannot be told, and why."""
    if detail.get("problem"):
        return f"where its code stands cannot be seen: {detail['problem']}"
    if detail.get("ops_problem"):
        return f"the history is without steps and durations: {detail['ops_problem']}"
    if detail.get("left_out"):
        return f"too much for one message of its owner, {_without(detail['left_out'])}; --app APP has it all"
    return None


def _without(names: Sequence[str]) -> str:
    return f"so there is not all of: {', '.join(_LEFT_OUT.get(name, name) for name in names)}"


def fitted(record: Record, bytes_max: int) -> Record:
    """A record without the details that do not fit into so many bytes of JSON; `note` says which those are."""
    left_out: list[str] = []
    for name in ("ops", "globals", "coroutines", "stacks", "tasks", "unread", "children", *["waiting"] * 20):
        if len(codec.to_json(record).encode(errors="replace")) <= bytes_max:
            break
        if record[name]:
            left_out += [name] if name not in left_out else []
            kept = record[name][: len(record[name]) // 2] if name == "waiting" else []
            note = f"too much for one message, {_without(left_out)}; `mesh show` has it all"
            record = {**record, name: kept, "note": note}
    return record


def _attributes(
    spec: StartSpec | None, events: Sequence[Event], detail: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The search attributes and the memo: as the run has them, else as they were recorded last, else as it began."""
    if isinstance(detail.get("attrs"), Mapping) and isinstance(detail.get("memo"), Mapping):
        return dict(detail["attrs"]), dict(detail["memo"])
    for event in reversed(events):
        if event.kind == "attrs":
            try:
                return decode_attrs(event.data)
            except Undecodable:
                break
    return (dict(spec.attrs), dict(spec.memo)) if spec else ({}, {})


def _mismatch(event: Event, known: Known) -> tuple[str | None, str | None]:
    """What the history has at an event that does not fit, and what the code has asked for instead."""
    n = op_of(event)
    row = known.ops.get(n)
    got = f"{row.kind} {row.target}".rstrip() if row is not None else None
    if event.kind == "tick":
        return "timer", got
    if event.kind == "exit":
        return "child", got
    if event.kind != "ret":
        return None, None
    return known.targets.get(event.args[3], f"another op (fingerprint {event.args[3]})"), got


def _spec(opened: OpenRun) -> StartSpec | None:
    headers = parse_headers(opened.start.raw_headers) if opened.start.raw_headers else {}
    try:
        return decode_start(opened.start.data, headers)
    except Undecodable:
        return None


def _args(spec: StartSpec | None) -> Any:
    try:
        return codec.unpack(spec.args) if spec else None
    except Undecodable:
        return None


def waiting_record(item: Mapping[str, Any]) -> Record:
    """What a workflow waits for, as its owner says, with times that people can read."""
    times = {name.removesuffix("_ns"): iso(ns) for name, ns in item.items() if name.endswith("_ns")}
    return {**item, **times}


def _op_record(row: OpRow, numbers: Mapping[int, int]) -> Record:
    """An op: events by number. `ended` null: it is open; answered false: the code has given it up there."""
    return {
        "n": row.n, "kind": row.kind, "target": row.target, "asked": numbers.get(row.asked), "since": iso(row.asked_ns),
        "due": _iso_or_none(row.due_ns), "attempt": row.attempt, "ended": numbers.get(row.ended),
        "answered": row.answered,
    }  # fmt: skip


def _iso_or_none(ns: Any) -> str | None:
    return iso(ns) if ns else None
