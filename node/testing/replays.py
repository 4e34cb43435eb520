"""Replaying recorded histories against code from tests: the check before a change of workflow code is deployed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

from mesh.events import Event, decode_end
from mesh.history_files import RecordedHistory, load_histories
from node.checking import AppChecker
from node.registry import Registry
from node.testing.app import App
from node.testing.standing import standing
from node.workflows.checking import Mismatch, event_label


@dataclass(frozen=True, slots=True)
class Replayed:
    """Where a replayed run stands. status: running, or how it has ended. value: its result, or the Failure.

    waiting: what it still waits for, as texts. notes: what is different and does no harm. events: how many there are.
    """

    id: str
    run: int
    status: str
    value: Any
    events: int
    waiting: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class ReplayMismatch(AssertionError):
    """Raised when code does not fit a history it is to go on with: such a run would be suspended, or end otherwise.

    event, number: at which event, from 1. line, stack: where the code asks for something else, `file.lua:12` and the
    frames above. expected, got: what the history has there, and what the code does instead. others: the mismatches of
    further histories that were replayed with it.
    """

    def __init__(self, history: RecordedHistory, mismatch: Mismatch, others: Sequence[ReplayMismatch] = ()) -> None:
        self.history = history
        self.mismatch = mismatch
        self.event: Event = mismatch.event
        self.number = mismatch.number
        self.line = mismatch.line
        self.stack = mismatch.stack
        self.expected = mismatch.expected
        self.got = mismatch.got
        self.others = tuple(others)
        text = (
            f"workflow {history.header.id!r} (run {history.run}), event {self.number} ({event_label(self.event)})"
            f"{f', at {self.line}' if self.line else ''}:\n"
            f"  expected: {self.expected}\n"
            f"  got:      {self.got}"
        )
        super().__init__("\n".join([text, *(str(other) for other in self.others)]))


@overload
def replay(history: RecordedHistory, app: str | Path | Registry, *, strict: bool = False) -> Replayed: ...


@overload
def replay(history: str | Path, app: str | Path | Registry, *, strict: bool = False) -> list[Replayed]: ...


def replay(
    history: RecordedHistory | str | Path, app: str | Path | Registry, *, strict: bool = False
) -> Replayed | list[Replayed]:
    """Replay a recorded history, or all in a file of `mesh export`, with the code of an app.

    Returns where each run stands then; nothing is called, sent or written. strict: a run that has ended must come to
    the very result that was recorded. Raises ReplayMismatch, which tells of all histories that do not fit,
    BadHistoryFile, RegistryError.
    """
    checker = AppChecker(App.load(app).registry)
    if isinstance(history, RecordedHistory):
        return _replayed(history, checker, strict)
    found: list[Replayed] = []
    problems: list[ReplayMismatch] = []
    for each in load_histories(history):
        try:
            found.append(_replayed(each, checker, strict))
        except ReplayMismatch as problem:
            problems.append(problem)
    if problems:
        raise ReplayMismatch(problems[0].history, problems[0].mismatch, problems[1:])
    return found


def _replayed(history: RecordedHistory, checker: AppChecker, strict: bool) -> Replayed:
    checked = checker.replay(history, same_result=strict)
    run = checked.run
    try:
        if checked.mismatch is not None:
            raise ReplayMismatch(history, checked.mismatch)
        ended = [e for e in history.events if e.kind == "end" and e.run == history.run]
        record = decode_end(ended[0].data) if ended else run.finished.record if run.finished is not None else None
        status, value, waiting = "running", None, []
        if record is not None:
            status, value = record.status, record.value()
        else:
            waiting = standing(run, max(event.at_ns for event in history.events))
        return Replayed(history.header.id, run.run, status, value, checked.events, waiting, list(checked.notes))
    finally:
        run.close()
