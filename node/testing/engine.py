"""The engine of a simulation: events in, runs fed, effects carried out, in one thread and in virtual time.

It stands for `node.workflows.engine` with all it is made of, and for the streams. What it decides nothing about is the
run's own (`node.workflows.run`) and the rules that are shared with a mesh: opening, replaying, ends, starts, attempts.

Invariants:
  * events are handled in the order in which they were stored, each once, and none while another one is handled;
  * what follows from a step is carried out after it, in its order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from mesh import codec
from mesh.errors import MeshError, Undecodable
from mesh.events import HEADER_FROM, EndRecord, Event, StartSpec, decode_end, decode_start
from mesh.failure import Failure, Kind
from mesh.history_files import RUNNING, RecordedHistory, header_of
from mesh.hosts import HostRecord
from mesh.lineage import taken_over
from mesh.resetting import Child, ChildrenRun, children_at, chosen_event, reset_start
from mesh.subjects import WorkflowKey, token
from node.machine.code import CodeMissing
from node.machine.vm import LuaVM, MachineFailed, OutOfMemory
from node.testing.agenda import Agenda, Appointment
from node.testing.app import App
from node.testing.calls import Calls, Place
from node.testing.errors import NeverEnds, ReplayDiffers, SimulationError
from node.testing.functions import Functions
from node.testing.lua_functions import LuaCall
from node.testing.others import Others
from node.testing.standing import position, standing
from node.testing.stream import Stream
from node.workflows.attempts import retry_tick
from node.workflows.checking import event_label
from node.workflows.ops import (
    Abandon,
    ChildAtEnd,
    Dispatch,
    Effect,
    Finish,
    Log,
    OpState,
    Perform,
    RetryLater,
    SetTimer,
    Stop,
    Suspend,
    WriteAttrs,
    WriteMark,
)
from node.workflows.replaying import Step, recorded_marks, replay_steps
from node.workflows.run import Run, told_to_parent

STEPS_MAX: Final = 100_000  # of one wish of a test; whatever takes more goes round in circles
# So often, and for so long, is a call made again when nothing else is going to happen.
ATTEMPTS_MAX: Final = 1_000
IN_VAIN_S: Final = 86_400.0

Say = Callable[[str, str, bytes, bytes | None], None]
# Told of an event that a run has taken, what follows from it, and the ops that came up; nothing is carried out yet.
Watch = Callable[[Run, Event, Sequence[Effect], Sequence[OpState]], None]


@dataclass(slots=True)
class RunRecord:
    """One run of a workflow. end: how it ended, None while it is open. attrs, memo: at its end."""

    id: int
    spec: StartSpec
    began_ns: int
    end: EndRecord | None = None
    ended_ns: int = 0
    attrs: Mapping[str, Any] = field(default_factory=dict)
    memo: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Instance:
    """A workflow: its runs so far, and the open one with what it waits for.

    starting: a start is stored and not handled yet. ticks: timers by name. pauses: calls between two attempts, by op.
    alone: its runs have a VM each, as one of them has filled a shared one. vm: that which the open run was replayed in.
    """

    key: WorkflowKey
    host: HostRecord
    runs: list[RunRecord] = field(default_factory=list)
    run: Run | None = None
    starting: bool = False
    ticks: dict[str, Appointment] = field(default_factory=dict)
    pauses: dict[int, Appointment] = field(default_factory=dict)
    asked: deque[OpState] = field(default_factory=deque)
    alone: bool = False
    vm: LuaVM | None = None

    @property
    def is_running(self) -> bool:
        """Whether a run is open, or about to be."""
        return self.starting or bool(self.runs and (self.runs[-1].end is None or self.runs[-1].end.next_start))


class Engine:
    """Runs the workflows of an app. recheck: replay a run after each of its events and compare.

    log: takes what workflows log. entropy: gives the randomness of a run. live: the call of a Lua function, by its PID.
    watch: sees every step of every run, such as to compare it with what another process makes of the same events.
    """

    def __init__(
        self,
        app: App,
        agenda: Agenda,
        functions: Functions,
        *,
        log: Say,
        entropy: Callable[[], bytes],
        live: Callable[[str], LuaCall | None],
        recheck: bool,
        watch: Watch | None = None,
    ) -> None:
        self.app = app
        self.entropy = entropy
        self.agenda = agenda
        self.stream = Stream()
        self.instances: dict[WorkflowKey, Instance] = {}
        self.others = Others(self, live)
        self._watchers: dict[WorkflowKey, list[Callable[[bytes], None]]] = {}
        self._calls = Calls(agenda, functions, self.publish)
        self._inbox: deque[tuple[WorkflowKey, Event]] = deque()
        self._log = log
        self._recheck = recheck
        self._watch = watch
        self._vm: LuaVM | None = None
        self._attempts = 0  # of the call that was made again most often

    # -- what happens ------------------------------------------------------------------------------------------

    def publish(
        self, key: WorkflowKey, *kind: str, data: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Event:
        """Store an event now; it is handled after what is being handled."""
        event = self.stream.append(key, kind, self.agenda.now_ns, data, headers)
        if key not in self.instances:
            self.instances[key] = Instance(key, self.app.host_of(key))
        if event.kind == "start":
            self.instances[key].starting = True
        self._inbox.append((key, event))
        return event

    def run_until(self, until_ns: int | None, stop: Callable[[], bool] | None = None) -> bool:
        """Let happen what is due by then (None: whenever it is), or until `stop` says so; whether that said so."""
        for _ in range(STEPS_MAX):
            while self._inbox:
                self._handle(*self._inbox.popleft())
            if stop is not None and stop():
                return True
            due_ns = self.agenda.next_due_ns()
            if due_ns is None or (until_ns is not None and due_ns > until_ns):
                return False
            if until_ns is None and self._attempts >= ATTEMPTS_MAX and self._tries_in_vain():
                raise NeverEnds(
                    f"nothing happens any more but a call that fails again and again, by {self.agenda.elapsed_s:g} s:\n"
                    f"{self._all_waiting()}\n"
                    "Calls are tried for ever by default. They end by an error that says `retryable = false`, or by a "
                    "`retry_policy` with `maximum_attempts`; to test that they go on, `advance` the clock"
                )
            self.agenda.take()()
        raise NeverEnds(
            f"{STEPS_MAX} things have happened by {self.agenda.elapsed_s:g} s, and it goes on and on:\n"
            f"{self._all_waiting()}"
        )

    def _all_waiting(self) -> str:
        return "\n".join(text for instance in self.instances.values() for text in self.waiting(instance))[:2000]

    def _tries_in_vain(self) -> bool:
        """Whether all that is going to happen are further attempts of calls that have failed for long."""
        paused = [
            (op.attempt, op.n in instance.pauses or retry_tick(op) in instance.ticks)
            for instance in self.instances.values()
            if instance.run is not None
            for op in instance.run.open.values()
            if op.kind == "call"
        ]
        attempts = [attempt for attempt, waits in paused if waits]
        return (
            len(attempts) == len(self.agenda)
            and min(attempts, default=0) >= ATTEMPTS_MAX
            and self.agenda.elapsed_s >= IN_VAIN_S
        )

    def when_ended(self, key: WorkflowKey, told: Callable[[bytes], None]) -> None:
        """Have somebody told the outcome of a workflow that runs."""
        self._watchers.setdefault(key, []).append(told)

    def _handle(self, key: WorkflowKey, event: Event) -> None:
        instance = self.instances[key]
        if instance.run is None:
            if event.kind == "start":
                self._open(instance, event)
            return
        run = instance.run
        effects = self._fed(instance, run, event)
        if self._watch is not None and instance.run is run:
            asked = run.ops.asked or []
            self._watch(run, event, effects, tuple(asked))
            asked.clear()
        if run.closed:
            record = instance.runs[-1]
            record.end, record.ended_ns = decode_end(event.data), event.at_ns
            record.attrs, record.memo = run.attributes.search, run.attributes.memo
            instance.run = instance.vm = None
            if not record.end.next_start:
                for told in self._watchers.pop(key, ()):
                    told(record.end.outcome)
            return
        self._carry_out(instance, event, effects)

    def _open(self, instance: Instance, event: Event) -> None:
        key = instance.key
        instance.starting = False
        try:
            spec = decode_start(event.data, event.headers)
        except Undecodable as error:
            text = f"the start of workflow {key.id!r} cannot be read: {error}"
            outcome = codec.encode_failure(Failure(text, Kind.INVALID, False))
            self.publish(key, "end", str(event.seq), data=EndRecord("failed", outcome).encode())
            return
        instance.runs.append(RunRecord(event.seq, spec, event.at_ns))
        try:
            run, steps = self._replayed(instance, event.seq, self._shared_vm)
        except OutOfMemory:
            run, steps = self._out_of_memory(instance, event.seq)
        instance.run = run
        if self._watch is not None:
            for step in steps:
                self._watch(run, step.event, step.effects, step.asked)
        if len(steps) == 1:
            effects = steps[0].effects
        else:
            # It has taken something over from the run before: what lacks an outcome follows from all of that.
            taken = taken_over(event.seq, spec, [step.event for step in steps])
            said = [effect for step in steps[taken:] for effect in step.effects if isinstance(effect, Log)]
            effects = [*said, *run.outstanding()]
        self._carry_out(instance, event, effects)

    def _fed(self, instance: Instance, run: Run, event: Event) -> list[Effect]:
        try:
            return run.apply(event)
        except OutOfMemory:
            instance.run, steps = self._out_of_memory(instance, event.seq)
            return steps[-1].effects
        except (MachineFailed, CodeMissing) as error:
            run.suspended = str(error)
            return [Suspend(run.suspended)]

    # -- replay ------------------------------------------------------------------------------------------------

    def _replayed(self, instance: Instance, up_to: int, vm: Callable[[], LuaVM]) -> tuple[Run, list[Step]]:
        """The open run, made anew from its events, and what followed from each. Raises OutOfMemory."""
        record = instance.runs[-1]
        events = self.stream.events(instance.key, record.id)
        # A decision that was recorded counts wherever it stands: a new owner reads it before it replays.
        marks = recorded_marks(record.id, events)
        opening = self.app.opening(instance.host)
        run = opening.new_run(instance.key, record.id, record.spec, marks, vm=LuaVM if instance.alone else vm)
        taken = [event for event in events if event.seq <= up_to]
        steps = list(replay_steps(run, taken, record_ops=self._watch is not None))
        for op in run.open.values():
            if op.failed_seq and not op.durable and op.due_ns <= self.agenda.now_ns:
                op.due_ns = 0  # as an owner does that finds the pause over
        return run, steps

    def _shared_vm(self) -> LuaVM:
        if self._vm is None:
            self._vm = LuaVM()
        return self._vm

    def _out_of_memory(self, instance: Instance, up_to: int) -> tuple[Run, list[Step]]:
        """The shared VM is full: the run that filled it is replayed in one of its own, the others in a new one."""
        self._vm = None
        instance.alone = True
        for other in self.instances.values():
            if other is not instance and other.run is not None and not other.alone:
                other.run, _ = self._replayed(other, other.run.last_seq, self._shared_vm)
        try:
            return self._replayed(instance, up_to, LuaVM)
        except OutOfMemory:
            record = instance.runs[-1]
            run = self.app.opening(instance.host).new_run(instance.key, record.id, record.spec, {}, vm=LuaVM)
            failure = Failure("the workflow took more memory than a run may have", Kind.INTERNAL, False)
            run.finished = Finish(EndRecord("failed", codec.encode_failure(failure)), ())
            event = self.stream.events(instance.key, record.id)[-1]
            return run, [Step(1, event, [run.finished], ())]

    def _crash(self, instance: Instance, event: Event) -> None:
        """Throw the run away and go on with one that was replayed. Raises ReplayDiffers if they are not the same."""
        live = instance.run
        if live is None:
            return
        now_ns = self.agenda.now_ns
        # While the old VM is there, the new one gets other addresses, and with them another hash seed (measured: of VMs
        # that follow each other, all have the same one).
        vm = LuaVM()
        instance.vm = vm
        fresh, _ = self._replayed(instance, event.seq, lambda: vm)
        before, after = position(live, now_ns), position(fresh, now_ns)
        live.close()
        if before != after:
            fresh.close()
            record = instance.runs[-1]
            events = self.stream.events(instance.key, record.id)
            number = 1 + sum(1 for each in events if each.seq < event.seq)
            raise ReplayDiffers(instance.key.id, number, event_label(event), before, after)
        instance.run = fresh

    def deploy(self, app: App) -> None:
        """Go on with other code: every open run is replayed with it."""
        self.app = app
        self._vm = None
        for instance in self.instances.values():
            instance.host = app.host_of(instance.key)
            if instance.run is None:
                continue
            up_to = instance.run.last_seq
            instance.run.close()
            instance.run, _ = self._replayed(instance, up_to, self._shared_vm)
            for effect in instance.run.outstanding():
                self._resume(instance, instance.run, effect)

    def _resume(self, instance: Instance, run: Run, effect: Effect) -> None:
        """Carry out what a replayed run waits for, unless it is under way."""
        match effect:
            case SetTimer(name, _) if name in instance.ticks:
                return
            case RetryLater(op) if op.n in instance.pauses or retry_tick(op) in instance.ticks:
                return
            case Dispatch(op) | Stop(op) if self._calls.has(instance.key, op):
                return
        self._one(instance, run, effect)

    # -- effects -----------------------------------------------------------------------------------------------

    def _carry_out(self, instance: Instance, event: Event, effects: list[Effect]) -> None:
        if self._recheck:
            self._crash(instance, event)
        for effect in effects:
            if instance.run is not None:
                self._one(instance, instance.run, effect)

    def _one(self, instance: Instance, run: Run, effect: Effect) -> None:
        match effect:
            case Dispatch(op):
                self._calls.dispatch(self._place(instance, run), op)
            case RetryLater(op, due_ns, drop):
                self._retry_later(instance, op, due_ns)
                for seq in drop:
                    self.stream.delete(instance.key, seq)
            case SetTimer(name, due_ns):
                self._set_timer(instance, run.run, name, due_ns)
            case Abandon(n, op):
                self._abandon(instance, n, op)
            case Stop(op):
                self._stop(instance, run, op)
            case Perform(op):
                instance.asked.append(op)
                if len(instance.asked) == 1:
                    self._perform_next(instance, run.run)
            case WriteMark(name, payload):
                self.publish(instance.key, "mark", str(run.run), token(name), data=payload)
                run.mark_recorded(name)
            case WriteAttrs():
                self._write_attrs(instance, run)
            case Finish():
                self._finish(instance, run, effect)
            case Log(level, payload, options):
                self._log(instance.key.id, level, payload, options)
            case Suspend():
                return

    def _place(self, instance: Instance, run: Run) -> Place:
        def is_open(op: OpState) -> bool:
            now = instance.run
            here = now.open.get(op.n) if now is not None and now.run == run.run and now.finished is None else None
            return here is not None and here.attempt == op.attempt and not (now is not None and now.suspended)

        return Place(instance.key, run.run, run.call_options, is_open)

    def _retry_later(self, instance: Instance, op: OpState, due_ns: int) -> None:
        run = instance.run
        if run is None:
            return
        self._attempts = max(self._attempts, op.attempt)
        if op.durable:
            self._set_timer(instance, run.run, retry_tick(op), due_ns)
            return

        def due() -> None:
            instance.pauses.pop(op.n, None)
            now = instance.run
            here = now.open.get(op.n) if now is not None and now.run == run.run else None
            if now is not None and here is not None and here.attempt == op.attempt:
                here.due_ns = 0
                self._calls.dispatch(self._place(instance, now), here)

        instance.pauses[op.n] = self.agenda.at(due_ns, due)

    def _set_timer(self, instance: Instance, run: int, name: str, due_ns: int) -> None:
        def due() -> None:
            instance.ticks.pop(name, None)
            self.publish(instance.key, "tick", str(run), name)

        instance.ticks[name] = self.agenda.at(due_ns, due)

    def _take_back(self, instance: Instance, name: str) -> None:
        timer = instance.ticks.pop(name, None)
        if timer is not None:
            timer.call_off()

    def _abandon(self, instance: Instance, n: int, op: OpState | None) -> None:
        if op is not None and op.kind == "timer":
            self._take_back(instance, str(n))
        elif op is not None and op.kind == "call":
            self._calls.abandon(instance.key, n)
            self._end_pause(instance, op)

    def _end_pause(self, instance: Instance, op: OpState) -> bool:
        """Whether a call was between two attempts; the next one does not come then."""
        pause = instance.pauses.pop(op.n, None)
        if pause is not None:
            pause.call_off()
        durable = retry_tick(op) in instance.ticks
        self._take_back(instance, retry_tick(op))
        return pause is not None or durable

    def _stop(self, instance: Instance, run: Run, op: OpState) -> None:
        if self._end_pause(instance, op):
            outcome = codec.encode_failure(Failure("operation canceled", Kind.CANCELED, False))
            self.publish(instance.key, *_ret(run.run, op), data=outcome)
        else:
            self._calls.stop(instance.key, op.n)

    def _perform_next(self, instance: Instance, run: int) -> None:
        """Do something to another workflow; one after the other, so that what one sender says stays in order."""
        op = instance.asked[0]

        def done(outcome: bytes) -> None:
            self.publish(instance.key, *_ret(run, op), data=outcome)
            if instance.asked and instance.asked[0] is op:
                instance.asked.popleft()
                if instance.asked:
                    self._perform_next(instance, run)

        self.others.perform(instance, run, op, done)

    def _write_attrs(self, instance: Instance, run: Run) -> None:
        """Record what attributes and memo are now; of a run the newest record is kept."""
        record = run.attributes.record()
        said = self.stream.newest(instance.key, "attrs", str(run.run))
        if said is None or said.data != record:
            self.publish(instance.key, "attrs", str(run.run), data=record)
            if said is not None:
                self.stream.delete(instance.key, said.seq)

    def _finish(self, instance: Instance, run: Run, finish: Finish) -> None:
        key, record = instance.key, finish.record
        for timer in (*instance.ticks.values(), *instance.pauses.values()):
            timer.call_off()
        instance.ticks.clear()
        instance.pauses.clear()
        instance.asked.clear()
        self._calls.abandon_all(key)
        for child in finish.children:
            self._tell_child(instance, run, child)
        parent = run.spec.parent
        if parent is not None and not record.next_start:
            headers = {HEADER_FROM: instance.host.pid(key.id)}
            self.publish(
                parent.key, "exit", str(parent.run), str(parent.n), data=told_to_parent(record.outcome, run),
                headers=headers,
            )  # fmt: skip
        self.publish(key, "end", str(run.run), data=record.encode())
        if record.next_start:
            self.publish(key, "start", data=record.next_start)

    def _tell_child(self, instance: Instance, run: Run, child: ChildAtEnd) -> None:
        try:
            self.publish(self.others.child_key(instance, run.run, child.op), child.verb)
        except MeshError:
            return  # such a child was never started

    def reset(self, instance: Instance, number: int, *, reason: str, signals: bool) -> None:
        """Have a new run go on from an event of the newest one; an open one is ended. Raises CannotReset."""
        key, record = instance.key, instance.runs[-1]
        events = self.stream.events(key, record.id)
        index = chosen_event(key.id, record.id, events, number)
        running = [child for child in children_at(events, index) if child.ended or self._is_child(key, child)]
        if running:
            raise ChildrenRun(key.id, index + 1, running)
        spec = reset_start(record.spec, record.id, events, index, reason=reason, signals=signals)
        parent = spec.parent
        if parent is not None and self.stream.newest(parent.key, "exit", str(parent.run), str(parent.n)) is not None:
            spec = replace(spec, parent=None)
        self.publish(key, "kill" if record.end is None else "start", data=spec.encode())

    def _is_child(self, key: WorkflowKey, child: Child) -> bool:
        started = self.instances.get(WorkflowKey(child.queue, child.id))
        parents = [record.spec.parent for record in started.runs] if started is not None else []
        return any(parent is not None and (parent.key, parent.n) == (key, child.n) for parent in parents)

    # -- what tests ask ----------------------------------------------------------------------------------------

    def history(self, instance: Instance, run: int = 0) -> RecordedHistory:
        """The history of a run, by default the newest, as `mesh export` writes it. Raises SimulationError."""
        record = next((record for record in reversed(instance.runs) if run in (0, record.id)), None)
        if record is None:
            runs = ", ".join(str(each.id) for each in instance.runs) or "none"
            raise SimulationError(f"workflow {instance.key.id!r} has no run {run}; its runs: {runs}")
        events = self.stream.events(instance.key, record.id)
        header = header_of(
            instance.key, record.id, events, type=record.spec.workflow, host=instance.host.worker,
            status=record.end.status if record.end is not None else RUNNING, exported_ns=self.agenda.now_ns,
        )  # fmt: skip
        return RecordedHistory(header, events)

    def waiting(self, instance: Instance) -> list[str]:
        """What a workflow waits for, as texts."""
        run = instance.run
        if run is None:
            return []
        if run.suspended:
            return [f"workflow {instance.key.id!r} is suspended: {run.suspended}"]
        told = standing(run, self.agenda.now_ns) or ["a message"]
        stacks = run.machine.stacks() if run.machine is not None else []
        return [
            f"workflow {instance.key.id!r} waits for {', '.join(told)}",
            *(f"  at {stack}" for stack in stacks if stack),
        ]


def _ret(run: int, op: OpState) -> tuple[str, ...]:
    return "ret", str(run), str(op.n), str(op.attempt), op.fp, op.seen
