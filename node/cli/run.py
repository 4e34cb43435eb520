"""`mesh run`: one program of an app with the terminal as its input and output, or all its services, until they end.

The node is this process. The mesh is the one that the connection options name; without any it is one of our own, with a
server on the app's store, or the one that already serves that store.

A program that joins nodes which are up leaves to them what there is once on the mesh, such as functions and workflows:
somebody's laptop must not become the owner of workflows for the three seconds that its program runs. What each node has
for itself (process hosts, services) is here, too, so that the program finds the same local names as on a mesh alone.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import click
from click.core import ParameterSource

from mesh.errors import MeshError, StoreInUse
from mesh.stores import STORES
from node.cli.apps import APP
from node.cli.connecting import Server, connection_options
from node.cli.nodes import (
    ask_nodes,
    load_app,
    log_options,
    new_node_id,
    node_id_option,
    store_option,
    strict_option,
    tracing_asked_for,
)
from node.cli.printing import say

if TYPE_CHECKING:
    import anyio

    from mesh.failure import Failure
    from mesh.handshake import ConnectOptions
    from node.logs import LogFormat
    from node.node import Node, NodeConfig
    from node.registry import Registry
    from node.units.unit import LiveUnit

# The host of a program whose app has no `terminal.host`.
BUILT_IN_HOST: Final = "mesh:terminal"
BUILT_IN_GRACE_S: Final = 10.0
# A program that obeys at once is not commented on.
HINT_AFTER_S: Final = 1.0
# Output that nobody takes is not waited for any longer once the program was killed.
LAST_WORDS_S: Final = 0.5
JOIN_TIMEOUT_S: Final = 10.0
PROPOSALS_MAX: Final = 5

_log = logging.getLogger(__name__)


class NothingToRun(MeshError):
    """Raised when an app has nothing of what `mesh run` was asked to run."""

    code = "nothing-to-run"


@dataclass(frozen=True, slots=True)
class Program:
    """What `-x` runs. grace_s: how long it may take to stop when it is asked to."""

    entry_id: str
    host_id: str
    args: tuple[str, ...]
    grace_s: float


class RunCommand(click.Command):
    """A command whose line ends with somebody else's arguments."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Split the line, so that what is the program's reaches it unread."""
        return super().parse_args(ctx, with_separator(args, self._takes_value(ctx)))

    def _takes_value(self, ctx: click.Context) -> dict[str, bool]:
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        return {
            name: not (option.is_flag or option.count)
            for option in options
            for name in (*option.opts, *option.secondary_opts)
        }


def with_separator(args: list[str], takes_value: dict[str, bool]) -> list[str]:
    """Put `--` in front of the first argument after APP that is none of our options nor the value of one. Pure.

    From there on everything is the program's, also what we have an option for.
    """
    app_seen = False
    at = 0
    while at < len(args):
        arg = args[at]
        if arg == "--":
            return args
        if not arg.startswith("-") or arg == "-":
            if app_seen:
                return [*args[:at], "--", *args[at:]]
            app_seen = True
            at += 1
            continue
        name, has_value, _ = arg.partition("=")
        if not arg.startswith("--") and len(arg) > 2:
            name, has_value = arg[:2], "yes"
        if name not in takes_value:
            return [*args[:at], "--", *args[at:]] if app_seen else args
        at += 2 if takes_value[name] and not has_value else 1
    return args


@click.command("run", cls=RunCommand)
@click.argument("app", type=APP)
@click.argument("args", nargs=-1, metavar="[ARGS]...")
@click.option("-x", "--exec", "entry", metavar="ENTRY", help="The process.lua to run, such as app:cli.")
@click.option("--host", "host_id", metavar="HOST", help="Its terminal.host, when the app has several.")
@node_id_option
@store_option
@strict_option
@log_options
@connection_options
def run_app(
    app: Path,
    args: tuple[str, ...],
    *,
    entry: str | None,
    host_id: str | None,
    node_id: str | None,
    store: Path | None,
    strict: bool,
    log_format: LogFormat,
    log_level: str,
    server: Server,
) -> None:
    """Run a program of the app in the directory APP, or all its services.

    \b
    mesh run APP -x ENTRY [ARGS]...   runs one process with the terminal as its input
                                      and output, and ends with its result as exit
                                      status: an integer is the status, an error is 1.
    mesh run APP                      runs every service with auto_start until Ctrl-C.

    Options stand before ARGS. Without connection options the mesh is one of its own, with a server on the app's store;
    when that runs already, for instance by `mesh up APP`, this joins it.

    Ctrl-C asks the program to stop, a second one ends it at once. With -x only warnings and errors are logged, unless
    --log-level says otherwise.
    """  # noqa: D301 - click reads the control character
    from node.logs import set_up
    from node.node import NodeConfig
    from node.process_settings import run_as_a_node

    said_level = click.get_current_context().get_parameter_source("log_level") is not ParameterSource.DEFAULT
    name = node_id or new_node_id()
    set_up(log_format, log_level if said_level or not entry else "warning", fields={"node": name})
    if entry is None and args:
        raise click.UsageError(f"{args[0]!r}: only a program has arguments; name it before them, with -x ENTRY")
    registry = load_app(app, strict=strict)
    job: _Job
    if entry is not None:
        program = find_program(registry, entry, host_id, args)
        if not said_level and _hides_logs(registry, program.host_id):
            set_up(log_format, "critical", fields={"node": name})
        job = _RunProgram(program)
    else:
        check_services(registry, app)
        job = _RunServices()
    directory = store or Path(STORES) / (app.resolve().name or "root")
    config = NodeConfig(server.url, node_id=name, options=server.options(), tracing=tracing_asked_for(name))
    sys.exit(run_as_a_node(_run, job, config, registry, server, directory))


# -- what to run -----------------------------------------------------------------------------------------------------


def find_program(registry: Registry, entry: str, host_id: str | None, args: Sequence[str]) -> Program:
    """Which process runs where. Raises NothingToRun that says what was meant."""
    if entry not in registry.processes():
        raise NothingToRun(_why_no_program(registry, entry))
    hosts = {str(entry_id): view for entry_id, view in registry.terminal_hosts().items()}
    if host_id is None and len(hosts) > 1:
        raise NothingToRun(f"the app has several terminal hosts: choose one with --host, from {', '.join(hosts)}")
    if host_id is not None and host_id not in hosts:
        raise NothingToRun(f"no terminal.host {host_id!r} in the app; it has {', '.join(hosts) or 'none'}")
    chosen = host_id or next(iter(hosts), BUILT_IN_HOST)
    grace_s = hosts[chosen].lifecycle.stop_timeout_s if chosen in hosts else BUILT_IN_GRACE_S
    return Program(entry, chosen, tuple(args), grace_s)


def _why_no_program(registry: Registry, entry: str) -> str:
    problems = [str(problem) for problem in registry.problems if problem.entry == entry]
    if problems:
        return f"{entry} cannot run: {problems[0]}"
    found = registry.get(entry)
    if found is not None:
        return f"{entry} is a {found.kind}; -x runs a process.lua{_proposals(registry)}"
    from mesh.spelling import nearest

    known = [str(entry_id) for entry_id in registry.processes()]
    same_name = [entry_id for entry_id in known if entry_id.partition(":")[2] == entry.rpartition(":")[2]]
    near = same_name[0] if same_name else nearest(entry, known)
    return f"no process {entry!r}" + (f"; did you mean {near}?" if near else _proposals(registry))


def _proposals(registry: Registry) -> str:
    known = [str(entry_id) for entry_id in registry.processes()]
    if not known:
        return "; the app has no process.lua"
    return f"; there are {', '.join(known[:PROPOSALS_MAX])}{', ...' if len(known) > PROPOSALS_MAX else ''}"


def check_services(registry: Registry, app: Path) -> None:
    """Raise NothingToRun, with the way out, when no service starts by itself."""
    services = registry.services()
    if any(entry_id in services for entry_id in registry.started_at_boot()):
        return
    processes = [str(entry_id) for entry_id in registry.processes()]
    if services:
        way = f"give one `lifecycle: {{auto_start: true}}` (it has {', '.join(services)})"
    else:
        way = "add a process.service with `lifecycle: {auto_start: true}`"
    program = f", or run one process: mesh run {app} -x {processes[0]}" if processes else ""
    raise NothingToRun(f"no service of {app} starts by itself: {way}{program}")


def _hides_logs(registry: Registry, host_id: str) -> bool:
    return any(host.hide_logs for entry_id, host in registry.terminal_hosts().items() if entry_id == host_id)


# -- where -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Mesh:
    """The mesh that the node joins."""

    url: str | Sequence[str]
    is_ours: bool


@asynccontextmanager
async def _the_mesh(server: Server, store: Path) -> AsyncIterator[_Mesh]:
    """The mesh that was named; else one on the store: that which is there, or a server of our own meanwhile."""
    import anyio

    from mesh.server import embedded_server, find_running

    if server.is_said:
        yield _Mesh(server.url, is_ours=False)
        return
    async with AsyncExitStack() as stack:
        give_up_at = anyio.current_time() + JOIN_TIMEOUT_S
        while True:
            try:
                mesh = _Mesh((await stack.enter_async_context(embedded_server(store, port=0))).url, is_ours=True)
            except StoreInUse:
                url = await find_running(store)
                if url is not None:
                    mesh = _Mesh(url, is_ours=False)
                elif anyio.current_time() > give_up_at:
                    raise
                else:  # it is just starting, or stopping
                    await anyio.sleep(0.05)
                    continue
            break
        yield mesh


async def _what_others_offer(url: str | Sequence[str], options: ConnectOptions, registry: Registry) -> tuple[str, ...]:
    """What of the app nodes of the mesh have already and need have once, by entry id.

    Functions, workers and single services; and consumers of queues that are the mesh's, when their function is there.
    """
    import mesh.client
    from mesh.errors import NotFound
    from node.registry.kinds import QueueDriver

    async with mesh.client.connect(url, name="mesh run", options=options) as client:
        try:
            nodes = await ask_nodes(client)
        except NotFound:  # no node has ever been up
            return ()
    offered: set[str] = set()
    for answer in nodes.values():
        member = answer["member"]
        if "pid" in answer and not member.get("leaving"):  # it is there, and not only its key
            owned = member.get("queues") or ()
            offered.update(member.get("functions") or (), member.get("services") or ())
            offered.update(
                str(entry_id) for entry_id, worker in registry.workers().items() if worker.task_queue in owned
            )
    shared = {driver.id for driver in registry.queue_drivers().values() if driver.type is QueueDriver.JETSTREAM}
    queues = {queue.id for queue in registry.queues().values() if queue.driver in shared}
    offered.update(
        str(consumer.id)
        for consumer in registry.consumers().values()
        if consumer.queue in queues and consumer.func in offered
    )
    return tuple(sorted(offered))


# -- the run ---------------------------------------------------------------------------------------------------------


class _Signals:
    """SIGINT and SIGTERM as they come. Until the job listens, the first one ends everything."""

    def __init__(self, scope: anyio.CancelScope) -> None:
        import anyio

        self.first: signal.Signals | None = None
        self.asked = anyio.Event()
        self.asked_again = anyio.Event()
        self.is_heard = False
        self.is_hasty = False  # nothing is left to ask: a second one ends it at once
        self._scope = scope

    @property
    def status(self) -> int:
        """The exit status of who was ended by the signal."""
        return 128 + (self.first or 0)

    async def watch(self) -> None:
        """Note signals until cancelled."""
        import anyio

        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                if self.asked_again.is_set() or (self.is_hasty and self.asked.is_set()):
                    # Not sys.exit: it would wait for a function that is busy in a thread.
                    os._exit(self.status)
                if self.first is not None:
                    self.asked_again.set()
                    continue
                self.first = number
                self.asked.set()
                if not self.is_heard:
                    self._scope.cancel()


class _Job(Protocol):
    """What a run is about."""

    joins_quietly: bool

    async def run(self, node: Node, signals: _Signals, url: str) -> int:
        """Run to the end; returns the exit status. The node leaves afterwards."""
        ...


async def _run(job: _Job, config: NodeConfig, registry: Registry, server: Server, store: Path) -> int:
    import anyio

    from mesh.groups import unwrapped
    from node.node import running_node
    from node.offers import Offers

    status: int | None = None
    with unwrapped():
        async with anyio.create_task_group() as tasks:
            signals = _Signals(tasks.cancel_scope)
            tasks.start_soon(signals.watch)
            async with _the_mesh(server, store) as mesh:
                config = replace(config, url=mesh.url)
                if job.joins_quietly and not mesh.is_ours:
                    others = await _what_others_offer(mesh.url, config.options, registry)
                    config = replace(config, offers=Offers(without=others))
                async with running_node(config, registry) as node:
                    signals.is_heard = True
                    status = await job.run(node, signals, str(mesh.url))
                    signals.is_hasty = True
                    await node.leave()
            tasks.cancel_scope.cancel()
    if status is None:
        say("interrupted")
        return signals.status
    return status


class _RunServices:
    """Runs what has auto_start until it is told to stop."""

    joins_quietly = False

    async def run(self, node: Node, signals: _Signals, url: str) -> int:
        click.echo(f"{_summary(node)}; node {node.id} on {url}; Ctrl-C stops everything")
        await signals.asked.wait()
        _log.info("the services stop, then this node leaves; a second signal ends it at once")
        return 0


def _summary(node: Node) -> str:
    """Which services run, which have done their work, and which do not run."""
    from node.services.supervision import State

    groups: dict[str, list[str]] = {}
    boot = set(node.registry.started_at_boot())
    for service in node.services.statistics():
        if service.state is State.RUNNING:
            what = "running"
        elif service.id not in boot:
            continue
        elif service.state is State.EXITED and service.last_error is None:
            what = "done"
        else:
            what = "on other nodes" if service.state is State.UNKNOWN else "not running"
        groups.setdefault(what, []).append(service.id)
    return ", ".join(f"{what}: {' '.join(ids)}" for what, ids in sorted(groups.items(), reverse=True))


class _RunProgram:
    """Runs one process with the terminal as its input and output."""

    joins_quietly = True

    def __init__(self, program: Program) -> None:
        self._program = program
        self._was_killed = False
        self._output_closed = False

    async def run(self, node: Node, signals: _Signals, url: str) -> int:
        import anyio

        from mesh import codec
        from node.units.spawn_request import SpawnRequest

        program = self._program
        node.processes.host_ids.add(program.host_id)
        node.modules.io.attach(program.host_id, program.args)
        logging.getLogger("node.units.live").addFilter(self._is_not_its_failure)
        outcomes: list[bytes] = []
        ended = anyio.Event()

        def told(outcome: bytes) -> None:
            outcomes.append(outcome)
            ended.set()

        watcher = node.units.new_watcher(told)
        request = codec.encode([list(program.args), None])
        wish = SpawnRequest(program.entry_id, program.host_id, request, monitor=True)
        spawned = node.spawning.spawn_here(watcher.pid, wish)
        ok, pid = codec.decode_outcome(spawned)
        if not ok:
            node.units.forget(watcher)
            tell_failure(program.entry_id, pid)
            return 1
        unit = node.units.get(pid)
        async with anyio.create_task_group() as tasks:
            finishing = anyio.CancelScope()
            if unit is not None:
                tasks.start_soon(self._obey_signals, node, unit, signals, finishing)
                tasks.start_soon(self._end_with_output, node, unit)
            with finishing:
                await ended.wait()
                await node.modules.io.flush()
            tasks.cancel_scope.cancel()
        return self._status(outcomes[0], signals) if outcomes else signals.status

    def _is_not_its_failure(self, record: logging.LogRecord) -> bool:
        """Whether a line may be logged: that the program has failed we say ourselves, at the end."""
        return not (hasattr(record, "stack") and f"@{self._program.host_id}|" in getattr(record, "pid", ""))

    async def _obey_signals(self, node: Node, unit: LiveUnit, signals: _Signals, finishing: anyio.CancelScope) -> None:
        """Ask the program to stop at the first signal; end it at the second, or when it takes too long."""
        import anyio

        from mesh.failure import Failure, Kind
        from mesh.pids import TOPOLOGY

        await signals.asked.wait()
        reason = "interrupted" if signals.first is signal.SIGINT else "terminated"
        unit.post("cancel", None, reason.encode(), TOPOLOGY.encode())
        node.modules.io.interrupt()
        with anyio.move_on_after(self._program.grace_s):
            with anyio.move_on_after(HINT_AFTER_S):
                await signals.asked_again.wait()
            if not signals.asked_again.is_set():
                say(f"{unit.entry_id} is asked to stop; once more ends it at once")
            await signals.asked_again.wait()
        self._was_killed = True
        if not unit.ended:
            unit.kill(Failure("process terminated", Kind.INTERNAL, False))
        finishing.deadline = anyio.current_time() + LAST_WORDS_S

    async def _end_with_output(self, node: Node, unit: LiveUnit) -> None:
        """End the program, quietly, when whoever read its output has seen enough."""
        from mesh.failure import Failure, Kind

        await node.modules.io.wait_closed()
        self._output_closed = True
        if not unit.ended:
            unit.kill(Failure("process terminated: nobody reads its output any more", Kind.UNAVAILABLE, False))

    def _status(self, outcome: bytes, signals: _Signals) -> int:
        from mesh import codec

        if self._output_closed:
            return 0  # as every other command of ours
        if self._was_killed:
            say("interrupted" if signals.first is signal.SIGINT else "terminated")
            return signals.status
        ok, value = codec.decode_outcome(outcome)
        if not ok:
            tell_failure(self._program.entry_id, value)
            return 1
        return exit_code(value)


def exit_code(result: object) -> int:
    """The exit status that a program's result stands for: an integer itself, anything else 0. Pure.

    A status has eight bits. An integer that does not fit is a failure all the same, so it never becomes 0.
    """
    if isinstance(result, bool) or not isinstance(result, int):
        return 0
    return result if 0 <= result <= 255 else result % 256 or 255


def tell_failure(entry_id: str, failure: Failure) -> None:
    """Say what a program failed with, and where in its code."""
    from mesh import codec
    from mesh.failure import Kind

    text = failure.message if failure.kind in (Kind.INTERNAL, Kind.UNKNOWN) else str(failure)
    say(f"mesh: {entry_id} failed: {text}")
    if failure.details:
        say(f"  details: {codec.to_json(dict(failure.details))}")
    # The first line of a stack is the message again.
    for line in failure.stack.splitlines()[1:]:
        say(f"  {line.strip()}")
