"""Resetting a workflow: a new run that goes on from a chosen event of the one before.

The new run's start says on what it rests (`mesh.lineage`). When the old run has ended, that start is published like any
other, by compare-and-set. When it is still open, its owner is told to end it: the `kill` carries the start, and the
owner writes both, so that there is no moment at which the workflow has ended. Whoever waits for its result goes on
waiting, and a parent hears nothing of it.

A workflow with a child that runs at the chosen event cannot be reset to it: the child's end goes to the run that has
started it, and the new run would wait for ever.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import anyio

from mesh import codec
from mesh.errors import Conflict, MeshError, NotFound, OutcomeUnknown, Undecodable
from mesh.event_numbers import event_index
from mesh.events import Base, Event, StartSpec, parent_headers, reset_of, start_spec_of
from mesh.history import History, OpenRun, RunOutcome
from mesh.jetstream import JetStream
from mesh.starting import TERMINATE_WAIT_S, TRIES, publish_until_acked
from mesh.subjects import WorkflowKey, stream_name

TIMEOUT_TICK: Final = "timeout"


class CannotReset(MeshError):
    """Raised when a workflow cannot be reset to an event."""

    code = "cannot-reset"


class NoSuchEvent(CannotReset):
    """Raised when there is no such event to reset to. last: the last one there is."""

    code = "no-such-event"

    def __init__(self, workflow_id: str, number: int, last: int, ender: str) -> None:
        self.number = number
        self.last = last
        why = f"; event {last + 1} has ended the run ({ender})" if ender else ""
        super().__init__(
            f"workflow {workflow_id!r} cannot be reset to event {number}: choose one from 1 to {last}{why}"
        )


class ChildrenRun(CannotReset):
    """Raised when children run at the chosen event."""

    code = "children-run"

    def __init__(self, workflow_id: str, number: int, children: Sequence[Child]) -> None:
        self.children = tuple(children)
        named = ", ".join(f"{child.id} (op {child.n})" for child in children)
        before = min(child.number for child in children) - 1
        after = max(child.ended for child in children) if all(child.ended for child in children) else 0
        from_end = f", or one from event {after} on, when they have ended" if after else ""
        super().__init__(
            f"workflow {workflow_id!r} cannot be reset to event {number}: there it has children that run, {named}, and "
            f"would never hear of their end; choose an event before they were started (up to {before}){from_end}"
        )


@dataclass(frozen=True, slots=True)
class Child:
    """A child that runs at an event. number: of the event that says it has started; ended: of its end, 0 = none."""

    queue: str
    id: str
    n: int
    number: int
    ended: int


@dataclass(frozen=True, slots=True)
class WasReset:
    """What a reset came to. number, seq: the event that the new run goes on from. base: the run it rests on."""

    run: int
    base: int
    number: int
    seq: int


async def reset_workflow(
    js: JetStream,
    history: History,
    key: WorkflowKey,
    number: int,
    *,
    reason: str = "",
    signals: bool = True,
    without: Sequence[int] = (),
) -> WasReset:
    """Start a new run that goes on from an event of the newest one; an open one is ended first.

    number: of the event, from 1, or its stream sequence. signals: give it those that came after the event, too.
    without: numbers of some of these that it is not given, such as one that nobody can read.
    Raises NotFound, CannotReset (NoSuchEvent, ChildrenRun), Conflict when somebody starts it meanwhile, OutcomeUnknown.
    """
    for _ in range(TRIES):
        opened, ended = await _newest_run(history, key)
        try:
            old = opened.spec()
        except Undecodable as error:
            raise CannotReset(f"workflow {key.id!r} cannot be reset: its start cannot be read ({error})") from error
        if old.origin is not None:
            # Its code has the identity of the run it was recorded as, which a start of ours could not give it.
            raise CannotReset(
                f"workflow {key.id!r} was recorded in another mesh and imported; reset it there, or start it here anew"
            )
        events = await history.events(key, opened.run)
        index = chosen_event(key.id, opened.run, events, number)
        running = [c for c in children_at(events, index) if c.ended or await _is_child(js, key, c)]
        if running:
            raise ChildrenRun(key.id, index + 1, running)
        left_out = [left_out_signal(key.id, events, index, each) for each in without]
        spec = reset_start(old, opened.run, events, index, reason=reason, signals=signals, without=left_out)
        if spec.parent is not None and await _was_told(js, spec):
            spec = replace(spec, parent=None)
        at = (index + 1, events[index].seq)
        if ended is None:
            run = await _end_and_start(js, history, key, opened.run, spec)
        else:
            run = await _start(js, history, key, opened.run, spec)
        if run:
            return WasReset(run, opened.run, *at)
    raise OutcomeUnknown(key.start())


def chosen_event(workflow_id: str, run: int, events: Sequence[Event], number: int) -> int:
    """The index of an event that a run can be reset to. Raises NoSuchEvent."""
    ends = next((i for i, event in enumerate(events) if i and _ends(run, event)), len(events))
    index = event_index(events, number)
    if index is None or index >= ends:
        ender = events[ends].kind if ends < len(events) else ""
        raise NoSuchEvent(workflow_id, number, ends, "timeout" if ender == "tick" else ender)
    return index


def left_out_signal(workflow_id: str, events: Sequence[Event], index: int, number: int) -> int:
    """The sequence of a signal that a run is not given which goes on from the event at index. Raises CannotReset."""
    at = event_index(events, number)
    if at is None or at <= index or events[at].kind != "signal":
        if at is None:
            found = "there is no such event"
        elif events[at].kind != "signal":
            found = f"it is no signal ({events[at].kind}); reset to an event before it instead"
        else:
            found = f"it is not after event {index + 1}; reset to an event before it"
        raise CannotReset(f"event {number} of workflow {workflow_id!r} cannot be left out: {found}")
    return events[at].seq


def children_at(events: Sequence[Event], index: int) -> list[Child]:
    """What may be children that run at an event: outcomes that look like a start of one, without its end.

    Nothing in an outcome says for sure that it is that of a start; where the child's end is known, it is one.
    """
    found: dict[int, Child] = {}
    for i, event in enumerate(events):
        if event.kind == "ret" and i <= index:
            n, child = int(event.args[1]), _child_of(event)
            if child is not None and n not in found:
                found[n] = Child(child.queue, child.id, n, i + 1, 0)
        elif event.kind == "exit":
            n = int(event.args[1])
            if i <= index:
                found.pop(n, None)
            elif n in found and not found[n].ended:
                found[n] = replace(found[n], ended=i + 1)
    return list(found.values())


def reset_start(
    old: StartSpec,
    run: int,
    events: Sequence[Event],
    index: int,
    *,
    reason: str = "",
    signals: bool = True,
    without: Sequence[int] = (),
) -> StartSpec:
    """The start of the run that goes on from an event of an older run. without: sequences of signals."""
    before = old.base
    base = Base(
        run=run,
        upto=events[index].seq if index else 0,
        origin=before.origin if before is not None else run,
        started_ns=before.started_ns if before is not None else events[0].at_ns,
        start_bytes=before.start_bytes if before is not None else len(events[0].data),
        signals=signals,
    )
    left_out = (*old.without, *without)
    return replace(old, base=base, reason=reason, without=left_out, chain_started_ns=0, cron="")


def _ends(run: int, event: Event) -> bool:
    if event.kind == "tick":
        return event.run == run and event.args[1] == TIMEOUT_TICK
    if event.kind == "kill":
        spec = reset_of(event)
        return spec is None or (spec.base is not None and spec.base.run == run)
    return event.kind == "end" and event.run == run


def _child_of(event: Event) -> WorkflowKey | None:
    try:
        ok, value = codec.decode_outcome(event.data)
    except Undecodable:
        return None
    if not (ok and isinstance(value, Mapping)):
        return None
    queue, child_id = value.get("queue"), value.get("id")
    is_start = isinstance(queue, str) and isinstance(child_id, str) and isinstance(value.get("pid"), str)
    return WorkflowKey(str(queue), str(child_id)) if is_start else None


async def _is_child(js: JetStream, key: WorkflowKey, child: Child) -> bool:
    """Whether a workflow was started by that op of ours."""
    subject = WorkflowKey(child.queue, child.id).stored("*", "start")
    try:
        starts = await js.batch_get(stream_name(child.queue), subject_filter=subject)
    except NotFound:
        return False
    for start in starts:
        try:
            spec = _decoded(start.data, start.raw_headers)
        except Undecodable:
            continue
        parent = spec.parent
        if parent is not None and (parent.key, parent.n) == (key, child.n):
            return True
    return False


async def _was_told(js: JetStream, spec: StartSpec) -> bool:
    """Whether the parent has heard of the end of this child."""
    parent = spec.parent
    if parent is None:
        return False
    subject = parent.key.stored("*", "exit", str(parent.run), str(parent.n))
    try:
        return bool(await js.multi_last(stream_name(parent.queue), [subject]))
    except NotFound:
        return True  # its queue is gone


async def _newest_run(history: History, key: WorkflowKey) -> tuple[OpenRun, RunOutcome | None]:
    """The newest run and its end; one that is about to follow is waited for."""
    with anyio.move_on_after(TERMINATE_WAIT_S):
        while True:
            found = await history.newest_run(key)
            if found[1] is None or not found[1].goes_on:
                return found
            await anyio.sleep(0.02)
    raise CannotReset(
        f"workflow {key.id!r} goes on as a new run, which did not begin within {TERMINATE_WAIT_S:g} s (no node up?)"
    )


async def _start(js: JetStream, history: History, key: WorkflowKey, run: int, spec: StartSpec) -> int:
    """Publish the start after a run that has ended; returns the new run. Raises Conflict, OutcomeUnknown."""
    payload = spec.encode()
    last = await history.last_start(key)
    found = await history.last_run(key)
    if last is None or found is None or found[0].run != run:
        raise Conflict(key.start(), run, "the workflow was started anew")
    for _ in range(TRIES):
        try:
            headers = parent_headers(spec.parent) or None
            ack = await js.publish(key.start(), payload, headers=headers, expect_last_subject_seq=last.run)
        except OutcomeUnknown:
            continue  # repeated with the same expectation: if it is there, the conflict shows it
        except Conflict:
            stored = await history.last_start(key)
            if stored is None or stored.start.data != payload:
                raise
            return stored.run
        return ack.seq
    raise OutcomeUnknown(key.start())


async def _end_and_start(js: JetStream, history: History, key: WorkflowKey, run: int, spec: StartSpec) -> int:
    """Have the owner of an open run end it and start the next one; 0 when it has ended otherwise meanwhile."""
    payload = spec.encode()
    identity = hashlib.blake2s(payload, digest_size=8).hexdigest()
    await publish_until_acked(js, key.subject("kill"), payload, {}, msg_id=f"{key.queue}/{key.id}/{run}/{identity}")
    with anyio.move_on_after(TERMINATE_WAIT_S):
        delay_s = 0.005
        while True:
            ended = await history.end_of(key, run)
            following = await history.start_after(key, ended.seq) if ended is not None else None
            if following is not None:
                return following.run if following.start.data == payload else 0
            if ended is not None and not ended.goes_on:
                return 0
            await anyio.sleep(delay_s)
            delay_s = min(delay_s * 2, 0.25)
    raise CannotReset(
        f"workflow {key.id!r} was told to end for its reset and did not within {TERMINATE_WAIT_S:g} s (no node up?); "
        "the reset is carried out once a node owns it"
    )


def _decoded(data: bytes, raw_headers: bytes | None) -> StartSpec:
    return start_spec_of(Event("start", "", 0, 0, [], data, raw_headers))
