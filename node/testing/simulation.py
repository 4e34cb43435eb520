"""A mesh in one process and without a server, for tests of workflows: time passes when a test says so."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, Final

from mesh import codec
from mesh.client import FunctionFailed
from mesh.duration import SECOND
from mesh.events import StartSpec
from mesh.failure import HOST_LOST, Failure
from mesh.history_files import RecordedHistory, dump_history, new_history_file
from mesh.pids import ProcessPid
from mesh.starting import ENTROPY_BYTES, AlreadyStarted, ConflictPolicy, ReusePolicy
from mesh.subjects import WorkflowKey
from node.machine.vm import Op
from node.registry import Registry
from node.testing.agenda import Agenda
from node.testing.app import App
from node.testing.engine import Engine, Watch
from node.testing.errors import SimulationError, StillWaiting, UnknownName
from node.testing.functions import Functions, Running
from node.testing.lua_functions import LuaFunctions
from node.testing.outcomes import duration_ns
from node.testing.records import Call, LogLine, Process
from node.testing.workflow import Workflow
from node.unit_logs import log_line

BEGINNING: Final = "2026-01-01T00:00:00Z"
SEED: Final = "moonmesh"
_HOST_LOST: Final = Failure("the host that ran the call is gone", HOST_LOST, True)


class Simulation:
    """A mesh with the workflows of an app, a virtual clock, and nothing outside.

        sim = Simulation("examples/orders")
        sim.function("app.inventory:reserve", fail("sold out", kind="Conflict", retryable=False))
        order = sim.start("app.workflows:order_saga", {"id": "o-1"})
        assert order.result()["state"] == "compensated"

    app: the directory of a registry, or a registry. seed: from which all that is random follows.
    now: when it begins, in UTC unless it says otherwise.
    replay_after_every_event: throw a run away after each of its events and go on with one that was replayed from its
    history in a fresh VM; raise ReplayDiffers where that one does not stand where the other stood.
    watch: is told of every step of every run, before what follows from it is carried out.
    """

    def __init__(
        self,
        app: str | Path | Registry,
        *,
        seed: str | int = SEED,
        now: str | datetime = BEGINNING,
        replay_after_every_event: bool = False,
        watch: Watch | None = None,
    ) -> None:
        self.logs: list[LogLine] = []
        self._seed = str(seed)
        self._numbers = count(1)
        self._app = App.load(app)
        self._agenda = Agenda(_unix_ns(now))
        chance = Random(f"{seed}")  # noqa: S311 - a test wants the same again
        self._functions = Functions(self._app, self._agenda, self._run_lua)
        self._engine = Engine(
            self._app,
            self._agenda,
            self._functions,
            log=self._log,
            entropy=self._entropy,
            live=lambda pid: self._lua.live.get(pid),
            recheck=replay_after_every_event,
            watch=watch,
        )
        self._lua = LuaFunctions(self._app, self._agenda, chance, self._log, self._tell)

    # -- time --------------------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """What the virtual clock shows, in UTC, to the microsecond."""
        return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=self._agenda.now_ns // 1000)

    @property
    def elapsed_s(self) -> float:
        """Virtual seconds since the beginning."""
        return self._agenda.elapsed_s

    def advance(self, duration: str | float) -> None:
        """Let so much time pass, Go text or seconds, with all that happens in it."""
        until_ns = self._agenda.now_ns + duration_ns(duration)
        self._engine.run_until(until_ns)
        self._agenda.now_ns = max(self._agenda.now_ns, until_ns)

    def run_until(self, condition: Callable[[], object]) -> None:
        """Let time pass until a condition holds; it is looked at after everything that happens. Raises StillWaiting."""
        if not self._engine.run_until(None, lambda: bool(condition())):
            waiting = [text for instance in self._engine.instances.values() for text in self._engine.waiting(instance)]
            told = "\n".join(waiting) or "no workflow is running"
            raise StillWaiting(f"the condition does not come true, and nothing else is going to happen:\n{told}")

    def run(self) -> None:
        """Let time pass until nothing is going to happen by itself any more."""
        self._engine.run_until(None)

    # -- workflows ---------------------------------------------------------------------------------------------

    def start(
        self,
        workflow: str,
        *args: Any,
        id: str | None = None,
        host: str | None = None,
        conflict: ConflictPolicy | None = None,
        reuse: ReusePolicy = "allow_duplicate",
        messages: Sequence[tuple[str, Any]] = (),
        context: Mapping[str, Any] | None = None,
        run_timeout_s: float = 0.0,
        execution_timeout_s: float = 0.0,
        start_delay_s: float = 0.0,
        retry_policy: Mapping[str, Any] | None = None,
        memo: Mapping[str, Any] | None = None,
        search_attributes: Mapping[str, Any] | None = None,
    ) -> Workflow:
        """Start a workflow and let everything happen that happens at once; as `mesh.client.Client.start`.

        host: its worker, by default the one that its entry names. Raises UnknownName, UnknownHost, AlreadyStarted.
        """
        record = self._app.host_for(workflow, host)
        name = id if id is not None else f"{workflow.rpartition(':')[2]}-{next(self._numbers)}"
        key = WorkflowKey(record.queue, name)
        spec = StartSpec(
            workflow=workflow,
            args=codec.pack(list(args)),
            host=record.worker,
            client=record.client,
            context=context or {},
            entropy=self._entropy(),
            messages=tuple({"topic": topic, "body": codec.encode(value), "from": ""} for topic, value in messages),
            run_timeout_ns=round(run_timeout_s * SECOND),
            execution_timeout_ns=round(execution_timeout_s * SECOND),
            start_delay_ns=round(start_delay_s * SECOND),
            retry_policy=retry_policy,
            memo=memo or {},
            attrs=search_attributes or {},
        )
        came: list[int | AlreadyStarted] = []
        before = self._engine.instances.get(key)
        ran = before is not None and before.is_running
        policy = conflict or ("fail" if id is None else "use_existing")
        self._engine.others.start(key, spec, policy, reuse, "", came.append)
        self._engine.run_until(self._agenda.now_ns)
        run = came[0]
        if isinstance(run, AlreadyStarted):
            raise run
        return Workflow(self._engine, self._engine.instances[key], run, existing=ran and policy == "use_existing")

    def workflow(self, id: str, *, queue: str | None = None) -> Workflow:
        """A workflow that somebody else started, such as a child. Raises UnknownName."""
        found = [w for w in self.workflows() if w.id == id and queue in (None, w.key.queue)]
        if not found:
            raise UnknownName("workflow with the id", id, {w.id for w in self.workflows()})
        if len(found) > 1:
            queues = ", ".join(w.key.queue for w in found)
            raise SimulationError(f"workflow {id!r} is on several queues ({queues}); say which with queue=")
        return found[0]

    def workflows(self) -> list[Workflow]:
        """All workflows that were started, in the order of their first start."""
        return [
            Workflow(self._engine, instance, instance.runs[-1].id)
            for instance in self._engine.instances.values()
            if instance.runs
        ]

    def history(self, id: str) -> RecordedHistory:
        """The history of the newest run of a workflow. Raises UnknownName."""
        return self.workflow(id).history()

    def export(self, path: str | Path) -> None:
        """Write the histories of all runs of all workflows to a file, as `mesh export` does."""
        with new_history_file(Path(path)) as file:
            for instance in self._engine.instances.values():
                for record in instance.runs:
                    history = self._engine.history(instance, record.id)
                    dump_history(file, history.header, history.events)

    def deploy(self, app: str | Path | Registry) -> None:
        """Put other code in the place of the app's: every open workflow goes on with it, or is suspended."""
        self._app = App.load(app)
        self._functions.app = self._app
        self._lua.use(self._app)
        self._engine.deploy(self._app)
        self._engine.run_until(self._agenda.now_ns)

    # -- what is around them -----------------------------------------------------------------------------------

    def function(self, function_id: str, what: Any, *, after: str | float = 0, elsewhere: bool = False) -> None:
        """Put something in the place of a function, from its next call on.

        what: a callable that gets the arguments, or is raised from; a value that is answered; an outcome made by
        `answer`, `fail`, `lost`, `hang`; an exception; Lua source as a text; or a list of these for successive
        attempts, of which the last one stays.
        after: how long every call takes. elsewhere: another app offers the function. Raises UnknownName.
        """
        self._functions.replace(function_id, what, duration_ns(after), elsewhere=elsewhere)

    def call(self, function_id: str, *args: Any) -> Any:
        """Call a function and let time pass until it answers. Raises FunctionFailed, StillWaiting, UnknownName."""
        outcomes: list[bytes] = []
        request = codec.encode([list(args), None])
        lost = lambda: outcomes.append(codec.encode_failure(_HOST_LOST))  # noqa: E731
        self._functions.begin(function_id, request, outcomes.append, lost, attempt=1, caller="")
        if not self._engine.run_until(None, lambda: bool(outcomes)):
            raise StillWaiting(f"{function_id} does not answer, and nothing else is going to happen")
        ok, value = codec.decode_outcome(outcomes[0])
        if not ok:
            raise FunctionFailed(function_id, value)
        return value

    def calls(self, function_id: str) -> list[Call]:
        """All attempts of a function so far, by whomever. Raises UnknownName."""
        return self._functions.of(function_id)

    def process(self, name: str) -> Process:
        """Somebody with a registered name whom workflows can send messages to."""
        if name not in self._engine.others.processes:
            pid = ProcessPid("simulation", "test:processes", f"0x0000000100000{len(self._engine.others.processes):03x}")
            self._engine.others.processes[name] = Process(name, str(pid))
        return self._engine.others.processes[name]

    def _entropy(self) -> bytes:
        text = f"{self._seed}/{next(self._numbers)}"
        return hashlib.blake2b(text.encode(), digest_size=ENTROPY_BYTES).digest()

    def _run_lua(self, call: Call, request: bytes, source: str | None, running: Running) -> Running:
        return self._lua.run(self._functions, call, request, source, running)

    def _tell(self, pid: str, entry_id: str, op: Op, done: Callable[[bytes], None]) -> None:
        self._engine.others.from_function(pid, entry_id, op, done)

    def _log(self, source: str, level: str, text: bytes, options: bytes | None) -> None:
        self.logs.append(LogLine(level, text.decode("utf-8", "replace"), self._agenda.elapsed_s, source))
        log_line(level, text, options, source=source)


def _unix_ns(now: str | datetime) -> int:
    try:
        when = datetime.fromisoformat(now) if isinstance(now, str) else now
    except ValueError as error:
        raise SimulationError(f"now={now!r} is no time; write it as in {BEGINNING}") from error
    passed = (when if when.tzinfo is not None else when.replace(tzinfo=UTC)) - datetime.fromtimestamp(0, UTC)
    return (passed.days * 86_400 + passed.seconds) * SECOND + passed.microseconds * 1000
