"""Replaying recorded histories against code: the check before a change of workflow code is deployed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

from mesh.events import Event, decode_end
from mesh.history_files import RecordedHistory, load_histories
from mesh.hosts import HostRecord, UnknownHost
from node.registry import Registry
from node.testing.app import App
from node.testing.standing import standing
from node.workflows.checking import Mismatch, check_history, event_label, known_ops


@dataclass(frozen=True, slots=True)
class Replayed:
    """Where a replayed run stands. status: running, or how it has ended. value: its result, or the Failure.

    waiting: what it still waits for, as texts. events: how many were replayed.
    """

    id: str
    run: int
    status: str
    value: Any
    events: int
    waiting: list[str] = field(default_factory=list)


class ReplayMismatch(AssertionError):
    """Raised when code does not fit a history it is to go on with: such a run would be suspended, or end otherwise.

    event, number: at which event, from 1. line: where the code stands. expected, got: what the history has there, and
    what the code does instead. others: the mismatches of further histories that were replayed with it.
    """

    def __init__(self, history: RecordedHistory, mismatch: Mismatch, others: Sequence[ReplayMismatch] = ()) -> None:
        self.history = history
        self.event: Event = mismatch.event
        self.number = mismatch.number
        self.line = mismatch.line
        self.expected = mismatch.expected
        self.got = mismatch.got
        self.reason = mismatch.reason
        self.others = tuple(others)
        text = (
            f"workflow {history.header.id!r} (run {history.run}), event {self.number} ({event_label(self.event)})"
            f"{f', at {self.line}' if self.line else ''}:\n"
            f"  expected: {self.expected}\n"
            f"  got:      {self.got}"
        )
        super().__init__("\n".join([text, *(str(other) for other in self.others)]))


@overload
def replay(history: RecordedHistory, app: str | Path | Registry) -> Replayed: ...


@overload
def replay(history: str | Path, app: str | Path | Registry) -> list[Replayed]: ...


def replay(history: RecordedHistory | str | Path, app: str | Path | Registry) -> Replayed | list[Replayed]:
    """Replay a recorded history, or all in a file of `mesh export`, with the code of an app.

    Returns where each run stands then; nothing is called, sent or written. Raises ReplayMismatch, which tells of all
    histories that do not fit; BadHistoryFile, RegistryError, UnknownHost.
    """
    target = App.load(app)
    if isinstance(history, RecordedHistory):
        return _replayed(history, target)
    found: list[Replayed] = []
    problems: list[ReplayMismatch] = []
    for each in load_histories(history):
        try:
            found.append(_replayed(each, target))
        except ReplayMismatch as problem:
            problems.append(problem)
    if problems:
        first = problems[0]
        mismatch = Mismatch(first.number, first.event, first.line, first.expected, first.got, first.reason)
        raise ReplayMismatch(first.history, mismatch, problems[1:])
    return found


def _replayed(history: RecordedHistory, app: App) -> Replayed:
    checked = check_history(
        app.opening(_host(history, app)), history.key, history.run, history.events, known=known_ops(app.registry)
    )
    run = checked.run
    try:
        if checked.mismatch is not None:
            raise ReplayMismatch(history, checked.mismatch)
        now_ns = max(event.at_ns for event in history.events)
        ended = [e for e in history.events if e.kind == "end" and e.run == history.run]
        record = decode_end(ended[0].data) if ended else run.finished.record if run.finished is not None else None
        if record is None:
            return Replayed(history.header.id, run.run, "running", None, checked.events, standing(run, now_ns))
        return Replayed(history.header.id, run.run, record.status, record.value(), checked.events)
    finally:
        run.close()


def _host(history: RecordedHistory, app: App) -> HostRecord:
    """The worker of a recorded run: the one it was started on, as the app has it."""
    header = history.header
    for name in (header.host, header.queue):
        try:
            return app.host(name)
        except UnknownHost:
            continue
    return app.host_for(header.type, None)
