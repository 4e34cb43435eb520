"""Planted faults: small patches of the real engine that a chaos run has to find.

Each is a mistake that somebody could make, and the rule (`tests.chaos.checker.RULES`) that must find it. They show that
the suite is able to fail; the checker and the load know nothing of them.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from mesh import codec
from mesh.events import EndRecord, Event
from mesh.outbox import Ack, Outbox
from mesh.subjects import WorkflowKey
from node.functions.answers import Answers
from node.functions.host import FunctionHost
from node.functions.job import Job
from node.workflows import chain, loading, opening, run, timers
from node.workflows.calls import Calls
from node.workflows.ending import Ending
from node.workflows.following import Following
from node.workflows.instances import Instance
from node.workflows.messages import Messages
from node.workflows.ops import OpState
from node.workflows.others import Others
from node.workflows.replaying import Step, replay_steps
from node.workflows.run import Run
from node.workflows.timers import Timers

LATE_S: Final = 0.4


@dataclass(frozen=True, slots=True)
class Fault:
    """A mistake. rules: the rules of which at least one must find it."""

    plant: Callable[[], None]
    rules: frozenset[str]


def _patch(owner: Any, name: str, value: Any) -> None:
    setattr(owner, name, value)


def _ack_before_write() -> None:
    """The outbox says that a message is stored before it has been sent."""
    write = Outbox.write

    def early(
        self: Outbox, subject: str, payload: bytes, headers: Any = None, on_ack: Callable[[Ack], None] | None = None
    ) -> None:
        loop = asyncio.get_running_loop()
        if on_ack is not None:
            loop.call_soon(on_ack, Ack(0))
        loop.call_later(LATE_S, write, self, subject, payload, headers)

    _patch(Outbox, "write", early)


def _outcome_dropped() -> None:
    """A host takes it that what it has sent has arrived: every fifth outcome has not."""
    give, numbers = Answers.give, itertools.count(1)

    def forgetful(self: Answers, job: Job, outcome: bytes) -> None:
        if next(numbers) % 5 or not job.reply.startswith("mesh.wf."):
            give(self, job, outcome)
        elif not job.ended:
            job.ended = True
            self._leave(job)
            self._forget(job)

    _patch(Answers, "give", forgetful)


def _last_outcome_wins() -> None:
    """Whoever reads a history goes by the last outcome of an op instead of the first."""

    def backwards(run_: Run, events: Sequence[Event], *, record_ops: bool = False) -> Iterator[Step]:
        last = {
            (event.run, event.args[1]): event.data
            for event in events
            if event.kind == "ret" and not event.data.startswith(codec.FAILURE_PREFIX)
        }
        turned = [e._replace(data=last.get((e.run, e.args[1]), e.data)) if e.kind == "ret" else e for e in events]
        return replay_steps(run_, turned, record_ops=record_ops)

    _patch(loading, "replay_steps", backwards)


def _no_question() -> None:
    """After a takeover calls are made again without asking whether somebody has them."""
    dispatch = Calls.dispatch

    def hasty(self: Calls, key: WorkflowKey, run_: Run, op: OpState, *, recovering: bool) -> None:
        dispatch(self, key, run_, op, recovering=False)

    _patch(Calls, "dispatch", hasty)


def _no_claim() -> None:
    """Hosts begin what may run only once like everything else."""
    begin = FunctionHost._begin

    def careless(self: FunctionHost, job: Job) -> None:
        job.once = False
        begin(self, job)

    _patch(FunctionHost, "_begin", careless)


def _recovered_is_done() -> None:
    """After a takeover, what was under way counts as done: its effects, compensations too, are skipped."""
    dispatch = Calls.dispatch

    def trusting(self: Calls, key: WorkflowKey, run_: Run, op: OpState, *, recovering: bool) -> None:
        if not recovering:
            dispatch(self, key, run_, op, recovering=False)
            return
        self._record(run_.ret_subject(op), codec.encode_success({"token": "", "value": 0}), b"")

    _patch(Calls, "dispatch", trusting)


def _late_events_dropped() -> None:
    """Events that come while a history is read are taken to be in it."""
    go_live = loading.Loading._go_live

    def deaf(self: loading.Loading, instance: Instance, run_: Run) -> None:
        late = instance.loading or []
        instance.loading = [event for event in late if event.kind != "signal"]
        go_live(self, instance, run_)

    _patch(loading.Loading, "_go_live", deaf)


def _busy_forgotten() -> None:
    """A checkpoint says that nothing needs an owner."""
    _patch(Following, "_busy", lambda _self: {})


def _message_twice() -> None:
    """A message that comes again is taken again."""
    _patch(Messages, "_is_news", lambda _self, _once: True)


def _heard_forgotten() -> None:
    """A run that follows does not know which messages were taken before it."""
    _patch(Messages, "heard", lambda _self: ())


def _unread_forgotten() -> None:
    """A run that goes on as a new one leaves its unread messages behind."""
    end_record = chain.end_record

    def forgetful(*arguments: Any) -> EndRecord:
        record = end_record(*arguments)
        if record.status != "continued":
            return record
        spec = run_start(record)
        return replace(record, next_start=replace(spec, messages=()).encode())

    _patch(run, "end_record", forgetful)


def run_start(record: EndRecord) -> Any:
    """The start that an end asks for."""
    from mesh.events import decode_start

    return decode_start(record.next_start, {})


def _timers_forgotten() -> None:
    """After a takeover nobody sets the short timers again that the lost owner had in its memory."""

    async def forgetful(_self: Timers, instance: Instance, _run: Run, _name: str, _due_ns: int) -> None:
        instance.unacked -= 1

    _patch(Timers, "_restore", forgetful)


def _timers_left() -> None:
    """Timers that nobody waits for stay where they are."""

    async def lazy(_self: Timers, _instance: Instance, _run: Run, _name: str) -> None:
        return None

    _patch(Timers, "take_back", lazy)


def _early_ticks() -> None:
    """Short timers fire at once; the workflow's own clock does not show it."""
    set_ = Timers.set

    def early(self: Timers, instance: Instance, run_: Run, name: str, due_ns: int, *, recovering: bool) -> None:
        if recovering or due_ns - run_.now_ns >= timers.SHORT_NS:
            set_(self, instance, run_, name, due_ns, recovering=recovering)
            return
        instance.unacked += 1
        instance.short_timers[name] = self._loop.call_later(0, self._tick, instance, run_, name)

    _patch(Timers, "set", early)


def _true_randomness() -> None:
    """A run's random values are really random."""

    class Random:
        blake2b = staticmethod(lambda *_data, digest_size: hashlib.blake2b(os.urandom(32), digest_size=digest_size))

    _patch(opening, "hashlib", Random)


def _parent_not_told() -> None:
    """A child ends and tells nobody."""

    async def silent(_self: Ending, _key: WorkflowKey, _run: Run, record: EndRecord) -> EndRecord:
        return record

    _patch(Ending, "_tell_parent", silent)


def _end_before_telling() -> None:
    """A child writes its end before it tells its parent: whoever dies in between has told nobody."""
    tell, write = Ending._tell_parent, Ending._write_end

    async def later(_self: Ending, _key: WorkflowKey, _run: Run, record: EndRecord) -> EndRecord:
        return record

    async def first(self: Ending, key: WorkflowKey, run_: Run, record: EndRecord) -> None:
        await write(self, key, run_, record)
        await tell(self, key, run_, record)

    _patch(Ending, "_tell_parent", later)
    _patch(Ending, "_write_end", first)


def _child_not_stored() -> None:
    """Of every third child it is said that it has started, and its start is not stored."""
    spawn, numbers = Others._spawn, itertools.count(1)

    async def hopeful(self: Others, host: Any, key: WorkflowKey, run_: int, op: OpState, trace: Any) -> bytes:
        if next(numbers) % 3:
            return await spawn(self, host, key, run_, op, trace)
        child = await self.child_key(host, key, run_, op)
        if child is None:
            return await spawn(self, host, key, run_, op, trace)
        return codec.encode_success({"pid": host.pid(child.id), "queue": child.queue, "id": child.id})

    _patch(Others, "_spawn", hopeful)


FAULTS: Final[dict[str, Fault]] = {
    "ack-before-write": Fault(_ack_before_write, frozenset({"unclaimed", "more-than-once", "never-ended"})),
    "outcome-dropped": Fault(_outcome_dropped, frozenset({"outcome-lost"})),
    "last-outcome-wins": Fault(_last_outcome_wins, frozenset({"believed-otherwise"})),
    "no-question": Fault(_no_question, frozenset({"attempt-twice"})),
    "no-claim": Fault(_no_claim, frozenset({"unclaimed"})),
    "recovered-is-done": Fault(_recovered_is_done, frozenset({"compensation", "wrong-result"})),
    "late-events-dropped": Fault(_late_events_dropped, frozenset({"signal-lost"})),
    "busy-forgotten": Fault(_busy_forgotten, frozenset({"never-ended"})),
    "message-twice": Fault(_message_twice, frozenset({"signal-twice"})),
    "heard-forgotten": Fault(_heard_forgotten, frozenset({"signal-twice"})),
    "unread-forgotten": Fault(_unread_forgotten, frozenset({"signal-lost"})),
    "timers-forgotten": Fault(_timers_forgotten, frozenset({"never-ended"})),
    "timers-left": Fault(_timers_left, frozenset({"left-schedules"})),
    "early-ticks": Fault(_early_ticks, frozenset({"early-timer"})),
    "true-randomness": Fault(_true_randomness, frozenset({"other-key"})),
    "parent-not-told": Fault(_parent_not_told, frozenset({"exit-missing"})),
    "end-before-telling": Fault(_end_before_telling, frozenset({"exit-missing"})),
    "child-not-stored": Fault(_child_not_stored, frozenset({"child-missing"})),
}


def unknown_fault(names: str) -> str:
    """What is wrong with names of faults that have `+` between them; "" when each is one, or "none"."""
    wrong = [name for name in names.split("+") if name != "none" and name not in FAULTS]
    return f"no fault is called {wrong[0]!r}; there are {', '.join(FAULTS)}" if wrong else ""


def plant(names: str) -> None:
    """Plant the faults whose names are given, with `+` between them; "none" is none. Raises SystemExit."""
    if wrong := unknown_fault(names):
        raise SystemExit(wrong)
    for name in names.split("+"):
        if name != "none":
            FAULTS[name].plant()
