"""Workflows told as stories: Lua source in, events one after the other, what the run asks for as short texts.

    flow = Flow("return function(x) return funcs.call('a:double', x) end", args=[21])
    flow.start()            # ["call 1 a:double"]
    flow.ok(1, 42)          # ["end completed 42"]

A `Flow` keeps the history it was told, numbered as a stream would, so it can be replayed in a fresh VM: `flow.replay()`.
Not here: a server, a clock, an engine. What the engine does with effects is not followed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from mesh import codec
from mesh.duration import MILLISECOND
from mesh.events import HEADER_FROM, HEADER_ONCE, Event, StartSpec, decode_start, parse
from mesh.failure import Failure
from mesh.subjects import WorkflowKey, token
from node.machine.vm import LuaVM, Machine, UnitIdentity, UnitSpec
from node.workflows.attempts import VERDICT_MARK
from node.workflows.ops import (
    Abandon,
    Dispatch,
    Effect,
    Finish,
    Ignore,
    Log,
    Perform,
    RetryLater,
    SetTimer,
    Stop,
    Suspend,
    WriteAttrs,
    WriteMark,
)
from node.workflows.replaying import last_step, recorded_marks
from node.workflows.run import Run

T0_NS: Final = 1_700_000_000_000_000_000
RUN: Final = 100  # sequence of the start, which is the run's id
MODULES: Final = ("time", "funcs", "uuid", "workflow", "json", "ctx", "errors", "payload", "base64")
PID: Final = "{app:client@app:worker|w-1}"


class Flow:
    """One run with its history."""

    def __init__(
        self,
        source: str,
        *,
        args: Sequence[Any] = (),
        spec: StartSpec | None = None,
        marks: Mapping[str, Any] | None = None,
        vm: LuaVM | None = None,
        defaults: Mapping[str, Mapping[str, Any]] | None = None,
        modules: tuple[str, ...] = MODULES,
        workflow_id: str = "w-1",
        run: int = RUN,
    ) -> None:
        self.source = source
        spec = spec or StartSpec(workflow="app:flow", entropy=b"entropy")
        if args:
            spec = replace(spec, args=codec.pack(list(args)))
        self.spec = decode_start(spec.encode(), {})
        self.key = WorkflowKey("orders", workflow_id)
        self.vm = vm or LuaVM()
        self.marks = dict(marks or {})
        self.defaults = dict(defaults or {})
        self.modules = modules
        self.seq = run
        self.now_ns = T0_NS
        self.events: list[Event] = []
        self.steps: list[list[str]] = []
        self.effects: list[Effect] = []
        self.prints: dict[int, tuple[str, ...]] = {}  # op -> fingerprint, as a host would echo it
        self.run = Run(
            self.key,
            run,
            self.spec,
            # Nothing of ourselves: a flow and its VM go with the test, and not when Python next looks for cycles.
            open_machine=partial(_opened, self.vm, source, modules),
            call_defaults=partial(_options, self.defaults),
            marks=self.marks,
            id_token=token(workflow_id),
        )

    # -- events, as they would be stored ---------------------------------------------------------------------

    def event(
        self, *kind: str, data: bytes = b"", headers: Mapping[str, str] | None = None, after_ms: float = 0.0
    ) -> list[str]:
        """Store an event under the next sequence number and apply it; the effects as texts."""
        self.now_ns += round(after_ms * MILLISECOND)
        raw = None
        if headers:
            raw = b"NATS/1.0\r\n" + b"".join(f"{k}: {v}\r\n".encode() for k, v in headers.items()) + b"\r\n"
        event = parse(self.key.stored(3, *kind), self.seq, self.now_ns, data, raw)
        self.seq += 1
        if event is None:
            return []
        return self.apply(event)

    def apply(self, event: Event, *, more: bool = False) -> list[str]:
        """Apply an event as it is."""
        self.events.append(event)
        effects = self.run.apply(event, more=more)
        self.effects = effects
        for effect in effects:
            if isinstance(effect, Dispatch | Perform):
                self.prints[effect.op.n] = (effect.op.fp, effect.op.seen)
        texts = _told(effects)
        self.steps.append(texts)
        return texts

    def start(self) -> list[str]:
        return self.event("start", data=self.spec.encode())

    def ret(
        self, n: int, data: bytes, *, attempt: int = 1, fp: str | None = None, run: int | None = None,
        headers: Mapping[str, str] | None = None, after_ms: float = 0.0,
    ) -> list[str]:  # fmt: skip
        """An outcome of op n, bytes as they are."""
        echoed = self.prints.get(n, ("0000000000",)) if fp is None else (fp,)
        return self.event(
            "ret", str(self.run.run if run is None else run), str(n), str(attempt), *echoed,
            data=data, headers=headers, after_ms=after_ms,
        )  # fmt: skip

    def ok(self, n: int, value: Any = None, **options: Any) -> list[str]:
        return self.ret(n, codec.encode_success(value), **options)

    def fails(self, n: int, failure: Failure | str, **options: Any) -> list[str]:
        if isinstance(failure, str):
            failure = Failure(failure)
        return self.ret(n, codec.encode_failure(failure), **options)

    def tick(self, name: int | str, *, run: int | None = None, after_ms: float = 0.0) -> list[str]:
        return self.event("tick", str(self.run.run if run is None else run), str(name), after_ms=after_ms)

    def exit(self, n: int, outcome: Any = None, *, run: int | None = None, pid: str = "{c@w|child}") -> list[str]:
        data = codec.encode_failure(outcome) if isinstance(outcome, Failure) else codec.encode_success(outcome)
        return self.event(
            "exit", str(self.run.run if run is None else run), str(n), data=data, headers={HEADER_FROM: pid}
        )

    def signal(
        self, topic: str, body: Any = None, *, raw: bytes | None = None, sender: str = "", once: str = "",
        after_ms: float = 0.0,
    ) -> list[str]:  # fmt: skip
        headers = {name: value for name, value in ((HEADER_FROM, sender), (HEADER_ONCE, once)) if value}
        data = codec.encode(body) if raw is None else raw
        return self.event("signal", token(topic), data=data, headers=headers, after_ms=after_ms)

    @property
    def verdicts(self) -> list[str]:
        """What the last event has had decided about failed attempts, to be recorded."""
        return [told(effect) for effect in self.effects if _is_verdict(effect)]

    def record_marks(self) -> None:
        """Record the marks of the last event, as the engine does before anything that follows from it."""
        for effect in self.effects:
            if isinstance(effect, WriteMark):
                self.event("mark", str(self.run.run), token(effect.name), data=effect.payload)
                self.run.mark_recorded(effect.name)

    # -- replay ----------------------------------------------------------------------------------------------

    def replay(
        self, *, events: Iterable[Event] | None = None, marks: Mapping[str, Any] | None = None,
        source: str | None = None, vm: LuaVM | None = None, defaults: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Flow:  # fmt: skip
        """The same history (or these events of it) applied to a fresh machine in a fresh VM, as a new owner does.

        defaults: what the registry says of functions by now.
        """
        history = list(self.events if events is None else events)
        recorded = recorded_marks(self.run.run, history) | self.marks
        again = Flow(
            source or self.source, spec=self.spec, marks=recorded if marks is None else marks,
            defaults=self.defaults if defaults is None else defaults,
            modules=self.modules, workflow_id=self.key.id, run=self.run.run, vm=vm,
        )  # fmt: skip
        last = last_step(history, self.run.run)
        for i, event in enumerate(history):
            again.apply(event, more=i < last)
        return again

    def outstanding(self) -> list[str]:
        """What still lacks an outcome, as texts."""
        return _told(self.run.outstanding())

    @property
    def result(self) -> Any:
        """What the run ended with: a value or a Failure."""
        assert self.run.finished is not None, self.run.suspended or "the run has not ended"
        return self.run.finished.record.value()


def _opened(vm: LuaVM, source: str, modules: tuple[str, ...], run: Run) -> Machine:
    name = f"flow {abs(hash(source))}"
    problem = vm.compile(name, source, "flow.lua")
    if problem is not None:
        raise SyntaxError(problem)
    return vm.open(
        UnitSpec(kind="workflow", entry_id="app:flow", code=name, modules=modules),
        UnitIdentity(
            pid=PID,
            seed=b"seed",
            info={"workflow_id": run.key.id, "run_id": str(run.run), "worker": "app:worker"},
            context=dict(run.spec.context),
            marks={mark.removeprefix("version:"): value for mark, value in run.marks.items()},
        ),
    )


def _options(defaults: Mapping[str, Mapping[str, Any]], function: str) -> Mapping[str, Any]:
    return defaults.get(function, {})


def run_lua(source: str, *args: Any, vm: LuaVM | None = None, **options: Any) -> Any:
    """Run a workflow that ends in its first step; its result, or the Failure it ended with."""
    flow = Flow(source, args=args, vm=vm, **options)
    flow.start()
    return flow.result


def _told(effects: Sequence[Effect]) -> list[str]:
    """Effects as short texts, but that what becomes of each failed attempt is recorded: `Flow.verdicts` has that."""
    return [told(effect) for effect in effects if not _is_verdict(effect)]


def _is_verdict(effect: Effect) -> bool:
    return isinstance(effect, WriteMark) and effect.name.startswith(VERDICT_MARK)


def told(effect: Effect) -> str:
    """An effect as a short text."""
    match effect:
        case Dispatch(op):
            return f"call {op.n} {op.target}" + (f" attempt {op.attempt}" if op.attempt > 1 else "")
        case RetryLater(op, due_ns, drop):
            text = f"retry {op.n} {op.target} attempt {op.attempt} at +{(due_ns - T0_NS) / 1e6:g}ms"
            dropping = " dropping " + " and ".join(str(seq) for seq in drop) if drop else ""
            return text + dropping + (" durably" if op.durable else "")
        case SetTimer(name, due_ns):
            return f"timer {name} +{(due_ns - T0_NS) / 1e6:g}ms"
        case Abandon(n, op):
            return f"abandon {n} {op.kind if op else '-'}"
        case Stop(op):
            return f"stop {op.n} {op.target}"
        case Perform(op):
            return f"{op.kind} {op.n} {op.target}"
        case WriteMark(name, payload):
            return f"mark {name} {codec.decode(payload)}"
        case WriteAttrs():
            return "attrs"
        case Finish(record, children):
            outcome = record.value() if record.status not in ("continued", "retried") else ""
            text = f"end {record.status} {outcome}".rstrip()
            return text + "".join(f" {child.verb} {child.op.n}" for child in children)
        case Suspend(reason):
            return f"suspend {reason}"
        case Ignore(reason):
            return f"ignore {reason}"
        case Log(level, payload):
            return f"{level} {payload.decode('utf-8', 'replace')}"
