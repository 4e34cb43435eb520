"""Events of a history as records with readable values, and as lines in words.

Pure. What anybody may have written to a subject is read here: nothing that stands in an event raises.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mesh import codec
from mesh.envelopes import Unopened, may_open_later, why_closed
from mesh.errors import Undecodable
from mesh.events import (
    HEADER_FROM,
    HEADER_NODE,
    HEADER_TOOK,
    Event,
    StartSpec,
    decode_attrs,
    decode_end,
    decode_start,
    reset_of,
    start_spec_of,
)
from mesh.failure import Failure
from mesh.instants import iso
from mesh.subjects import untoken
from mesh.wire import parse_headers
from node.workflows.op_table import OpRow, op_of

SECOND_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Known:
    """What is known besides the events. targets: what fingerprints stand for. ops: by number, as far as replayed."""

    targets: Mapping[str, str]
    ops: Mapping[int, OpRow]


NOTHING_KNOWN: Final = Known({}, {})


def event_records(events: Sequence[Event], known: Known = NOTHING_KNOWN) -> list[dict[str, Any]]:
    """The records of a whole history, numbered from 1."""
    start_ns = _began_ns(events[0]) if events else 0
    return [event_record(event, number, start_ns, known) for number, event in enumerate(events, 1)]


def _began_ns(start: Event) -> int:
    """When a history began: that of a reset run with the run it rests on."""
    try:
        base = start_spec_of(start).base if start.kind == "start" else None
    except Undecodable:
        base = None
    return base.started_ns if base is not None else start.at_ns


def event_record(event: Event, number: int, start_ns: int, known: Known = NOTHING_KNOWN) -> dict[str, Any]:
    """One event: n, seq, time, since_s (from the start of its run), kind, what belongs to its kind.

    When known: duration_s (from when the op was asked for), took_s (how long the function ran), node (which ran it).
    """
    record: dict[str, Any] = {
        "n": number, "seq": event.seq, "time": iso(event.at_ns), "since_s": (event.at_ns - start_ns) / SECOND_NS,
        "kind": event.kind,
    }  # fmt: skip
    headers = parse_headers(event.raw_headers) if event.raw_headers else {}
    try:
        record |= _by_kind(event, headers, known)
    except Undecodable as error:
        problem = error.reason if isinstance(error, Unopened) else f"undecodable: {error}"
        record |= _shape(event) | {"problem": problem}
    row = known.ops.get(op_of(event))
    if row is not None:
        if event.kind in ("ret", "tick", "exit"):
            record["duration_s"] = max(0, event.at_ns - row.asked_ns) / SECOND_NS
        if event.kind == "ret" and not row.target and "target" not in record:
            record["target"] = row.kind
    if headers.get(HEADER_NODE):
        record["node"] = headers[HEADER_NODE]
    took_ms = _number(headers.get(HEADER_TOOK))
    if took_ms is not None:
        record["took_s"] = took_ms / 1000
    return record


def _number(text: str | None) -> float | None:
    """A finite number: what stands in a header may be `nan`."""
    try:
        number = float(text) if text else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _by_kind(event: Event, headers: Mapping[str, str], known: Known) -> dict[str, Any]:
    sender = {"from": headers[HEADER_FROM]} if headers.get(HEADER_FROM) else {}
    args = event.args
    match event.kind:
        case "start":
            return _start_fields(decode_start(event.data, headers))
        case "signal":
            return {"topic": event.topic, "value": codec.decode(event.data)} | sender
        case "ret":
            target = {"target": known.targets[args[3]]} if args[3] in known.targets else {}
            return (
                {"op": int(args[1]), "attempt": int(args[2]), "fingerprint": args[3]} | target | _outcome_fields(event)
            )
        case "exit":
            return {"op": int(args[1])} | _outcome_fields(event) | sender
        case "claim":
            return {"op": int(args[1]), "attempt": int(args[2])}
        case "tick":
            name = args[1]
            return {"timer": f"op {name}" if name.isdecimal() else name}
        case "mark":
            return {"name": untoken(args[1]), "value": codec.decode(event.data)}
        case "attrs":
            attrs, memo = decode_attrs(event.data)
            return {"attrs": attrs, "memo": memo}
        case "end":
            end = decode_end(event.data)
            following = {"next": decode_start(end.next_start, {}).workflow} if end.next_start else {}
            if end.closed:
                return {"status": end.status} | _closed_fields(end.closed)
            value = end.value()
            failure = value.to_wire() if isinstance(value, Failure) else None
            return {"status": end.status, "value": None if failure else value, "error": failure} | following
        case "unreadable":
            return {"event": " ".join(args), "problem": "damaged in the files of the server, which cannot read it"}
        case "kill" if reset_of(event) is not None:
            return {"reset": True} | sender
        case _:
            return dict(sender)


def _start_fields(spec: StartSpec) -> dict[str, Any]:
    parent = f"{spec.parent.id} op {spec.parent.n}" if spec.parent else None
    return {
        "workflow": spec.workflow, "args": codec.unpack(spec.args), "host": spec.host, "parent": parent,
        "attempt": spec.attempt, "cron": spec.cron or None, "memo": dict(spec.memo),
    } | _reset_fields(spec)  # fmt: skip


def _reset_fields(spec: StartSpec) -> dict[str, Any]:
    """What a reset run rests on: base, up to which event (its sequence), why."""
    base = spec.base
    return {"base": base.run, "base_seq": base.upto or base.run, "reason": spec.reason or None} if base else {}


def _outcome_fields(event: Event) -> dict[str, Any]:
    if may_open_later(event.data):
        return _closed_fields(why_closed(event.data))
    try:
        ok, value = codec.decode_outcome(event.data)
    except Undecodable as error:
        return {"value": None, "error": {"message": f"undecodable: {error}", "kind": "Internal"}}
    return {"value": value, "error": None} if ok else {"value": None, "error": value.to_wire()}


def _closed_fields(reason: str | None) -> dict[str, Any]:
    """Of an outcome that others can read: whether it is a value or an error is part of what is closed."""
    return {"value": None, "error": None, "problem": reason or "closed"}


def _shape(event: Event) -> dict[str, Any]:
    """The fields that a line needs, for an event whose body nobody can read."""
    match event.kind:
        case "start":
            return {"workflow": "?", "args": []}
        case "signal":
            return {"topic": event.topic, "value": event.data}
        case "mark":
            return {"name": event.args[1], "value": event.data}
        case "end":
            return {"status": "?", "value": None, "error": None}
        case _:
            return {}
