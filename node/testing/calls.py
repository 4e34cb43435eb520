"""The calls of workflows in virtual time: begun, answered, timed out, lost. Stands for `node.workflows.calls`.

Invariant: of one op at most one attempt is under way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from mesh import codec
from mesh.duration import SECOND
from mesh.events import Event
from mesh.failure import Failure
from mesh.subjects import WorkflowKey
from node.testing.agenda import Agenda, Appointment
from node.testing.functions import CANCELED, Functions, Running
from node.workflows.call_failures import host_lost, timed_out
from node.workflows.call_options import CallOptions
from node.workflows.ops import OpState

LOST_AFTER_NS: Final = SECOND  # a mesh asks after a call that has no outcome in a second


class Publish(Protocol):
    """Stores an event."""

    def __call__(self, key: WorkflowKey, *kind: str, data: bytes = b"") -> Event:
        """Store it now."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """Which run calls. is_open: whether an attempt of it is still waited for."""

    key: WorkflowKey
    run: int
    options: Callable[[int], CallOptions]
    is_open: Callable[[OpState], bool]


@dataclass(slots=True)
class _UnderWay:
    """An attempt: what may still happen to it, and the call itself once it has begun."""

    place: Place
    op: OpState
    attempt: int
    appointments: list[Appointment] = field(default_factory=list)
    running: Running | None = None

    def call_off(self) -> None:
        """Let nothing more happen to it."""
        for appointment in self.appointments:
            appointment.call_off()


class Calls:
    """The calls of all workflows."""

    def __init__(self, agenda: Agenda, functions: Functions, publish: Publish) -> None:
        self._agenda = agenda
        self._functions = functions
        self._publish = publish
        self._under_way: dict[tuple[WorkflowKey, int], _UnderWay] = {}

    def has(self, key: WorkflowKey, op: OpState) -> bool:
        """Whether this attempt of a call is under way."""
        call = self._under_way.get((key, op.n))
        return call is not None and (call.op.fp, call.attempt) == (op.fp, op.attempt)

    def dispatch(self, place: Place, op: OpState) -> None:
        """Make the present attempt of a call, after what is being handled."""
        call = self._under_way[place.key, op.n] = _UnderWay(place, op, op.attempt)
        self._later(call, self._agenda.now_ns, self._begin)

    def stop(self, key: WorkflowKey, n: int) -> None:
        """Ask a call to stop; its outcome is waited for all the same."""
        call = self._under_way.get((key, n))
        if call is None:
            return
        if call.running is None:
            self._answer(call, CANCELED)
        else:
            call.running.stop()

    def abandon(self, key: WorkflowKey, n: int) -> None:
        """Nobody waits for a call any more: it is asked to stop. What it answers is stored, and ignored."""
        call = self._under_way.pop((key, n), None)
        if call is not None:
            call.call_off()
            if call.running is not None:
                self._agenda.at(self._agenda.now_ns, call.running.stop)

    def abandon_all(self, key: WorkflowKey) -> None:
        """Nobody waits for any call of a workflow any more."""
        for other, n in [place for place in self._under_way if place[0] == key]:
            self.abandon(other, n)

    def _later(self, call: _UnderWay, due_ns: int, action: Callable[[_UnderWay], None]) -> None:
        call.appointments.append(self._agenda.at(due_ns, lambda: action(call)))

    def _begin(self, call: _UnderWay) -> None:
        place, op = call.place, call.op
        if not place.is_open(op):
            self._forget(call)
            return
        options = place.options(op.n)
        if options.policy.at_most_once:
            self._publish(place.key, "claim", str(place.run), str(op.n), str(op.attempt))
        if options.schedule_to_close_ns:
            due_ns = op.issued_ns + options.schedule_to_close_ns
            self._later(call, due_ns, lambda call: self._time_out(call, "schedule_to_close"))
        if options.start_to_close_ns:
            due_ns = self._agenda.now_ns + options.start_to_close_ns
            self._later(call, due_ns, lambda call: self._time_out(call, "start_to_close"))
        running = self._functions.begin(
            op.target, op.payload, lambda outcome: self._answer(call, outcome), lambda: self._lost(call),
            attempt=op.attempt, caller=place.key.id,
        )  # fmt: skip
        call.running = running

    def _answer(self, call: _UnderWay, outcome: bytes) -> None:
        self._forget(call)
        place, op = call.place, call.op
        self._publish(place.key, "ret", str(place.run), str(op.n), str(call.attempt), op.fp, op.seen, data=outcome)

    def _fail(self, call: _UnderWay, failure: Failure) -> None:
        self._answer(call, codec.encode_failure(failure))

    def _time_out(self, call: _UnderWay, which: str) -> None:
        if call.running is not None:
            self._agenda.at(self._agenda.now_ns, call.running.stop)
        self._fail(call, timed_out(call.op.target, call.attempt, which))

    def _lost(self, call: _UnderWay) -> None:
        def found_out(call: _UnderWay) -> None:
            # That its host had begun is in the history, if that counts; here it is known.
            call.op.claimed = True
            failure = host_lost(call.op, call.attempt, call.place.options(call.op.n))
            if failure is not None:
                self._fail(call, failure)

        self._later(call, self._agenda.now_ns + LOST_AFTER_NS, found_out)

    def _forget(self, call: _UnderWay) -> None:
        call.call_off()
        if self._under_way.get((call.place.key, call.op.n)) is call:
            del self._under_way[call.place.key, call.op.n]
