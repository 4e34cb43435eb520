"""What the history of a run is made of: its own events, and what it takes over from runs before it.

A run that continues another one takes over what that one had not seen (`StartSpec.since`). A reset run rests on an
older run (`StartSpec.base`): the events of that one up to the chosen one stand in front of its own, as if they had
happened to it. Nothing is copied; whoever reads a history (the owner, `mesh show`, a replay) gets one list.

Pure. A list of events here is in the order in which they are applied: the start, then by stream sequence.

Invariants:
  * event n of a reset run is event n of the run it rests on, up to the chosen event;
  * what was asked of an older run after that event (cancel, kill) is not asked of the reset one; what was sent to it
    (signals) is sent to the reset one, too, unless the reset says otherwise, of all of them or of some.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from mesh.errors import NotFound, Undecodable
from mesh.events import Event, StartSpec, decode_end, reset_of, start_spec_of

_NAME_A_RUN: Final = frozenset({"ret", "claim", "tick", "exit", "mark"})
_ASKED: Final = frozenset({"cancel", "kill"})


def reads_from(run: int, start: StartSpec) -> int:
    """The first stream sequence that belongs to a run; of one that rests on another, without that other's."""
    return min(run, start.since + 1) if start.since and start.base is None else run


def arranged(run: int, events: Sequence[Event], starts: Mapping[int, StartSpec]) -> list[Event]:
    """Put the events of a workflow into the history of a run.

    events: in stream order. starts: that of the run and of those it rests on.
    Raises NotFound when one of those is not there: without it the run would begin from nothing.
    """
    start = next((event for event in events if event.kind == "start" and event.seq == run), None)
    own = [event for event in events if event.seq > run]
    if start is None:
        return own
    spec = starts.get(run)
    if spec is None:
        return [start, *own]
    base = spec.base
    if base is None:
        return [start, *_but(spec.without, _left_over(run, spec.since, events)), *own]
    if base.run not in starts:
        raise NotFound(f"run {run} rests on the history of run {base.run}, which is not there")
    old = arranged(base.run, [event for event in events if event.seq < run], starts)[1:]
    taken = [_rebadged(event, base.run, run) for event in old if event.seq <= base.upto]
    later = [event for event in old if event.seq > base.upto]
    return [start, *taken, *_but(spec.without, _still_counts(later, base.run, signals=base.signals)), *own]


def up_to_end(run: int, events: Sequence[Event], end_seq: int) -> list[Event]:
    """The history of a run that has ended without what came later, which belongs to the run that followed.

    Attributes that its last step has set may be recorded after the end.
    """
    return [event for event in events if event.seq <= end_seq or (event.kind, event.run) == ("attrs", run)]


def taken_over(run: int, spec: StartSpec, events: Sequence[Event]) -> int:
    """How many events at the beginning of a history, its start included, are as they were in the run it rests on."""
    if spec.base is None:
        return 0
    upto = spec.base.upto
    return next((i for i, event in enumerate(events) if i and not (event.seq <= upto < run)), len(events))


def _but(without: Sequence[int], events: Iterable[Event]) -> Iterator[Event]:
    return (event for event in events if event.kind != "signal" or event.seq not in without)


def _rebadged(event: Event, old: int, new: int) -> Event:
    """An event of the old run as one of the new run."""
    if event.kind in _NAME_A_RUN and event.run == old:
        return event._replace(args=[str(new), *event.args[1:]])
    return event


def _still_counts(later: Sequence[Event], old: int, *, signals: bool) -> Iterator[Event]:
    """What came after the chosen event and is the new run's business."""
    going_on = False  # the old run has ended for the new one to follow: whatever comes now is meant for that
    for event in later:
        if event.kind == "end" and event.run == old:
            going_on = going_on or bool(decode_end(event.data).next_start)
        elif (event.kind == "signal" and (signals or going_on)) or (going_on and _asks(event)):
            yield event


def _left_over(run: int, since: int, events: Sequence[Event]) -> list[Event]:
    """What the run before a continued one had not seen."""
    if not since:
        return []
    before = [event for event in events if since < event.seq < run]
    # One that was reset and ended in what it had taken over leaves signals of the run it rested on, which are older
    # than itself. What was asked of that run was not asked of it.
    ended = {event.run for event in before if event.kind == "end"}
    asked_from = max((event.seq for event in before if event.seq in ended and _is_reset(event)), default=since)
    return [event for event in before if event.kind == "signal" or (event.seq > asked_from and _asks(event))]


def _asks(event: Event) -> bool:
    return event.kind in _ASKED and reset_of(event) is None


def _is_reset(event: Event) -> bool:
    if event.kind != "start":
        return False
    try:
        return start_spec_of(event).base is not None
    except Undecodable:
        return False
