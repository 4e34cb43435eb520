"""A scenario: workflow programs and what happens around them. Running one gives a recording of all its runs.

Running is a simulation in virtual time (`node.testing`): what is decided is the engine's own code. A recording has, for
every run, the events in the order in which it took them, and what the run came to by each: the ops it asked for, where
it stood, and its end. `tests.fuzz.replays` compares all of it with what another process makes of the same events.

Both are plain data with a form in JSON, so that a failure can be kept in a file and looked at again.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from mesh import codec
from mesh.events import Event
from mesh.failure import Kind
from node.registry import Registry
from node.registry.entries import Entry, EntryId
from node.registry.loader import Reading
from node.testing import NeverEnds, Simulation, answer, fail, lost
from node.testing.standing import position
from node.workflows.ops import Effect, OpState, RetryLater, WriteMark
from node.workflows.run import Run

SECONDS: Final = 90  # of virtual time; what is not over by then is left as it is
MODULES: Final = ("funcs", "time", "uuid", "workflow", "json", "ctx", "errors", "payload", "base64", "hash", "crypto")
_RAN_AWAY: Final = b"in one step without waiting"
_FILE: Final = Path("fuzz.yaml")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attempt of a function comes to: answer, fail, final (not to be tried again), lost."""

    kind: str
    value: Any
    after_ms: int

    def made(self) -> Any:
        """As a simulation takes it."""
        after = self.after_ms / 1000
        if self.kind == "answer":
            return answer(self.value, after=after)
        if self.kind == "lost":
            return lost(after=after)
        return fail(
            f"failed {self.value!r}", kind=Kind.CONFLICT, retryable=False if self.kind == "final" else None, details={"b": 1, "a": 2},
            after=after,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Happening:
    """A signal under a topic, cancel or terminate, so long after the start."""

    at_ms: int
    kind: str
    value: Any


@dataclass(frozen=True, slots=True)
class Scenario:
    """Programs by name (`main` is started), what functions come to, what happens from outside."""

    workflows: Mapping[str, str]
    functions: Mapping[str, Sequence[Outcome]]
    happenings: Sequence[Happening] = ()
    seed: int = 0
    start_delay_ms: int = 0
    attempts: int = 0
    run_timeout_ms: int = 0

    def registry(self) -> Registry:
        """The app with these programs."""
        return registry_of(self.workflows, self.functions)


@dataclass(slots=True)
class RunRecording:
    """One run as it was: its events and, for each, the ops that came up in it and where the run stood afterwards.

    now_ns: what the clock showed then. dropped: failed attempts that were deleted from the history, by their sequence:
    the number of the event that let them go, from 0. marked: the decisions that were recorded, by name: the number of
    the event after which that was done. end: the status and the outcome it ended with.
    """

    queue: str
    id: str
    run: int
    events: list[Event] = field(default_factory=list)
    asked: list[list[list[Any]]] = field(default_factory=list)
    stood: list[list[str]] = field(default_factory=list)
    now_ns: list[int] = field(default_factory=list)
    dropped: dict[int, int] = field(default_factory=dict)
    marked: dict[str, int] = field(default_factory=dict)
    end: list[Any] | None = None


@dataclass(slots=True)
class Recording:
    """What came of a scenario. going: it went on and on, and was left to."""

    scenario: Scenario
    runs: list[RunRecording]
    going: bool = False

    @property
    def ran_away(self) -> bool:
        """Whether a run was ended by its budget: in which line that happens is not promised to be the same."""
        return any(run.end is not None and _RAN_AWAY in run.end[1] for run in self.runs)

    def to_json(self) -> dict[str, Any]:
        """As it stands in a file."""
        return {"scenario": _plain(asdict(self.scenario)), "runs": [_plain(asdict(run)) for run in self.runs]}

    def to_wire(self) -> bytes:
        """As another process gets it."""
        return codec.pack(self.to_json())


def registry_of(workflows: Mapping[str, str], functions: Mapping[str, Any]) -> Registry:
    """An app in memory: a worker, these workflows, these functions."""
    entries = [
        _entry("client", "mesh.client", {"address": "nats://127.0.0.1:4222"}),
        _entry("worker", "mesh.worker", {"client": "app:client", "task_queue": "orders"}),
    ]
    for name, source in workflows.items():
        data = {"source": source, "method": "main", "modules": list(MODULES)}
        entries.append(_entry(name, "workflow.lua", data, {"mesh.workflow.worker": "app:worker"}))
    for name in functions:
        # It is never run: a scenario says what it comes to.
        entries.append(_entry(name, "function.lua", {"source": "return function() end", "method": "main"}))
    registry = Registry(Reading({entry.id: entry for entry in entries}), {})
    if registry.problems:
        raise AssertionError(f"the app of a scenario is not sound: {registry.problems}")
    return registry


def run_scenario(scenario: Scenario) -> Recording:
    """Run the programs of a scenario and record all of their runs."""
    recorder = _Recorder()
    sim = Simulation(scenario.registry(), seed=scenario.seed, watch=recorder.watch)
    recorder.sim = sim
    for name, outcomes in scenario.functions.items():
        sim.function(f"app:{name}", [outcome.made() for outcome in outcomes])
    going = False
    try:
        policy = {"maximum_attempts": scenario.attempts, "initial_interval": "50ms"} if scenario.attempts else None
        main = sim.start(
            "app:main", 0, id="main", context={"k": "context"}, messages=[("s1", "startup")], start_delay_s=scenario.start_delay_ms / 1000,
            run_timeout_s=scenario.run_timeout_ms / 1000, retry_policy=policy,
        )  # fmt: skip
        for happening in sorted(scenario.happenings, key=lambda each: each.at_ms):
            at = max(happening.at_ms / 1000, sim.elapsed_s)
            if happening.kind == "cancel":
                main.cancel(at=at)
            elif happening.kind == "terminate":
                main.terminate(at=at)
            else:
                main.signal(happening.kind, happening.value, at=at, sender="{test|sender}")
        sim.advance(SECONDS)
    except NeverEnds:
        going = True
    return Recording(scenario, list(recorder.runs.values()), going)


class _Recorder:
    """Notes what every run comes to by every event."""

    def __init__(self) -> None:
        self.runs: dict[tuple[str, str, int], RunRecording] = {}
        self.sim: Simulation | None = None

    def watch(self, run: Run, event: Event, effects: Sequence[Effect], asked: Sequence[OpState]) -> None:
        place = (run.key.queue, run.key.id, run.run)
        recording = self.runs.get(place)
        if recording is None:
            recording = self.runs[place] = RunRecording(*place)
        # At the time of the event: nothing passes until what follows from it is carried out.
        now_ns = event.at_ns
        recording.events.append(event)
        recording.asked.append(asked_for(asked))
        recording.stood.append(where(run, now_ns))
        recording.now_ns.append(now_ns)
        for effect in effects:
            if isinstance(effect, RetryLater):
                recording.dropped |= dict.fromkeys(effect.drop, len(recording.events) - 1)
            elif isinstance(effect, WriteMark):
                recording.marked[effect.name] = len(recording.events) - 1
        recording.end = how_ended(run)


def asked_for(ops: Sequence[OpState]) -> list[list[Any]]:
    """Ops as they are compared: number, kind, target, fingerprint, the bytes of the arguments, options, when due."""
    return [
        [
            op.n,
            op.kind,
            op.target,
            op.fp,
            op.payload,
            codec.pack(dict(op.options)),
            op.due_ns if op.kind == "timer" else 0,
        ]
        for op in ops
    ]


def where(run: Run, now_ns: int) -> list[str]:
    """Where a run stands. That a version is recorded is the engine's to see; which one it is, the program says."""
    return [text for text in position(run, now_ns) if not text.startswith("mark ")]


def how_ended(run: Run) -> list[Any] | None:
    """How a run has ended: the status, and the bytes of its outcome and of the start that follows."""
    if run.finished is None:
        return ["suspended", run.suspended.encode(), b""] if run.suspended else None
    record = run.finished.record
    return [record.status, record.outcome, record.next_start]


# -- as files ---------------------------------------------------------------------------------------------------------


def recording_from_json(given: Mapping[str, Any]) -> Recording:
    """Read what `Recording.to_json` gives."""
    read = _real(dict(given))
    scenario = read["scenario"]
    scenario["functions"] = {
        name: [Outcome(**each) for each in outcomes] for name, outcomes in scenario["functions"].items()
    }
    scenario["happenings"] = [Happening(**each) for each in scenario["happenings"]]
    runs = []
    for each in read["runs"]:
        each["events"] = [Event(*event) for event in each["events"]]
        each["dropped"] = {int(seq): number for seq, number in each["dropped"].items()}
        runs.append(RunRecording(**each))
    return Recording(Scenario(**scenario), runs)


def recording_from_wire(data: bytes) -> Recording:
    """Read what `Recording.to_wire` gives."""
    return recording_from_json(codec.unpack(data))


_BYTES: Final = "base64:"


def _plain(value: Any) -> Any:
    """The same with bytes as texts."""
    if isinstance(value, bytes):
        return _BYTES + base64.b64encode(value).decode("ascii")
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _real(value: Any) -> Any:
    if isinstance(value, str):
        return base64.b64decode(value.removeprefix(_BYTES)) if value.startswith(_BYTES) else value
    if isinstance(value, dict):
        return {key: _real(item) for key, item in value.items()}
    return [_real(item) for item in value] if isinstance(value, list) else value


def _entry(name: str, kind: str, data: dict[str, Any], meta: Mapping[str, Any] | None = None) -> Entry:
    return Entry(EntryId(f"app:{name}"), "app", name, kind, meta or {}, data, _FILE, 1, Path())
