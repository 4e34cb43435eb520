"""One run of a workflow, decided: events in, effects out (the durable driver of the Lua machine).

Pure: the standard library, msgpack and the machine it is given. No clock, no randomness, no I/O; time is the stream
timestamp of the event being applied. The same events give the same effects, live and in replay; replay is nothing but
applying the recorded events and dropping what comes out, then asking `outstanding()` what still lacks an outcome.

How a step goes: the machine asks for op n; the run keeps it in `open` and returns an effect. An event that names
(run, n) answers it; the first answer in stream order wins, all later ones are ignored. An answer whose fingerprint is
not that of op n means that the code is not the code that wrote the history: the run is suspended and touches nothing.

Invariants:
  * an op is in `open` exactly while it has no outcome;
  * nothing is applied after `finished` or `suspended` is set, but what ends a suspended run without its code: kill,
    the timeout, the record of its end;
  * an event that cannot be opened here suspends the run before anything follows from it;
  * events of another run are ignored.

A reset run is given the events of the run it rests on as its own (`mesh.lineage`): the code's clock is theirs. What is
limited in time has its time anew from the reset on, and nothing of the older run's own history is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from mesh import codec
from mesh.envelopes import ENVELOPE, Opened, may_open_later, why_unread
from mesh.errors import Undecodable
from mesh.events import (
    HEADER_FORCE,
    HEADER_FROM,
    MARK_LOST,
    MARK_STUCK,
    UNREADABLE,
    EndRecord,
    Event,
    StartSpec,
    reset_of,
)
from mesh.failure import Failure, Kind
from mesh.subjects import WorkflowKey
from node.machine.vm import Machine, Op
from node.telemetry.run_trace import PassedTrace, RunTrace
from node.workflows.attempts import (
    RETRY_TICK,
    VERDICT_MARK,
    attempt_failed,
    pause_over,
    verdict_mark,
    verdict_recorded,
)
from node.workflows.attributes import Attributes
from node.workflows.call_options import CallOptions
from node.workflows.chain import AtEnd, deadline_ns, end_record, retry_state
from node.workflows.children import Children, child_pid
from node.workflows.messages import Message, Messages
from node.workflows.open_ops import PERFORMED, DoesNotFit, OpenOps
from node.workflows.ops import (
    Abandon,
    ChildAtEnd,
    Dispatch,
    Effect,
    Finish,
    Ignore,
    Log,
    OpState,
    Perform,
    SetTimer,
    Stop,
    Suspend,
    WriteAttrs,
    WriteMark,
)
from node.workflows.outcomes import normal_outcome, read_outcome
from node.workflows.seen import as_token, folded

DELAY_TICK: Final = "delay"
TIMEOUT_TICK: Final = "timeout"
# Calls that cannot even be made are answered at once; code that goes on making them would never wait for an event.
REFUSED_CALLS_MAX: Final = 10_000
# Events whose payload somebody else than the server has written, with what a run's code is given in it.
_WRITTEN_BY_OTHERS: Final = frozenset({"signal", "ret", "exit", "kill"})
# What is in them is nobody's to read, so it keeps nobody waiting.
_SAY_NOTHING: Final = frozenset({"cancel", "tick", "claim"})
# `workflow.version("x")` is the mark `version:x`.
VERSION_MARK: Final = "version:"
TOPOLOGY_PID: Final = "{|topology}"


class Run:
    """A run that is open on this node.

    open_machine: makes the machine for this start; called once, by the first event.
    call_defaults: the options that a function's registry entry sets.
    type_name: the workflow's type, which it tells about itself; by default what it was started as.
    ops, children: what it waits for. open: the ops by number, the same as `ops.by_n`.
    answered: the last op that got its outcome, with that; taken out by whoever takes note of it.
    trace: the trace that it belongs to, if anybody wants to know.
    does_not_fit: it is suspended because its code is not the code that wrote the history.
    waits_for_key: it is suspended because something in its history is encrypted with a key that is not there.
    is_unread: that holds for its very start, or for a decision of its code, so nothing is known of it, and even a kill
    has to wait that is not forced.
    """

    def __init__(
        self,
        key: WorkflowKey,
        run: int,
        spec: StartSpec,
        *,
        open_machine: Callable[[Run], Machine],
        call_defaults: Callable[[str], Mapping[str, Any]],
        marks: Mapping[str, Any] | None = None,
        id_token: str,
        type_name: str = "",
    ) -> None:
        self.key = key
        self.run = run
        self.spec = spec
        self.id_token = id_token
        self.type_name = type_name or spec.workflow
        self.marks = dict(marks or {})
        self.ops = OpenOps(call_defaults)
        self.open = self.ops.by_n
        self.children = Children()
        self.now_ns = 0
        self.started_ns = 0
        self._begun_ns = 0  # for a reset run not the same: when it was reset
        self._at_seq = 0  # of the event being applied
        self._in_base = spec.base is not None
        self.length = 0
        self._encrypted = False
        self._checksum = 0  # over the events that `length` counts, but the start
        self._seen, self._seen_at = "", 0
        self.size = 0
        self.last_seq = 0
        self.counted_seq = run  # of the newest event that the code was given
        self.suspended = ""
        self.does_not_fit = False
        self.waits_for_key = False
        self.is_unread = False
        self.finished: Finish | None = None
        self.closed = False
        self.answered: tuple[OpState, bytes] | None = None
        self.trace: RunTrace | PassedTrace | None = None
        self.delayed_until_ns = 0
        self.deadline_ns = 0
        self.cancel_requested = False
        # The workflow was terminated after the former run had come to its end and before this one began. Set before the
        # first event: a run that goes on in its first step would never see what came before it.
        self.killed_early = False
        # Told of the machine when the run ends, before it is closed: for a look at where the code stood.
        self.on_end: Callable[[Machine], None] | None = None
        self.attributes = Attributes(spec.attrs, spec.memo)
        self._unrecorded: dict[str, bytes] = {}
        self._messages = Messages(spec.heard)
        self._open_machine = open_machine
        self._ret_prefix = f"{key.subject('ret')}.{run}."
        self._machine: Machine | None = None

    # -- events ------------------------------------------------------------------------------------------------

    def apply(self, event: Event, *, more: bool = False) -> list[Effect]:
        """Apply one event and return what is now due. `more`: the history goes on after this event (replay)."""
        self._at_seq = event.seq
        if event.seq > self.last_seq:
            self.last_seq = event.seq
        if self.closed:
            return []
        if self._in_base:
            self._leave_base(event)
        if event.kind == "end":
            if event.run == self.run:
                self.closed = True
                self.close()
            return []
        if self.finished is not None or (self.suspended and not self._ends_it(event)):
            return []
        handler = _HANDLERS.get(event.kind)
        if handler is None:
            return []
        if event.data[:2] == ENVELOPE and event.kind not in _SAY_NOTHING and may_open_later(event.data):
            about = f"event {event.kind} at sequence {event.seq}"
            self.suspended, self.waits_for_key = f"{about} is {why_unread(event.data)}", True
            return [Suspend(self.suspended)]
        if (
            self._encrypted
            and type(event.data) is not Opened
            and event.kind in _WRITTEN_BY_OTHERS
            and (event.data or event.kind != "kill")  # to terminate a workflow nothing has to be said
        ):
            return self._on_plain(event)
        try:
            return handler(self, event, more)
        except DoesNotFit as error:
            self.suspended, self.does_not_fit = str(error), True
            return [Suspend(self.suspended)]

    def _ends_it(self, event: Event) -> bool:
        """Whether an event ends this run though it is suspended."""
        return is_forced(event) if self.is_unread else _needs_no_code(event)

    def close(self) -> None:
        """Let go of the machine. The run's facts stay readable."""
        if self._machine is not None:
            self._machine.close()
            self._machine = None

    @property
    def machine(self) -> Machine | None:
        """The machine, while the run is going."""
        return self._machine

    def about(self) -> dict[str, object]:
        """What every log line about this run says in its fields."""
        fields: dict[str, object] = {"queue": self.key.queue, "workflow": self.key.id, "run": self.run}
        if self.trace is not None:
            fields["trace_id"] = self.trace.trace_id_text
        return fields

    def quiet(self) -> bool:
        """Whether everything that can wake this run will be written to the stream without its owner's help."""
        return (
            not self.suspended  # no event wakes it, but fitting code on another node does
            and not self._unrecorded
            and self.finished is None
            and all(op.kind == "timer" or op.durable for op in self.open.values())
        )

    def _on_start(self, event: Event, more: bool) -> list[Effect]:
        if event.seq != self.run or self.started_ns:
            return []  # a second start while a run is open
        base, self._begun_ns = self.spec.base, event.at_ns
        self.length = 1
        if base is None:
            self.now_ns, self.size = event.at_ns, len(event.data)
        else:
            self.now_ns, self.size = base.started_ns, base.start_bytes
        self.started_ns = self.now_ns
        self._encrypted = self.spec.encrypted and type(event.data) is Opened
        if self.killed_early:
            return self._terminated()
        self.deadline_ns = deadline_ns(self.spec, self._begun_ns)
        if self.spec.start_delay_ns:
            self.delayed_until_ns = self.now_ns + self.spec.start_delay_ns
            return self._own_timers()
        return self._own_timers() + self._begin(more)

    def _on_plain(self, event: Event) -> list[Effect]:
        """An event that came in plain to a run that takes only what is encrypted: whoever has sent it has no key.

        An end of a child is not sent again; waiting for one that was ignored would be for ever.
        """
        what = f"event {event.kind} at sequence {event.seq} came in plain, and the run takes only what is encrypted"
        if event.kind != "exit":
            return [Ignore(what)]
        self.suspended = f"{what}; does the child's node have the keys?"
        return [Suspend(self.suspended)]

    def _leave_base(self, event: Event | None = None) -> None:
        """Take notice that the events of an older run are through: what is open is asked for anew, with its time."""
        base = self.spec.base
        if base is None or (event is not None and (event.seq == self.run or event.seq <= base.upto)):
            return
        self._in_base = False
        for op in self.open.values():
            if op.kind == "call":
                op.issued_ns = self._begun_ns

    def _own_timers(self) -> list[Effect]:
        due = ((TIMEOUT_TICK, self.deadline_ns), (DELAY_TICK, self.delayed_until_ns))
        return [SetTimer(name, due_ns) for name, due_ns in due if due_ns]

    def _begin(self, more: bool) -> list[Effect]:
        if MARK_STUCK in self.marks:
            # Its code is not begun at all: it would stand still in a step before the mark.
            self.suspended = str(self.marks[MARK_STUCK])
            return [Suspend(self.suspended)]
        self._machine = self._open_machine(self)
        for event in self._messages.line_up(self.spec.messages):
            self._count(event)
        # The main function subscribes in its first step; what was sent before waits in the mailbox all the same.
        # `more` is about the history alone: these messages are part of its past, and a new run is no replay.
        effects = self._feed("start", self.spec.args, more=more)
        while self.finished is None and not self.suspended and (message := self._messages.next()) is not None:
            effects += self._deliver(message, more)
        return effects

    def _deliver(self, message: Message, more: bool) -> list[Effect]:
        return self._feed("message", _lua_text(message.topic), message.body, _lua_text(message.sender), more=more)

    def _on_ret(self, event: Event, more: bool) -> list[Effect]:
        if event.run != self.run:
            return []
        n, attempt, fp = int(event.args[1]), int(event.args[2]), event.args[3]
        op = self.ops.with_outcome(n, fp, event.seen)
        if op is None:
            return []  # answered before: the first outcome won
        outcome, failure = read_outcome(event)
        if failure is not None and op.kind == "call":
            return self._call_failed(op, attempt, failure, event, more)
        self._count(event)
        if self.children.keep_answer(op, outcome):
            self.ops.drop(op)
            return []
        return self._resolve(op, outcome, more)

    def _call_failed(self, op: OpState, attempt: int, failure: Failure, event: Event, more: bool) -> list[Effect]:
        recorded = self.marks.get(verdict_mark(op.n, attempt))
        follows, mark = attempt_failed(op, self.ops.call_options(op.n), attempt, failure, event, recorded)
        effects: list[Effect] = []
        if mark is not None:
            self._unrecorded[mark.name] = mark.payload
            effects.append(mark)
        if isinstance(follows, bytes):
            self._count(event)
            return effects + self._resolve(op, follows, more)
        if follows is not None:
            # Not of the run this one rests on. While that has the attempt, what was decided about it is needed, too.
            is_own = all(seq > self.run for seq in follows.drop)
            effects.append(follows if is_own else replace(follows, drop=()))
        return effects

    def _resolve(self, op: OpState, outcome: bytes, more: bool) -> list[Effect]:
        self.ops.drop(op)
        self.answered = (op, outcome)
        if op.kind == "spawn" and outcome[:3] == codec.SUCCESS_PREFIX:
            self.children.started(op, outcome)
            outcome = codec.encode_success(child_pid(op))
        return self._feed("resolve", op.n, outcome, more=more)

    def _on_claim(self, event: Event, _more: bool) -> list[Effect]:
        # Of what a host has begun for an older run, this one knows nothing: it has the call made anew.
        if event.run == self.run and event.seq > self.run:
            op = self.open.get(int(event.args[1]))
            if op is not None and int(event.args[2]) == op.attempt:
                op.claimed = True
        return []

    def _on_tick(self, event: Event, more: bool) -> list[Effect]:
        if event.run != self.run:
            return []
        name = event.args[1]
        if name == TIMEOUT_TICK:
            if not self.deadline_ns:
                return []
            failure = Failure("workflow timed out", Kind.TIMEOUT, False, {"timeout_type": "run"})
            return self._fail("timed-out", failure)
        if name == DELAY_TICK:
            if not self.delayed_until_ns or self._machine is not None:
                return []
            self._count(event)
            self.delayed_until_ns = 0
            return self._begin(more)
        if name.startswith(RETRY_TICK):
            return self._on_retry_tick(name.removeprefix(RETRY_TICK), event.seq)
        if not name.isdecimal():
            return []
        op = self.ops.with_timer(int(name))
        if op is None:
            return []
        self._count(event)
        # Whoever has published the tick may have a clock that differs from the server's by a little.
        self.now_ns = max(self.now_ns, op.due_ns)
        return self._resolve(op, codec.NIL_OUTCOME, more)

    def _on_retry_tick(self, which: str, seq: int) -> list[Effect]:
        n, _, attempt = which.partition("-")
        op = self.open.get(int(n)) if n.isdecimal() else None
        return [Dispatch(op)] if op is not None and pause_over(op, attempt, seq) else []

    def _on_exit(self, event: Event, more: bool) -> list[Effect]:
        if event.run != self.run:
            return []
        n = int(event.args[1])
        effects: list[Effect] = []
        op = self.open.get(n)
        if n in self.children.by_n or (op is not None and op.kind == "spawn"):
            self._count(event)
        if op is not None and op.kind == "spawn":
            # The child has ended before its start was recorded: then it had been started.
            pid = event.headers.get(HEADER_FROM, "")
            effects += self._resolve(op, codec.encode_success({"pid": pid}), more)
        child = self.children.ended(n)
        if child is None:
            if n >= self.ops.next_n or op is not None:
                raise DoesNotFit(f"op {n}: the history has the end of a child, the code started none")
            return effects
        if self.finished is not None or self.suspended:
            return effects
        outcome, _ = normal_outcome(event)
        effects += self._feed("exit", n, outcome, _lua_text(child_pid(child)), more=more)
        for asked, answer in self.children.kept_answers(n):
            if self.finished is None:
                effects += self._resolve(asked, answer, more)
        return effects

    def _on_attrs(self, event: Event, _more: bool) -> list[Effect]:
        if event.run == self.run:
            self.attributes.recorded(event.data)
        return []

    def _on_signal(self, event: Event, more: bool) -> list[Effect]:
        if self._machine is None:
            self._messages.keep(event)
            return []
        message = self._messages.read(event)
        if message is None:
            return []
        self._count(event)
        return self._deliver(message, more)

    def _on_mark(self, event: Event, _more: bool) -> list[Effect]:
        if event.run != self.run:
            return []
        if event.args[1] not in (MARK_LOST, MARK_STUCK):
            # What the others say is given to the run when it is made.
            if event.args[1].startswith(VERDICT_MARK):
                n, _, attempt = event.args[1].removeprefix(VERDICT_MARK).partition("-")
                op = self.open.get(int(n)) if n.isdecimal() else None
                if op is not None:
                    verdict_recorded(op, attempt, event.seq)
            return []
        try:
            self.suspended = str(codec.decode(event.data))
        except Undecodable:
            self.suspended = f"a node has marked it as {event.args[1]}"
        return [Suspend(self.suspended)]

    def _on_unreadable(self, event: Event, _more: bool) -> list[Effect]:
        self.suspended = (
            f"the event {' '.join(event.args)} of the history is damaged in the files of the server, which cannot read "
            "it; restore the store from a backup, or begin anew from an earlier event with `mesh reset`"
        )
        return [Suspend(self.suspended)]

    def _on_cancel(self, event: Event, more: bool) -> list[Effect]:
        self.cancel_requested = True
        if self._machine is None:
            if self.delayed_until_ns:
                return self._fail("canceled", Failure("operation canceled", Kind.CANCELED, False))
            return []
        self._count(event)
        return self._feed("cancel", None, None, TOPOLOGY_PID.encode(), more=more)

    def _on_kill(self, event: Event, _more: bool) -> list[Effect]:
        spec = reset_of(event)
        if spec is None:
            return self._terminated()
        if spec.base is None or spec.base.run != self.run:
            return []  # meant for a run that had ended
        failure = Failure("workflow terminated to be reset", Kind.CANCELED)
        record = EndRecord("terminated", codec.encode_failure(failure), event.data)
        return self._finish(record, self.children.at_end(self.open.values()))

    def _terminated(self) -> list[Effect]:
        return self._fail("terminated", Failure("workflow terminated", Kind.CANCELED))

    # -- what the machine asks for -----------------------------------------------------------------------------

    def _feed(self, verb: str, a: Any = None, b: Any = None, c: Any = None, *, more: bool) -> list[Effect]:
        ops = self._turn(verb, a, b, c, more)
        effects: list[Effect] = []
        refused: list[tuple[OpState, Failure]] = []
        answered = 0
        while True:
            for op in ops:
                if self.finished is None:
                    self._take(op, effects, refused)
            # Answered after all ops of the activation are known: an answer makes the machine ask for further ones.
            if len(refused) == answered or self.finished is not None:
                return effects
            call, failure = refused[answered]
            answered += 1
            if answered > REFUSED_CALLS_MAX:
                text = f"made {REFUSED_CALLS_MAX} calls in one step that cannot be made; the last: {failure.message}"
                return effects + self._fail("failed", Failure(text, Kind.INTERNAL, False))
            self.ops.drop(call)
            ops = self._turn("resolve", call.n, codec.encode_failure(failure), None, more)

    def _turn(self, verb: str, a: Any, b: Any, c: Any, more: bool) -> Sequence[Op]:
        machine = self._machine
        assert machine is not None, "events are fed only while the machine is there"  # noqa: S101 - narrows the type
        return machine.feed(verb, self.now_ns, a, b, c, replaying=more, length=self.length, size=self.size)

    def _take(self, op: Op, effects: list[Effect], refused: list[tuple[OpState, Failure]]) -> None:
        kind = op.kind
        if kind == "call":
            call = self._add(op)
            try:
                self.ops.read_call_options(call, op.options)
            except ValueError as error:
                refused.append((call, Failure(f"{call.target}: {error}", Kind.INVALID, False)))
                return
            effects.append(Dispatch(call))
        elif kind == "timer":
            effects.append(SetTimer(str(op.n), self._add(op).due_ns))
        elif kind in PERFORMED:
            effects.append(Perform(self._add(op)))
        elif kind == "cancel_op":
            n = int(op.target)
            dropped = self.open.get(n)
            if dropped is not None and op.options:  # the code waits for the end
                dropped.stopping = True
                effects.append(Stop(dropped))
                return
            if dropped is not None:
                self.ops.drop(dropped)
            effects.append(Abandon(n, dropped))
        elif kind == "mark":
            name, payload = f"{VERSION_MARK}{op.target}", op.payload or b""
            self._unrecorded[name] = payload
            effects.append(WriteMark(name, payload))
        elif kind == "attrs":
            if self.attributes.set(op.payload or b"\x80"):
                effects.append(WriteAttrs())
        elif kind == "log":
            effects.append(Log(str(op.target), op.payload or b"", op.options))
        elif kind == "end":
            effects += self._machine_ended(str(op.target), op.payload or b"", op.options)
        else:
            refused.append((self._add(op), Failure(f"{kind} is not possible in a workflow", Kind.INTERNAL, False)))

    def _add(self, op: Op) -> OpState:
        if self._seen_at != self.length:
            self._seen_at, self._seen = self.length, as_token(self.length, self._checksum)
        return self.ops.add(op, now_ns=self.now_ns, seq=self.last_seq, seen=self._seen)

    def ret_subject(self, op: OpState, attempt: int = 0) -> str:
        """Where the outcome of an attempt (by default the present one) of an op is published."""
        return f"{self._ret_prefix}{op.n}.{attempt or op.attempt}.{op.fp}.{op.seen}"

    def call_options(self, n: int) -> CallOptions:
        """The options of call n."""
        return self.ops.call_options(n)

    def _machine_ended(self, verb: str, payload: bytes, options: bytes | None) -> list[Effect]:
        at_end = AtEnd(
            self.spec, self._begun_ns, max(self.now_ns, self._begun_ns), self._given_up_to(),
            self._messages.undelivered(), self._messages.heard(), self.attributes.memo, self.attributes.search,
        )  # fmt: skip
        effects = self._finish(end_record(at_end, verb, payload, options))
        if verb in ("raised", "doomed"):  # doomed: stopped by its limits
            # Nobody has returned this error: the code has a fault, and its author wants to know where.
            _, failure = codec.decode_outcome(payload)
            text = f"workflow failed: {failure}".encode("utf-8", "surrogateescape")
            effects.insert(0, Log("error", text, stack=failure.stack.partition("\n")[2]))
        return effects

    def _given_up_to(self) -> int:
        """Up to where the code has been given its messages; what it takes over from others is older than itself."""
        base = self.spec.base
        if base is not None and not base.signals and self._at_seq <= self.run:
            return self.run
        if self._at_seq == self.run:
            return self.spec.since or (base.origin if base is not None else self.run)
        return self._at_seq

    def _fail(self, status: str, failure: Failure) -> list[Effect]:
        return self._finish(EndRecord(status, codec.encode_failure(failure)))

    def _finish(self, record: EndRecord, children: tuple[ChildAtEnd, ...] | None = None) -> list[Effect]:
        if children is None:
            children = () if record.next_start else self.children.at_end(self.open.values())
        self.suspended = ""
        self.finished = Finish(record, children)
        if self.on_end is not None and self._machine is not None:
            self.on_end(self._machine)
        self.close()
        return [self.finished]

    def _count(self, event: Event) -> None:
        """Take notice of an event that the machine will see; its clock goes by these alone.

        Other events may be deleted from the history, so nothing the code sees may depend on them.
        """
        if event.at_ns > self.now_ns:
            self.now_ns = event.at_ns
        self.length += 1
        self.size += len(event.data)
        self.counted_seq = event.seq
        self._checksum = folded(self._checksum, event)

    # -- the engine's side -------------------------------------------------------------------------------------

    def outstanding(self) -> list[Effect]:
        """Everything that still lacks an outcome, as if it had just come up. For a run that was replayed."""
        if self.suspended:
            return [Suspend(self.suspended)]
        if self.closed:
            return []
        unsaid: list[Effect] = [] if self.attributes.are_recorded else [WriteAttrs()]
        if self.finished is not None:
            return [*unsaid, self.finished]
        if self._in_base:
            self._leave_base()
        effects: list[Effect] = [
            WriteMark(name, payload) for name, payload in self._unrecorded.items() if name not in self.marks
        ]
        return effects + unsaid + self._own_timers() + self.ops.outstanding()

    def mark_recorded(self, name: str) -> None:
        """The engine has the acknowledgement of a mark."""
        self._unrecorded.pop(name, None)


def told_to_parent(outcome: bytes, run: Run) -> bytes:
    """A child's outcome as its parent sees it: a failure says which child it was (contract 11.7)."""
    ok, value = codec.decode_outcome(outcome)
    if ok or not isinstance(value, Failure):
        return outcome
    details = {
        **value.details, "_wrapper": "child_workflow", "_workflow_id": run.key.id, "_workflow_type": run.type_name,
        "_run_id": str(run.run), "_retry_state": str(retry_state(run.spec, value)),
    }  # fmt: skip
    return codec.encode_failure(replace(value, details=details))


def is_forced(event: Event) -> bool:
    """Whether an event ends a run of which nothing is known."""
    return event.kind == "kill" and not event.data and HEADER_FORCE in event.headers


def _needs_no_code(event: Event) -> bool:
    """Whether an event ends a run whatever its code is."""
    return event.kind == "kill" or (event.kind == "tick" and event.args[1] == TIMEOUT_TICK)


def _lua_text(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


_HANDLERS: Final[dict[str, Callable[[Run, Event, bool], list[Effect]]]] = {
    "start": Run._on_start,
    "ret": Run._on_ret,
    "claim": Run._on_claim,
    "tick": Run._on_tick,
    "exit": Run._on_exit,
    "attrs": Run._on_attrs,
    "signal": Run._on_signal,
    "mark": Run._on_mark,
    UNREADABLE: Run._on_unreadable,
    "cancel": Run._on_cancel,
    "kill": Run._on_kill,
}
