"""Checking an app's code against recorded histories, before it is deployed: on any machine, without a mesh.

    checker = AppChecker(Path("app"))
    for recorded in load_histories("histories.jsonl.gz"):
        verdict = checker.check(recorded)
        assert verdict.fits, verdict

Nothing is called, nothing is written. What a check looks at is in `node.workflows.checking`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mesh.envelopes import may_open_later, why_closed
from mesh.errors import MeshError, Undecodable
from mesh.events import Event
from mesh.history_files import HistoryHeader, RecordedHistory
from mesh.hosts import HostRecord
from node.machine.code import Code
from node.machine.vm import LuaVM
from node.offers import Offers, host_records
from node.registry import Registry, load_registry
from node.workflows.checking import Checked, Mismatch, check_history, known_ops
from node.workflows.opening import Opening
from node.workflows.ops import fingerprint
from node.workflows.replaying import NoStart

VM_HISTORIES_MAX: Final = 1000  # then a new one, so that a heap cannot fragment for ever


class BadHistory(MeshError):
    """Raised when what is said to be a history is none."""

    code = "bad-history"

    def __init__(self, header: HistoryHeader, reason: str) -> None:
        super().__init__(f"workflow {header.id!r} cannot be replayed: {reason}")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the check of one history came to. notes: what is different and does no harm.

    unread: why it could not be replayed to its end, such as `encrypted with key 2026-11`; then nothing is known.
    """

    header: HistoryHeader
    mismatch: Mismatch | None
    notes: tuple[str, ...] = ()
    unread: str = ""

    @property
    def fits(self) -> bool:
        """Whether the code can go on from this history."""
        return self.mismatch is None and not self.unread

    def __str__(self) -> str:
        """The verdict as one line."""
        what = f"workflow {self.header.id!r} run {self.header.run} ({self.header.type})"
        if self.unread:
            return f"{what} was not replayed: it is {self.unread}"
        if self.mismatch is None:
            return f"{what} fits" + "".join(f"; {note}" for note in self.notes)
        return f"{what} does not fit, event {self.mismatch.number}: {self.mismatch.reason}"

    def record(self) -> dict[str, Any]:
        """The verdict for machines."""
        header, mismatch = self.header, self.mismatch
        return {
            "id": header.id, "queue": header.queue, "run": header.run, "type": header.type, "status": header.status,
            "events": header.events, "ok": self.fits,
            "event": mismatch.number if mismatch is not None else None,
            "seq": mismatch.event.seq if mismatch is not None else None,
            "line": (mismatch.line or None) if mismatch is not None else None,
            "expected": mismatch.expected if mismatch is not None else None,
            "got": mismatch.got if mismatch is not None else None,
            "message": mismatch.reason if mismatch is not None else None,
            "stack": mismatch.stack.splitlines() if mismatch is not None else [],
            "notes": list(self.notes),
            "unread": self.unread or None,
        }  # fmt: skip


class AppChecker:
    """Checks histories against the code of an app.

    environ: for placeholders in the registry, by default that of this process.
    functions: further functions that a history may have called, so that they can be named.
    """

    def __init__(
        self, app: Path | Registry, *, environ: Mapping[str, str] | None = None, functions: tuple[str, ...] = ()
    ) -> None:
        if isinstance(app, Path):
            app = load_registry(app, environ=os.environ if environ is None else environ)
        self.registry = app
        self._code = Code(app)
        self._defaults = {str(entry_id): dict(entry.options) for entry_id, entry in app.functions().items()}
        self._workers = {record.worker: record for record in host_records(app, Offers())}
        self._names = {fingerprint("call", name): f"call {name}" for name in functions} | known_ops(app)
        self._openings: dict[str, Opening] = {}
        self._vm, self._checked = self._new_vm(), 0

    def check(self, recorded: RecordedHistory) -> Verdict:
        """Replay one history. Takes as long as the code takes; nothing else happens meanwhile."""
        header = recorded.header
        closed_at, reason = _first_closed(recorded.events)
        try:
            checked = self.replay(recorded)
        except Undecodable as error:
            if reason:
                return Verdict(header, None, unread=reason)
            return Verdict(header, None, (f"there is nothing to replay: {error}",))
        checked.run.close()
        if reason and (checked.mismatch is None or checked.mismatch.number >= closed_at):
            return Verdict(header, None, unread=reason)
        return Verdict(header, checked.mismatch, checked.notes)

    def replay(self, recorded: RecordedHistory, *, same_result: bool = False) -> Checked:
        """Replay one history and return where its run stands; the run is to be closed. Raises Undecodable, BadHistory.

        same_result: another result than the recorded one is a mismatch, too.
        """
        if self._checked >= VM_HISTORIES_MAX:
            self._vm, self._checked = self._new_vm(), 0
        self._checked += 1
        header = recorded.header
        try:
            checked = check_history(
                self._opening(header), recorded.key, recorded.run, recorded.events, known=self._names, vm=self._vm,
                same_result=same_result,
            )  # fmt: skip
        except NoStart as error:
            raise BadHistory(header, str(error)) from error
        if checked.vm_lost:
            self._vm, self._checked = self._new_vm(), 0
        return checked

    def _opening(self, header: HistoryHeader) -> Opening:
        worker = self._worker(header)
        if worker.worker not in self._openings:
            self._openings[worker.worker] = Opening(self._code, worker, lambda name: self._defaults.get(name, {}))
        return self._openings[worker.worker]

    def _worker(self, header: HistoryHeader) -> HostRecord:
        """Who runs it: the worker that it was started on, else one of its queue, else any."""
        named = self._workers.get(header.host)
        if named is not None:
            return named
        of_queue = [record for record in self._workers.values() if record.queue == header.queue]
        if of_queue:
            return of_queue[0]
        return HostRecord(header.host or "app:worker", "", header.queue)

    @staticmethod
    def _new_vm() -> LuaVM:
        vm = LuaVM()
        vm.remember_places()
        return vm


def _first_closed(events: Sequence[Event]) -> tuple[int, str]:
    """The number of the first event that others can read and we cannot, and why not; (0, "") when there is none.

    A decision (`mark`) counts from the beginning: the code is told of it wherever it asks.
    """
    closed = [
        (0 if event.kind == "mark" else number, why_closed(event.data) or "")
        for number, event in enumerate(events, 1)
        if event.kind != "attrs" and may_open_later(event.data)
    ]
    return min(closed, default=(0, ""))
