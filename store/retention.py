"""What of a queue's stream may go: the runs that ended long enough ago, and what belongs to no run. Pure.

A sweep walks the messages of a partition from the oldest on, up to the first one that is younger than the retention
time, and asks of every workflow it meets: up to which sequence may all of its messages go (`verdict`)? Nearly always
two facts tell: its newest start, and that run's end. Where its runs overlap with what is kept, all of its starts and
ends are looked at (`removable_up_to`).

Invariants:
  * a run that is open, or that ended within the retention time, keeps everything that its replay reads: its own events,
    the messages that it took over from its predecessor (`since`), and the run that it was reset from (`base`);
  * nothing younger than the retention time goes;
  * a purge names a sequence: what comes later, such as a new run under the same id, is not touched.

The same facts give the same purges, so a sweep that died is simply done again, and two owners for a moment do no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from mesh import codec
from mesh.envelopes import may_open_later
from mesh.errors import Undecodable
from mesh.events import decode_end
from mesh.stored_messages import StoredMessage

NOTHING: Final = 0


class StartFact(NamedTuple):
    """A start that is stored. seq: also the number of its run. since, base: see `mesh.events.StartSpec`; 0 = none."""

    seq: int
    at_ns: int
    since: int = 0
    base: int = 0


class EndFact(NamedTuple):
    """An end that is stored, of the run that it names. goes_on: another run follows."""

    run: int
    seq: int
    at_ns: int
    goes_on: bool = False


class Visited(NamedTuple):
    """Which of a workflow's messages a step of the walk has met: the first and the last of them."""

    first: int
    last: int


class LookCloser(NamedTuple):
    """All starts and ends of the workflow are needed: what was met is older than its newest run, which is kept."""


def start_fact(message: StoredMessage) -> StartFact:
    """Read a start. One that nobody can read rests on no other run."""
    since, base = 0, 0
    if may_open_later(message.data):
        since = 1  # what it rests on is not known here
    elif message.data[:1] == codec.MARKER:
        try:
            wire = codec.decode(message.data)
        except Undecodable:
            wire = None
        if isinstance(wire, dict):
            since = wire["since"] if type(wire.get("since")) is int else 0
            based = wire.get("base")
            base = based[0] if isinstance(based, list) and based and type(based[0]) is int else 0
    return StartFact(message.seq, message.timestamp_ns, since, base)


def end_fact(message: StoredMessage) -> EndFact | None:
    """Read an end; None when it names no run."""
    run = message.subject.rsplit(".", 1)[1]
    if not run.isdecimal():
        return None
    return EndFact(int(run), message.seq, message.timestamp_ns, decode_end(message.data).may_go_on)


def verdict(visited: Visited, start: StartFact | None, end: EndFact | None, cutoff_ns: int) -> int | LookCloser:
    """Up to which sequence the messages of a workflow may go, 0 for none; or that more must be known.

    start: the newest one, None when it has none (any more). end: that of its run.
    """
    if start is None:
        # Outcomes that came late, messages to a workflow that never started: nobody will ever read them.
        return visited.last
    if end is not None and end.seq > start.seq and end.at_ns < cutoff_ns and not end.goes_on:
        return max(end.seq, visited.last)  # what came after its end is as old, and no run has begun since
    return LookCloser() if visited.first < start.seq else NOTHING


class _Run(NamedTuple):
    start: StartFact
    end: EndFact | None


def removable_up_to(
    starts: Iterable[StartFact], ends: Iterable[EndFact], may_go: Callable[[StartFact | None, EndFact], bool]
) -> int:
    """The same from all starts and ends of a workflow: up to where its messages may go when its oldest runs may.

    may_go: says so of a run that has ended; of an end that is that of no run, start is None.
    """
    runs, loose_ends = _runs(starts, ends)
    gone = []
    for run in runs:
        if run.end is None or not may_go(run.start, run.end) or (run is runs[-1] and run.end.goes_on):
            break
        gone.append(run)
    kept = runs[len(gone) :]
    up_to = gone[-1].end.seq if gone and gone[-1].end is not None else NOTHING
    if not kept:
        return max([up_to, *(end.seq for end in loose_ends if may_go(None, end))])
    if not gone:
        # What is left of runs that went before, such as an end that was written twice.
        up_to = kept[0].start.seq - 1
    by_number = {run.start.seq: run for run in runs}
    return max(NOTHING, min(up_to, *(_needed_from(run, by_number) - 1 for run in kept)))


def _runs(starts: Iterable[StartFact], ends: Iterable[EndFact]) -> tuple[list[_Run], list[EndFact]]:
    """The runs there were, by the rule of `mesh.history`, and the ends of none of them."""
    facts: list[StartFact | EndFact] = sorted([*starts, *ends], key=lambda fact: fact.seq)
    runs: list[_Run] = []
    loose: list[EndFact] = []
    for fact in facts:
        is_open = bool(runs) and runs[-1].end is None
        if isinstance(fact, StartFact):
            if not is_open:
                runs.append(_Run(fact, None))
        elif is_open and runs[-1].start.seq == fact.run:
            runs[-1] = _Run(runs[-1].start, fact)
        else:
            loose.append(fact)
    return runs, loose


def _needed_from(run: _Run, by_number: dict[int, _Run]) -> int:
    """The first sequence that the replay of a run reads."""
    first = run.start.seq
    seen: set[int] = set()
    while run.start.seq not in seen:
        seen.add(run.start.seq)
        first = min(first, run.start.seq)
        if run.start.since:
            first = min(first, run.start.since + 1)
        if not run.start.base:
            break
        first = min(first, run.start.base)
        if run.start.base not in by_number:
            break
        run = by_number[run.start.base]
    return first


def next_look_s(
    oldest_ns: int | None, now_ns: int, retention_s: float, *, shortest_s: float, longest_s: float
) -> float:
    """How long nothing can become due. oldest_ns: time of the oldest message that was not looked at yet."""
    due_s = retention_s if oldest_ns is None else (oldest_ns - now_ns) / 1e9 + retention_s
    return min(max(due_s, shortest_s), longest_s)


def visited_by_id(messages: Sequence[StoredMessage]) -> dict[str, Visited]:
    """Which workflows some messages are of, by id token, and the first and last message of each."""
    found: dict[str, Visited] = {}
    for message in messages:
        id_token = message.subject.split(".", 5)[4]
        first = found[id_token].first if id_token in found else message.seq
        found[id_token] = Visited(first, message.seq)
    return found
