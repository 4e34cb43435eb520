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
  * events of another run are ignored.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from mesh import codec
from mesh.errors import Undecodable
from mesh.events import HEADER_FROM, HEADER_ONCE, EndRecord, Event, StartSpec, next_attempt
from mesh.failure import Failure, Kind
from mesh.subjects import WorkflowKey
from node.machine.vm import Machine, Op
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
    WriteMark,
    fingerprint,
)
from node.workflows.retry import RetryPolicy, RetryState, decode_policy, duration_option

DELAY_TICK: Final = "delay"
TIMEOUT_TICK: Final = "timeout"
# The pause before an attempt of call n is the tick `retry-<n>-<attempt>`. Not that of a timer n: the failure that began
# the pause may have been deleted from the history since, and its tick must not look like that of a timer the code never
# asked for. Each attempt has a name of its own, as of several ticks with one name only the first is read back.
RETRY_TICK: Final = "retry-"
# Calls that cannot even be made are answered at once; code that goes on making them would never wait for an event.
REFUSED_CALLS_MAX: Final = 10_000
TOPOLOGY_PID: Final = "{|topology}"
# A pause between two attempts that is at least this long is a timer of the server; the run may be evicted meanwhile.
DURABLE_PAUSE_NS: Final = 5_000_000_000
RUNTIME_KEYS: Final = (
    "start_to_close_timeout",
    "schedule_to_close_timeout",
    "schedule_to_start_timeout",
    "heartbeat_timeout",
)
DEFAULT_START_TO_CLOSE_NS: Final = 600 * 1_000_000_000


@dataclass(frozen=True, slots=True)
class CallOptions:
    """How a function is called from a workflow (contract 11.5). Nanoseconds, 0 = no limit. id: how errors name it."""

    policy: RetryPolicy
    start_to_close_ns: int = DEFAULT_START_TO_CLOSE_NS
    schedule_to_close_ns: int = 0
    schedule_to_start_ns: int = 0
    heartbeat_ns: int = 0
    id: str = ""


def decode_call_options(options: Mapping[str, Any]) -> CallOptions:
    """Read the options of a call; `activity.X`, `temporal.activity.X` and X are the same. Raises ValueError."""
    plain = {
        key.removeprefix("temporal.").removeprefix("activity."): value
        for key, value in options.items()
        if isinstance(key, str)
    }
    times = {}
    for key in RUNTIME_KEYS:
        if plain.get(key) is not None:
            times[key.removesuffix("_timeout") + "_ns"] = duration_option(key, plain[key])
    policy = plain.get("retry_policy") or None  # an empty Lua table arrives as an empty list
    if policy is not None and not isinstance(policy, Mapping):
        raise ValueError("retry_policy must be a table")
    name = plain.get("id") or ""
    if not isinstance(name, str):
        raise ValueError(f"id must be a text, got {name!r}")
    return CallOptions(policy=decode_policy(policy), id=name, **times)


DEFAULT_CALL_OPTIONS: Final = decode_call_options({})


class Run:
    """A run that is open on this node.

    open_machine: makes the machine for this start; called once, by the first event.
    call_defaults: the options that a function's registry entry sets.
    type_name: the workflow's type, which it tells about itself; by default what it was started as.
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
        self.open: dict[int, OpState] = {}
        self.children: dict[int, OpState] = {}
        self.calls = 0  # how many of `open` are calls: they need the owner's attention
        self.next_n = 1
        self.now_ns = 0
        self.started_ns = 0
        self.length = 0
        self.size = 0
        self.last_seq = 0
        self.suspended = ""
        self.finished: Finish | None = None
        self.closed = False
        self.delayed_until_ns = 0
        self.deadline_ns = 0
        self.cancel_requested = False
        # The workflow was terminated after the former run had come to its end and before this one began. Set before the
        # first event: a run that goes on in its first step would never see what came before it.
        self.killed_early = False
        self.attrs = dict(spec.attrs)
        self.memo = dict(spec.memo)
        self._unrecorded: dict[str, bytes] = {}
        self._waiting: list[Event] = []  # messages that came before a delayed run began
        self._undelivered: deque[tuple[str, bytes, str]] = deque()  # what was there at the beginning, not fed yet
        self._senders: dict[str, set[str]] = {}
        # Requests to stop that were delivered and whose answer waits for the child's end, by the op that started it.
        self._asked: dict[int, list[tuple[OpState, bytes]]] = {}
        self._open_machine = open_machine
        self._call_defaults = call_defaults
        self._options: dict[int, CallOptions] = {}
        self._ret_prefix = f"{key.subject('ret')}.{run}."
        self._machine: Machine | None = None

    # -- events ------------------------------------------------------------------------------------------------

    def apply(self, event: Event, *, more: bool = False) -> list[Effect]:
        """Apply one event and return what is now due. `more`: the history goes on after this event (replay)."""
        self.last_seq = event.seq
        if self.closed:
            return []
        if event.kind == "end":
            if event.run == self.run:
                self.closed = True
                self.close()
            return []
        if self.finished is not None or (self.suspended and not _needs_no_code(event)):
            return []
        handler = _HANDLERS.get(event.kind)
        if handler is None:
            return []
        return handler(self, event, more)

    def close(self) -> None:
        """Let go of the machine. The run's facts stay readable."""
        if self._machine is not None:
            self._machine.close()
            self._machine = None

    @property
    def machine(self) -> Machine | None:
        """The machine, while the run is going."""
        return self._machine

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
        self._count(event)
        self.started_ns = self.now_ns
        if self.killed_early:
            return self._on_kill(event, more)
        effects: list[Effect] = []
        begin_ns = self.now_ns + self.spec.start_delay_ns
        chain_ns = self.spec.chain_started_ns or self.now_ns
        limits = []
        if self.spec.run_timeout_ns:
            limits.append(begin_ns + self.spec.run_timeout_ns)
        if self.spec.execution_timeout_ns:
            limits.append(chain_ns + self.spec.execution_timeout_ns)
        if limits:
            self.deadline_ns = min(limits)
            effects.append(SetTimer(TIMEOUT_TICK, self.deadline_ns))
        if self.spec.start_delay_ns:
            self.delayed_until_ns = begin_ns
            effects.append(SetTimer(DELAY_TICK, begin_ns))
            return effects
        return effects + self._begin(more)

    def _begin(self, more: bool) -> list[Effect]:
        self._machine = self._open_machine(self)
        effects: list[Effect] = []
        messages = deque((m["topic"], m["body"], m["from"]) for m in self.spec.messages)
        early, self._waiting = self._waiting, []
        for event in early:
            message = self._read_signal(event)
            if message is not None:
                self._count(event)
                messages.append(message)
        # The main function subscribes in its first step; what was sent before waits in the mailbox all the same.
        # `more` is about the history alone: these messages are part of its past, and a new run is no replay.
        self._undelivered = messages
        effects += self._feed("start", self.spec.args, more=more)
        while messages and self.finished is None and not self.suspended:
            topic, body, sender = messages.popleft()
            effects += self._feed("message", _lua_text(topic), body, _lua_text(sender), more=more)
        return effects

    def _on_ret(self, event: Event, more: bool) -> list[Effect]:
        if event.run != self.run:
            return []
        n, attempt, fp = int(event.args[1]), int(event.args[2]), event.args[3]
        op = self.open.get(n)
        if op is None:
            if n < self.next_n:
                return []  # answered before: the first outcome won
            return self._suspend(
                f"the history has an outcome for op {n} (fingerprint {fp}), "
                f"the code has asked for {self.next_n - 1} ops so far"
            )
        if op.fp != fp:
            return self._suspend(
                f"op {n}: the history has the outcome of another op (fingerprint {fp}), "
                f"the code asked for {op.kind} {op.target} (fingerprint {op.fp})"
            )
        data = event.data
        if data[:3] != codec.SUCCESS_PREFIX:
            data, failure = _normal_outcome(data, event)
            if failure is not None and op.kind == "call":
                return self._call_failed(op, attempt, failure, event, more)
        else:
            try:
                codec.unpack(data[3:])
            except Undecodable as error:
                failure = codec.undecodable_failure("outcome", error)
                if op.kind == "call":
                    return self._call_failed(op, attempt, failure, event, more)
                data = codec.encode_failure(failure)
        self._count(event)
        child = self._child_to_wait_for(op)
        if child is not None:
            self._drop(op)
            self._asked.setdefault(child, []).append((op, data))
            return []
        return self._resolve(op, data, more)

    def _child_to_wait_for(self, op: OpState) -> int | None:
        """The child whose end a request to stop waits for, as its start options say (`wait_for_cancellation`)."""
        if op.kind not in ("cancel", "terminate"):
            return None
        for n, child in self.children.items():
            if child_pid(child) == op.target and (child.options.get("options") or {}).get("wait_for_cancellation"):
                return n
        return None

    def _call_failed(self, op: OpState, attempt: int, failure: Failure, event: Event, more: bool) -> list[Effect]:
        if attempt < op.attempt:
            # An older attempt that failed late says nothing about the one under way. What shows that it is older must
            # stay in the history: without it, a replay would take this for the latest news.
            op.overtaken = True
            return []
        options = self._call_options(op)
        delay_ns = options.policy.next_delay_ns(attempt, failure) if not op.stopping else None
        limit_ns = options.schedule_to_close_ns
        if delay_ns is not None and limit_ns and event.at_ns + delay_ns >= op.issued_ns + limit_ns:
            # The next attempt would begin after the limit for all of them.
            text = f"{op.target} timed out (schedule_to_close, attempt {attempt}); this attempt failed: {failure}"
            failure = Failure(text, Kind.TIMEOUT, False, {"timeout_type": "schedule_to_close"})
            delay_ns = None
        if delay_ns is None:
            self._count(event)
            state = RetryState.CANCEL_REQUESTED if op.stopping else options.policy.retry_state(attempt, failure)
            return self._resolve(op, _final_failure(failure, op, options.id, state), more)
        drop_seq = 0 if op.overtaken else op.failed_seq
        op.failed_seq, op.overtaken = event.seq, False
        op.attempt = attempt + 1
        op.last_failure = str(failure)
        op.claimed = False
        op.due_ns = event.at_ns + delay_ns
        op.durable = delay_ns >= DURABLE_PAUSE_NS
        return [RetryLater(op, op.due_ns, drop_seq)]

    def _resolve(self, op: OpState, outcome: bytes, more: bool) -> list[Effect]:
        self._drop(op)
        if op.kind == "spawn" and outcome[:3] == codec.SUCCESS_PREFIX:
            _, child = codec.decode_outcome(outcome)
            op.options = {**op.options, "child": child}
            self.children[op.n] = op
            outcome = codec.encode_success(child_pid(op))
        return self._feed("resolve", op.n, outcome, more=more)

    def _on_claim(self, event: Event, _more: bool) -> list[Effect]:
        if event.run == self.run:
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
            return self._finish("timed-out", codec.encode_failure(failure))
        if name == DELAY_TICK:
            if not self.delayed_until_ns or self._machine is not None:
                return []
            self._count(event)
            self.delayed_until_ns = 0
            return self._begin(more)
        if name.startswith(RETRY_TICK):
            return self._pause_over(name.removeprefix(RETRY_TICK))
        if not name.isdecimal():
            return []
        n = int(name)
        op = self.open.get(n)
        if op is None:
            if n < self.next_n:
                return []
            return self._suspend(
                f"the history has a timer for op {n}, the code has asked for {self.next_n - 1} ops so far"
            )
        if op.kind != "timer":
            return self._suspend(f"op {n}: the history has a timer, the code asked for {op.kind} {op.target}")
        self._count(event)
        # Whoever has published the tick may have a clock that differs from the server's by a little.
        self.now_ns = max(self.now_ns, op.due_ns)
        return self._resolve(op, codec.NIL_OUTCOME, more)

    def _pause_over(self, which: str) -> list[Effect]:
        n, _, attempt = which.partition("-")
        op = self.open.get(int(n)) if n.isdecimal() else None
        if op is None or not op.durable or attempt != str(op.attempt) or op.stopping:
            return []
        op.due_ns = 0
        op.durable = False
        return [Dispatch(op)]

    def _on_exit(self, event: Event, more: bool) -> list[Effect]:
        if event.run != self.run:
            return []
        n = int(event.args[1])
        effects: list[Effect] = []
        op = self.open.get(n)
        if n in self.children or (op is not None and op.kind == "spawn"):
            self._count(event)
        if op is not None and op.kind == "spawn":
            # The child has ended before its start was recorded: then it had been started.
            pid = event_headers(event).get(HEADER_FROM, "")
            effects += self._resolve(op, codec.encode_success({"pid": pid}), more)
        child = self.children.pop(n, None)
        if child is None:
            if n >= self.next_n or op is not None:
                return self._suspend(f"op {n}: the history has the end of a child, the code started none")
            return effects
        if self.finished is not None or self.suspended:
            return effects
        outcome, _ = _normal_outcome(event.data, event)
        effects += self._feed("exit", n, outcome, _lua_text(child_pid(child)), more=more)
        for asked, answer in self._asked.pop(n, ()):
            if self.finished is None:
                effects += self._resolve(asked, answer, more)
        return effects

    def _on_signal(self, event: Event, more: bool) -> list[Effect]:
        if self._machine is None:
            self._waiting.append(event)
            return []
        message = self._read_signal(event)
        if message is None:
            return []
        self._count(event)
        topic, body, sender = message
        return self._feed("message", _lua_text(topic), body, _lua_text(sender), more=more)

    def _read_signal(self, event: Event) -> tuple[str, bytes, str] | None:
        """Topic, body and sender of a signal; None when it was taken before."""
        headers = event_headers(event)
        once = headers.get(HEADER_ONCE)
        if once:
            sender, _, n = once.rpartition("/")
            seen = self._senders.setdefault(sender, set())
            if n in seen:
                return None
            seen.add(n)
        try:
            body = codec.as_marked(event.data)
        except Undecodable:
            body = codec.encode(event.data)  # nobody can read it: the code gets the bytes
        return event.topic, body, headers.get(HEADER_FROM, "")

    def _on_cancel(self, event: Event, more: bool) -> list[Effect]:
        self.cancel_requested = True
        if self._machine is None:
            if self.delayed_until_ns:
                failure = Failure("operation canceled", Kind.CANCELED, False)
                return self._finish("canceled", codec.encode_failure(failure))
            return []
        self._count(event)
        return self._feed("cancel", None, None, TOPOLOGY_PID.encode(), more=more)

    def _on_kill(self, _event: Event, _more: bool) -> list[Effect]:
        return self._finish("terminated", codec.encode_failure(Failure("workflow terminated", Kind.CANCELED)))

    # -- what the machine asks for -----------------------------------------------------------------------------

    def _feed(self, verb: str, a: Any = None, b: Any = None, c: Any = None, *, more: bool) -> list[Effect]:
        machine = self._machine
        assert machine is not None, "events are fed only while the machine is there"  # noqa: S101 - narrows the type
        ops: Sequence[Op] = machine.feed(verb, self.now_ns, a, b, c, replaying=more, length=self.length, size=self.size)
        effects: list[Effect] = []
        refused: deque[tuple[OpState, Failure]] = deque()
        answered = 0
        while True:
            for op in ops:
                if self.finished is None:
                    self._take(op, effects, refused)
            # Answered after all ops of the activation are known: an answer makes the machine ask for further ones.
            if not refused or self.finished is not None:
                return effects
            answered += 1
            if answered > REFUSED_CALLS_MAX:
                text = (
                    f"made {REFUSED_CALLS_MAX} calls in one step that cannot be made; the last: {refused[0][1].message}"
                )
                return effects + self._finish("failed", codec.encode_failure(Failure(text, Kind.INTERNAL, False)))
            state, failure = refused.popleft()
            self._drop(state)
            ops = machine.feed(
                "resolve",
                self.now_ns,
                state.n,
                codec.encode_failure(failure),
                replaying=more,
                length=self.length,
                size=self.size,
            )

    def _take(self, op: Op, effects: list[Effect], refused: deque[tuple[OpState, Failure]]) -> None:
        kind = op.kind
        if kind == "call":
            state = OpState(
                op.n, kind, str(op.target), fingerprint(kind, str(op.target)), op.payload or b"", issued_ns=self.now_ns
            )
            self._add(state, op)
            try:
                self._read_call_options(state, op.options)
            except ValueError as error:
                refused.append((state, Failure(f"{state.target}: {error}", Kind.INVALID, False)))
                return
            effects.append(Dispatch(state))
        elif kind == "timer":
            state = OpState(op.n, kind, "", "", due_ns=self.now_ns + int(op.target), issued_ns=self.now_ns)
            self._add(state, op)
            effects.append(SetTimer(str(op.n), state.due_ns))
        elif kind in ("spawn", "send", "cancel", "terminate"):
            options = codec.unpack(op.options) if op.options else {}
            state = OpState(
                op.n, kind, str(op.target), fingerprint(kind, str(op.target)), op.payload or b"", options, self.now_ns
            )
            self._add(state, op)
            effects.append(Perform(state))
        elif kind == "cancel_op":
            n = int(op.target)
            dropped = self.open.get(n)
            if dropped is not None and op.options:  # the code waits for the end
                dropped.stopping = True
                effects.append(Stop(dropped))
                return
            if dropped is not None:
                self._drop(dropped)
            effects.append(Abandon(n, dropped))
        elif kind == "mark":
            name, payload = f"version:{op.target}", op.payload or b""
            self._unrecorded[name] = payload
            effects.append(WriteMark(name, payload))
        elif kind == "attrs":
            values = codec.unpack(op.payload or b"\x80")
            if isinstance(values, Mapping):  # an empty Lua table arrives as an empty list
                self.attrs.update(values.get("search") or {})
                self.memo.update(values.get("memo") or {})
        elif kind == "log":
            effects.append(Log(str(op.target), op.payload or b"", op.options))
        elif kind == "end":
            effects += self._machine_ended(str(op.target), op.payload or b"", op.options)
        else:
            state = OpState(op.n, kind, str(op.target), "", issued_ns=self.now_ns)
            self._add(state, op)
            refused.append((state, Failure(f"{kind} is not possible in a workflow", Kind.INTERNAL, False)))

    def _add(self, state: OpState, op: Op) -> None:
        state.issued_seq = self.last_seq
        self.open[op.n] = state
        self.next_n = op.n + 1
        if state.kind == "call":
            self.calls += 1

    def _drop(self, op: OpState) -> None:
        if self.open.pop(op.n, None) is not None and op.kind == "call":
            self.calls -= 1
            self._options.pop(op.n, None)

    def _read_call_options(self, state: OpState, packed: bytes | None) -> None:
        defaults = self._call_defaults(state.target)
        if not packed and not defaults:
            return
        given = codec.unpack(packed) if packed else {}
        state.options = {**defaults, **given}
        self._options[state.n] = decode_call_options(state.options)

    def _call_options(self, op: OpState) -> CallOptions:
        return self._options.get(op.n, DEFAULT_CALL_OPTIONS)

    @staticmethod
    def retry_tick(op: OpState) -> str:
        """The name of the timer that ends the pause before an op's next attempt."""
        return f"{RETRY_TICK}{op.n}-{op.attempt}"

    def ret_subject(self, op: OpState, attempt: int = 0) -> str:
        """Where the outcome of an attempt (by default the present one) of an op is published."""
        return f"{self._ret_prefix}{op.n}.{attempt or op.attempt}.{op.fp}"

    def call_options(self, n: int) -> CallOptions:
        """The options of call n."""
        return self._options.get(n, DEFAULT_CALL_OPTIONS)

    def _machine_ended(self, verb: str, payload: bytes, options: bytes | None) -> list[Effect]:
        if verb == "ok":
            return self._finish("completed", payload)
        if verb == "fail":
            return self._code_failed(payload)
        if verb in ("raised", "doomed"):  # doomed: stopped by its limits
            # Nobody has returned this error: the code has a fault, and its author wants to know where.
            _, failure = codec.decode_outcome(payload)
            line = Log(
                "error",
                f"workflow failed: {failure}".encode("utf-8", "surrogateescape"),
                stack=failure.stack.partition("\n")[2],
            )
            return [line, *self._code_failed(payload)]
        wish = codec.unpack(options or b"\x80")
        request = codec.decode(payload)
        spec = replace(
            self.spec,
            workflow=wish["entry"],
            args=codec.pack(request[0]),
            messages=(
                *(wish.get("unread") or ()),
                *({"topic": topic, "body": body, "from": sender} for topic, body, sender in self._undelivered),
            ),
            attempt=1,
            start_delay_ns=0,
            chain_started_ns=self.spec.chain_started_ns or self.started_ns,
            since=self._given_up_to(),
            memo=self.memo,
            attrs=self.attrs,
        )
        return self._finish("continued", codec.NIL_OUTCOME, spec.encode())

    def _code_failed(self, payload: bytes) -> list[Effect]:
        _, failure = codec.decode_outcome(payload)
        delay_ns = self._retry_delay_ns(failure)
        if delay_ns is not None:
            spec = next_attempt(
                self.spec,
                delay_ns=delay_ns,
                chain_started_ns=self.spec.chain_started_ns or self.started_ns,
                since=self._given_up_to(),
            )
            return self._finish("retried", payload, spec.encode())
        return self._finish("canceled" if failure.kind == Kind.CANCELED else "failed", payload)

    def _given_up_to(self) -> int:
        """Up to which sequence this run has been given the messages; the later ones are the next run's."""
        if self.last_seq == self.run and self.spec.since:
            return self.spec.since  # in its first step: what its predecessor left comes after it
        return self.last_seq

    def retry_state(self, failure: Failure) -> RetryState:
        """Why this run, which ended with that failure, is not followed by another attempt (contract 11.7)."""
        if self.spec.retry_policy is None:
            return RetryState.NOT_SET
        try:
            state = decode_policy(self.spec.retry_policy).retry_state(self.spec.attempt, failure)
        except ValueError:
            return RetryState.NOT_SET
        # The policy would go on: what stands against it is the time for the whole chain.
        return RetryState.TIMEOUT if state is RetryState.IN_PROGRESS else state

    def _retry_delay_ns(self, failure: Failure) -> int | None:
        if self.spec.retry_policy is None:
            return None
        try:
            policy = decode_policy(self.spec.retry_policy)
        except ValueError:
            return None
        delay_ns = policy.next_delay_ns(self.spec.attempt, failure)
        if delay_ns is None:
            return None
        limit_ns = self.spec.execution_timeout_ns
        if limit_ns and self.now_ns + delay_ns >= (self.spec.chain_started_ns or self.started_ns) + limit_ns:
            return None
        return delay_ns

    def _finish(self, status: str, outcome: bytes, next_start: bytes = b"") -> list[Effect]:
        children = []
        if not next_start:
            for op in [*self.children.values(), *(op for op in self.open.values() if op.kind == "spawn")]:
                policy = (op.options.get("options") or {}).get("parent_close_policy", "terminate")
                if policy != "abandon":
                    children.append(ChildAtEnd(op, "kill" if policy == "terminate" else "cancel"))
        self.suspended = ""
        self.finished = Finish(EndRecord(status, outcome, next_start), tuple(children))
        self.close()
        return [self.finished]

    def _suspend(self, reason: str) -> list[Effect]:
        self.suspended = reason
        return [Suspend(reason)]

    def _count(self, event: Event) -> None:
        """Take notice of an event that the machine will see; its clock goes by these alone.

        Other events may be deleted from the history, so nothing the code sees may depend on them.
        """
        self.now_ns = max(self.now_ns, event.at_ns)
        self.length += 1
        self.size += len(event.data)

    # -- the engine's side -------------------------------------------------------------------------------------

    def outstanding(self) -> list[Effect]:
        """Everything that still lacks an outcome, as if it had just come up. For a run that was replayed."""
        if self.suspended:
            return [Suspend(self.suspended)]
        if self.closed:
            return []
        if self.finished is not None:
            return [self.finished]
        effects: list[Effect] = [
            WriteMark(name, payload) for name, payload in self._unrecorded.items() if name not in self.marks
        ]
        if self.deadline_ns:
            effects.append(SetTimer(TIMEOUT_TICK, self.deadline_ns))
        if self.delayed_until_ns:
            effects.append(SetTimer(DELAY_TICK, self.delayed_until_ns))
        for op in self.open.values():
            if op.kind == "timer":
                effects.append(SetTimer(str(op.n), op.due_ns))
            elif op.kind != "call":
                effects.append(Perform(op))
            elif op.stopping and op.due_ns:
                effects.append(Stop(op))
            elif op.failed_seq and op.due_ns:
                effects.append(RetryLater(op, op.due_ns, 0))
            else:
                effects.append(Dispatch(op))
        return effects

    def mark_recorded(self, name: str) -> None:
        """The engine has the acknowledgement of a mark."""
        self._unrecorded.pop(name, None)


def last_step(events: Sequence[Event]) -> int:
    """Index of the last event that is not part of a step itself; before it, `apply` is told that there is more.

    A mark comes out of the step before it: a run that was left between two marks of its newest step is still in that
    step, and still takes the newest version of the second one.
    """
    return max((i for i, event in enumerate(events) if event.kind not in ("mark", "claim", "monitor")), default=0)


def child_key(op: OpState) -> WorkflowKey | None:
    """Which workflow a spawn op started, as its outcome says; None when that is not known."""
    child = op.options.get("child")
    if isinstance(child, Mapping) and isinstance(child.get("queue"), str) and isinstance(child.get("id"), str):
        return WorkflowKey(child["queue"], child["id"])
    return None


def child_pid(op: OpState) -> str:
    """The PID of the child that a spawn op started."""
    child = op.options.get("child")
    return str(child.get("pid", "")) if isinstance(child, Mapping) else str(child or "")


def event_headers(event: Event) -> dict[str, str]:
    """The headers of an event, parsed when there are any."""
    if not event.raw_headers:
        return {}
    headers = {}
    for line in event.raw_headers.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            headers[name.decode("latin-1").strip()] = value.decode("utf-8", "replace").strip()
    return headers


def _needs_no_code(event: Event) -> bool:
    """Whether an event ends a run whatever its code is."""
    return event.kind == "kill" or (event.kind == "tick" and event.args[1] == TIMEOUT_TICK)


def _normal_outcome(data: bytes, event: Event) -> tuple[bytes, Failure | None]:
    """An outcome in our own form, whoever wrote it, and the failure it carries."""
    if event.raw_headers:
        headers = event_headers(event)
        code = headers.get("Nats-Service-Error-Code")
        if code is not None:
            text = headers.get("Nats-Service-Error") or f"service error {code}"
            failure = Failure(text, service_error_kind(code), None, {"code": code})
            return codec.encode_failure(failure), failure
    try:
        ok, value = codec.decode_outcome(data)
        if ok:
            return codec.encode_success(value), None
        return codec.encode_failure(value), value
    except ValueError as error:  # Undecodable, or nested so deep that it can be read but not be written
        failure = codec.undecodable_failure("outcome", error)
        return codec.encode_failure(failure), failure


def service_error_kind(code: str) -> str:
    """The kind of error behind a micro service's numeric code, which services take from HTTP (ADR-32)."""
    return {
        "400": Kind.INVALID, "401": Kind.PERMISSION_DENIED, "403": Kind.PERMISSION_DENIED, "404": Kind.NOT_FOUND,
        "408": Kind.TIMEOUT, "409": Kind.CONFLICT, "422": Kind.INVALID, "429": Kind.RATE_LIMITED,
        "503": Kind.UNAVAILABLE, "504": Kind.TIMEOUT,
    }.get(code, Kind.INTERNAL)  # fmt: skip


def _final_failure(failure: Failure, op: OpState, name: str, state: RetryState) -> bytes:
    details = {
        **failure.details,
        "_wrapper": "activity",
        "_activity_id": name or str(op.n),
        "_activity_type": op.target,
        "_attempt": op.attempt,
        "_retry_state": str(state),
    }
    return codec.encode_failure(replace(failure, details=details))


def _lua_text(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


_HANDLERS: Final[dict[str, Callable[[Run, Event, bool], list[Effect]]]] = {
    "start": Run._on_start,
    "ret": Run._on_ret,
    "claim": Run._on_claim,
    "tick": Run._on_tick,
    "exit": Run._on_exit,
    "signal": Run._on_signal,
    "cancel": Run._on_cancel,
    "kill": Run._on_kill,
}

__all__ = [
    "RETRY_TICK",
    "CallOptions",
    "Run",
    "child_key",
    "child_pid",
    "decode_call_options",
    "event_headers",
    "last_step",
    "service_error_kind",
]
