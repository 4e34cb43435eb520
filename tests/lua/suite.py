"""Runs the behaviours: each file is one pytest item per mode, on real nodes that are started once per session.

    [one node]       one node runs everything; the behaviour is called as a function or started as a workflow
    [two nodes]      node `callers` runs the behaviours, node `hosts` the hosts, functions and workers they use
    [owner killed]   a workflow on several equal nodes: its owner is killed when half of its events are stored

A mode is a `Stage`. Stages live in an event loop of their own, in a thread, from the first item that needs one to the
end of the session; items are plain functions that ask them. Behaviours whose owner is killed run several at a time, as a
takeover takes a moment: the first item of that mode runs those of all selected items, the others look theirs up.
"""

from __future__ import annotations

import re
import signal
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final, NoReturn

import anyio
import anyio.abc
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

import mesh.client
from mesh.client import Client, FunctionFailed, WorkflowFailed
from mesh.errors import RequestTimeout
from mesh.failure import Failure
from mesh.groups import unwrapped
from tests.cluster import NodeProcess, a_node
from tests.lua.behaviour import (
    BEHAVIOURS,
    NAMESPACE,
    QUEUE,
    WORKER,
    BadBehaviour,
    Behaviour,
    behaviour_files,
    read_behaviour,
    write_suite_app,
)
from tests.recovery import Fleet, Seen, a_fleet
from tests.servers import ServerProcess
from tests.waiting import wait_until
from tests.web_server import WebServer, a_web_server

ONE_NODE: Final = "one node"
AS_PROCESS: Final = "as process"
TWO_NODES: Final = "two nodes"
OWNER_KILLED: Final = "owner killed"

WEB_SERVER: Final = "LUA_SUITE_WEB_SERVER"  # the variable that tells nodes where the suite's web server is

TIMEOUT_S: Final = 30.0  # of one behaviour; those that wait give up much earlier, with a better text
KILLED_TIMEOUT_S: Final = 60.0
# The first item of a mode waits for its nodes, and the first of those with a kill for the others of its kind.
ITEM_TIMEOUT_S: Final = 600.0
# Several start at once, each with all behaviours, and hundreds of items have nothing without them.
START_TIMEOUT_S: Final = 240.0
CLOSE_TIMEOUT_S: Final = 30.0
AT_ONCE: Final = 3  # kills under way at the same time
NODES: Final = 5  # of which so many are killed at the same time, and at least one is left
ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a behaviour came to: `text` is "" when all is as the rule says, else what a person has to read."""

    text: str = ""

    @classmethod
    def of(cls, failure: Failure) -> Outcome:
        """The outcome of a failure, with the places in the behaviour's file."""
        return cls(
            failure.stack if failure.stack and failure.message in failure.stack else f"{failure}\n{failure.stack}"
        )


class StageFailed(Exception):
    """Raised when the nodes of a mode cannot be started. Not pytest's own: that would end the loop of all stages."""


class SuiteFailure(Exception):
    """Raised by an item whose behaviour is not as its rule says."""


class Stage:
    """A mesh that behaviours run on: the client that starts them, and the nodes."""

    def __init__(self, client: Client, nodes: Sequence[NodeProcess]) -> None:
        self._client = client
        self._nodes = nodes
        self._number = count(1)
        self.over = anyio.Event()

    async def run(self, behaviour: Behaviour, entry_id: str) -> Outcome:
        """Run a behaviour once, by one of its entries."""
        try:
            if behaviour.form == "workflow":
                await run_workflow(self._client, behaviour, f"{behaviour.file.stem}-{next(self._number)}", TIMEOUT_S)
            else:
                await self._client.call(entry_id, timeout_s=TIMEOUT_S)
        except (FunctionFailed, WorkflowFailed) as error:
            return Outcome.of(error.failure)
        except RequestTimeout:
            return Outcome(f"it has not ended within {TIMEOUT_S:g} s")
        return Outcome()

    def logs(self) -> dict[str, str]:
        """What each node has written so far."""
        return {node.id: node.log() for node in self._nodes}


async def run_workflow(client: Client, behaviour: Behaviour, workflow_id: str, timeout_s: float) -> None:
    """Run a behaviour as a workflow. Raises WorkflowFailed, RequestTimeout."""
    handle = await client.start(behaviour.id, host=WORKER, id=workflow_id, conflict="fail")
    await handle.result(timeout_s=timeout_s)


async def run_stage(
    url: str,
    app: Path,
    nodes: dict[str, tuple[str, ...]],
    environ: Mapping[str, str],
    *,
    task_status: anyio.abc.TaskStatus[Stage] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Run these nodes, each with these options of `mesh node`, until the stage is over. environ: more variables.

    Raises StageFailed.
    """
    async with AsyncExitStack() as stack:
        running = []
        for name, options in nodes.items():
            arguments = ("--log-format", "text", *options)
            node = a_node(app, url, node_id=name, arguments=arguments, environ=environ, start_timeout_s=START_TIMEOUT_S)
            try:
                running.append(await stack.enter_async_context(node))
            except pytest.fail.Exception as error:
                raise StageFailed(str(error)) from None
        client = await stack.enter_async_context(mesh.client.connect(url))
        stage = Stage(client, running)
        task_status.started(stage)
        await stage.over.wait()


# -- with the owner killed -------------------------------------------------------------------------------------------


class Killing:
    """Runs workflows twice: in peace, to count the events of each, and with a kill after half of them."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._slots = anyio.CapacityLimiter(AT_ONCE)

    async def run(self, behaviours: Iterable[Behaviour]) -> dict[str, Outcome]:
        """The outcome of each, by entry ID."""
        outcomes: dict[str, Outcome] = {}

        async def one(behaviour: Behaviour) -> None:
            async with self._slots:
                await wait_until(lambda: len(self._fleet.nodes) > AT_ONCE, KILLED_TIMEOUT_S)
                outcomes[behaviour.id] = await self._run(behaviour)

        async with anyio.create_task_group() as tasks:
            for behaviour in behaviours:
                tasks.start_soon(one, behaviour)
        return outcomes

    async def _run(self, behaviour: Behaviour) -> Outcome:
        name = behaviour.file.stem
        peace, labels = await self._outcome(behaviour, f"{name}-peace")
        if peace.text:
            return Outcome(f"already without a kill:\n{peace.text}")
        killed = _KillAt(self._fleet, max(1, len(labels) // 2))
        for attempt in range(1, ATTEMPTS + 1):
            killed.follow(f"{name}-killed-{attempt}")
            outcome, _ = await self._outcome(behaviour, killed.workflow_id)
            # Nobody is killed when it has ended before its events were seen here: then once more.
            if killed.whom or outcome.text:
                break
        killed.unfollow()
        if outcome.text:
            how = f"{killed.whom} killed at {killed.label}" if killed.whom else "nobody killed yet"
            return Outcome(f"with {how}, event {killed.at} of {len(labels)} ({', '.join(labels)}):\n{outcome.text}")
        if not killed.whom:
            return Outcome(f"nobody was killed, it has always ended before: {', '.join(labels)}")
        return outcome

    async def _outcome(self, behaviour: Behaviour, workflow_id: str) -> tuple[Outcome, list[str]]:
        """Run it; its outcome and the labels of its events."""
        outcome = Outcome()
        try:
            await run_workflow(self._fleet.client, behaviour, workflow_id, KILLED_TIMEOUT_S)
        except WorkflowFailed as error:
            outcome = Outcome.of(error.failure)
        except RequestTimeout:
            labels = self._labels(workflow_id)
            return Outcome(f"it has not ended within {KILLED_TIMEOUT_S:g} s; its history: {', '.join(labels)}"), labels
        await wait_until(lambda: "end" in self._labels(workflow_id), TIMEOUT_S)
        return outcome, self._labels(workflow_id)

    def _labels(self, workflow_id: str) -> list[str]:
        return [seen.label for seen in self._fleet.watch.of(workflow_id)]


class _KillAt:
    """Kills a workflow's owner at its n-th event (or the next that is no end), and starts another node."""

    def __init__(self, fleet: Fleet, at: int) -> None:
        self.fleet = fleet
        self.at = at
        self.workflow_id = ""
        self.whom = ""
        self.label = ""
        self._seen = 0
        fleet.watch.hooks.append(self._see)

    def follow(self, workflow_id: str) -> None:
        """Wait for this workflow's event."""
        self.workflow_id, self._seen = workflow_id, 0

    def unfollow(self) -> None:
        """Kill nobody any more."""
        self.fleet.watch.hooks.remove(self._see)

    def _see(self, seen: Seen) -> None:
        if seen.id != self.workflow_id:
            return
        self._seen += 1
        # An end in the middle is that of a run which goes on as another one: the kill comes at the event after it.
        if self._seen >= self.at and not self.whom and seen.label != "end":
            self.whom, self.label = self.fleet.watch.owners[seen.partition], seen.label
            # Another workflow's kill may have taken this owner already: nobody has taken over since.
            if self.whom in self.fleet.nodes:
                self.fleet.kill(self.whom)
                self.fleet.tasks.start_soon(self.fleet.add)


# -- stages in their thread ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Stages:
    """The stages of a session, made when they are first asked for."""

    behaviours: Sequence[Behaviour]
    to_kill: Sequence[Behaviour]
    _stack: ExitStack = field(default_factory=ExitStack)
    _loop_stack: ExitStack = field(default_factory=ExitStack)  # left first: nodes end before their servers
    _portal: BlockingPortal | None = None
    _app: Path | None = None
    _web: WebServer | None = None
    _stages: dict[str, Stage] = field(default_factory=dict)
    _running: list[Future[None]] = field(default_factory=list)
    _killed: dict[str, Outcome] | None = None
    _failed: dict[str, str] = field(default_factory=dict)  # the modes whose nodes cannot be started, and why
    _faults: dict[str, str] = field(default_factory=dict)

    def fault(self, behaviour: Behaviour) -> str:
        """Why a node could not run a behaviour's entry, "" if it can."""
        self._written_app()
        return self._faults.get(behaviour.id, "") or self._faults.get("", "")

    def stage(self, mode: str) -> Stage:
        """The stage of a mode."""
        mode = ONE_NODE if mode == AS_PROCESS else mode
        if mode in self._failed:
            raise StageFailed(self._failed[mode])
        if mode not in self._stages:
            nodes: dict[str, tuple[str, ...]] = {"one": ()}
            if mode == TWO_NODES:
                mine = f"{NAMESPACE}:*"
                nodes = {"callers": ("--only", mine), "hosts": ("--without", mine)}
            server = self._server()
            try:
                running, stage = self._loop().start_task(
                    run_stage, server.url, self._written_app(), nodes, {WEB_SERVER: self._web_server()}
                )
            except StageFailed as error:
                self._failed[mode] = str(error)
                raise
            self._stages[mode] = stage
            self._running.append(running)
        return self._stages[mode]

    def run(self, mode: str, behaviour: Behaviour) -> Outcome:
        """Run a behaviour in a mode."""
        if mode == OWNER_KILLED:
            if mode in self._failed:
                raise StageFailed(self._failed[mode])
            if self._killed is None:
                try:
                    self._killed = self._loop().call(self._kill)
                except Exception as error:
                    self._failed[mode] = f"{type(error).__name__}: {error}"
                    raise
            return self._killed[behaviour.id]
        entry_id = behaviour.process_id if mode == AS_PROCESS else behaviour.id
        return self._loop().call(self.stage(mode).run, behaviour, entry_id)

    async def _kill(self) -> dict[str, Outcome]:
        server, app = self._server(), self._written_app()
        try:
            with tempfile.TemporaryDirectory(prefix="mesh-lua-") as directory, unwrapped():
                async with a_fleet(
                    server.url, Path(directory), nodes=NODES, app=app, queue=QUEUE, start_timeout_s=START_TIMEOUT_S
                ) as fleet:
                    outcomes = await Killing(fleet).run(self.to_kill)
                    for node_id in list(fleet.nodes):  # nothing is left that would be worth handing over
                        fleet.kill(node_id)
                    return outcomes
        except pytest.fail.Exception as error:
            raise StageFailed(str(error)) from None

    def close(self) -> None:
        """End everything that was started."""
        try:
            for stage in self._stages.values():
                self._loop().call(stage.over.set)
            for running in self._running:
                running.result(CLOSE_TIMEOUT_S)
        finally:
            try:
                self._loop_stack.close()
            finally:
                self._stack.close()

    def _loop(self) -> BlockingPortal:
        if self._portal is None:
            self._portal = self._loop_stack.enter_context(start_blocking_portal())
            # Called before the portal's own end, which waits for what an interrupted item has left.
            self._loop_stack.callback(self._portal.call, self._portal.stop, True)
        return self._portal

    def _directory(self) -> Path:
        made = tempfile.TemporaryDirectory(prefix="mesh-lua-", ignore_cleanup_errors=True)
        return Path(self._stack.enter_context(made))

    def _server(self) -> ServerProcess:
        server = ServerProcess(self._directory())
        self._stack.callback(server.stop)
        return server.start()

    def _web_server(self) -> str:
        if self._web is None:
            self._web = self._stack.enter_context(a_web_server())
        return self._web.url

    def _written_app(self) -> Path:
        if self._app is None:
            self._app = write_suite_app(self._directory(), self.behaviours)
            self._faults = faults_of(self._app)
        return self._app


def faults_of(app: Path) -> dict[str, str]:
    """What is wrong with an app, by the entry ID of the behaviour; "" is what is wrong for all of them."""
    from node.machine.vm import compile_error
    from node.registry import check_registry, load_registry

    faults: dict[str, str] = {}
    for problem in check_registry(load_registry(app, environ={}), compile_error):
        entry_id = str(problem.entry)
        whose = entry_id if entry_id.startswith(f"{NAMESPACE}:") else ""
        text = str(problem).replace(f"{app}/", "")
        faults[whose] = f"{faults[whose]}\n{text}" if whose in faults else text
    return faults


# -- pytest ----------------------------------------------------------------------------------------------------------

STAGES: Final = pytest.StashKey[Stages]()


def stages_of(session: pytest.Session) -> Stages:
    """The stages of a session."""
    if STAGES not in session.config.stash:
        items = [item for item in session.items if isinstance(item, BehaviourItem)]
        to_kill = [item.behaviour for item in items if item.mode == OWNER_KILLED]
        # All of them, selected or not: what one runs must not depend on which others are asked for.
        readable = [behaviour for file in behaviour_files() if (behaviour := _readable(file)) is not None]
        session.config.stash[STAGES] = Stages(readable, to_kill)
        # Else SIGTERM, which is what `timeout` sends, would leave nodes and servers behind.
        signal.signal(signal.SIGTERM, _interrupt)
    return session.config.stash[STAGES]


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt("SIGTERM")


def close_stages(config: pytest.Config) -> None:
    """End the stages, if there are any."""
    if STAGES in config.stash:
        stages = config.stash[STAGES]
        del config.stash[STAGES]
        stages.close()


def _readable(file: Path) -> Behaviour | None:
    try:
        return read_behaviour(file)
    except BadBehaviour:
        return None


class BehaviourFile(pytest.File):
    """A Lua file with a behaviour."""

    def collect(self) -> Iterator[BehaviourItem]:
        try:
            behaviour = read_behaviour(self.path)
        except BadBehaviour as error:
            raise self.CollectError(str(error)) from None
        for mode in modes_of(behaviour):
            yield BehaviourItem.from_parent(self, name=f"{self.path.stem}[{mode}]", behaviour=behaviour, mode=mode)


def modes_of(behaviour: Behaviour) -> list[str]:
    """The modes that a behaviour runs in."""
    modes = [ONE_NODE]
    if behaviour.form == "workflow":
        if not behaviour.unkilled:
            modes.append(OWNER_KILLED)
    elif behaviour.form == "function":
        modes += [AS_PROCESS] * (not behaviour.unspawned) + [TWO_NODES] * (not behaviour.one_node)
    return modes


class BehaviourItem(pytest.Item):
    """A behaviour in a mode."""

    def __init__(self, *, behaviour: Behaviour, mode: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.behaviour = behaviour
        self.mode = mode
        self.add_marker(pytest.mark.timeout(ITEM_TIMEOUT_S))

    def runtest(self) -> None:
        stages = stages_of(self.session)
        if fault := stages.fault(self.behaviour):
            raise SuiteFailure(fault)
        before = self._logs(stages)
        outcome = stages.run(self.mode, self.behaviour)
        if outcome.text:
            for node_id, text in self._logs(stages).items():
                # Records begin with a time, the lines of a stack are indented. That it failed, and where, stands above.
                records = re.split(r"\n(?=\d)", text[len(before.get(node_id, "")) :].strip())
                said = "\n".join(record for record in records if f"{self.behaviour.id} failed" not in record)
                if said:
                    self.add_report_section("call", f"log of node {node_id}", said)
            raise SuiteFailure(outcome.text)

    def _logs(self, stages: Stages) -> dict[str, str]:
        return {} if self.mode == OWNER_KILLED else stages.stage(self.mode).logs()

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, SuiteFailure | StageFailed):
            return f"{self.behaviour.section} {self.behaviour.rule}\n\n{excinfo.value}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, self.name


__all__ = ["BEHAVIOURS", "BehaviourFile", "close_stages"]
