"""Nodes: `mesh node` runs one, `mesh nodes` says which there are."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from node.cli.apps import APP, add_to_path, has_work
from node.cli.connecting import Server, connection_options
from node.cli.live import ListView, watch_option
from node.cli.printing import span
from node.cli.values import DURATION, METRICS_ADDRESS

if TYPE_CHECKING:
    import anyio

    from mesh.client import Client
    from mesh.key_files import KeyFile
    from node.logs import LogFormat
    from node.node import Node, NodeConfig
    from node.registry import Registry
    from node.telemetry.tracing import Tracing

LOG_FORMATS: Final = ("auto", "text", "json")
# Of a terminal's last column: what a node of an ordinary app owns stands on one line rather than all columns beside it.
QUEUES_CHARACTERS: Final = 40
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
START_AGAIN_S: Final = 1.0

_log = logging.getLogger(__name__)

Command = TypeVar("Command", bound=Callable[..., Any])

node_id_option = click.option(
    "--id", "node_id", metavar="NAME", help="Name of this node in the mesh; by default one that is new."
)
strict_option = click.option("--strict", is_flag=True, help="Do not start when anything is wrong with the app.")
metrics_option = click.option(
    "--metrics",
    envvar="MESH_METRICS",
    type=METRICS_ADDRESS,
    metavar="[HOST]:PORT",
    help="Serve /metrics for Prometheus, /healthz and /readyz here; :9464 is that port on all interfaces.",
)
store_option = click.option(
    "--store",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIRECTORY",
    help="Where a server of our own keeps everything.  [default: .mesh/NAME OF APP]",
)


def log_options(command: Command) -> Command:
    """Give a command the options of `node.logs`."""
    form = click.option(
        "--log-format", type=click.Choice(LOG_FORMATS), default="auto", show_default=True, envvar="MESH_LOG_FORMAT",
        help="auto is text on a terminal, else JSON lines.",
    )  # fmt: skip
    level = click.option(
        "--log-level", type=click.Choice(LOG_LEVELS), default="info", show_default=True, envvar="MESH_LOG_LEVEL",
        help="The least that is logged.",
    )  # fmt: skip
    return form(level(command))


@click.command("node")
@click.argument("app", type=APP)
@node_id_option
@strict_option
@click.option("--wait/--no-wait", "patient", default=True, help="Whether to wait for a server that is not up yet.")
@click.option("--replicas", type=click.IntRange(1, 5), default=1, show_default=True, help="Copies of each new queue.")
@click.option(
    "--only",
    multiple=True,
    metavar="PATTERN",
    help="Run only the functions, hosts, workers and services whose entry ID fits, such as 'shop:*'. Repeatable.",
)
@click.option(
    "--without", multiple=True, metavar="PATTERN", help="Run none whose entry ID fits, --only or not. Repeatable."
)
@metrics_option
@click.option(
    "--functions-only",
    is_flag=True,
    help="Serve functions and nothing else: no workflows, processes or services, and no right to them needed.",
)
@click.option(
    "--projection",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="MESH_PROJECTION",
    metavar="FILE",
    help="Keep a list of all workflows in this file (SQLite), for `mesh ls`; it is made from the streams.",
)
@click.option("--api/--no-api", default=True, help="Whether to serve the control API (mesh.api.>).  [default: it does]")
@click.option(
    "--stuck-after",
    type=DURATION,
    default="2s",
    show_default=True,
    metavar="DURATION",
    help="End the node when code that nothing interrupts has computed so long, and suspend the workflow; 0 = never.",
)
@click.option("--with-parent", is_flag=True, hidden=True, help="Leave when standard input is closed.")
@log_options
@connection_options
def run_node(
    app: Path,
    *,
    node_id: str | None,
    strict: bool,
    patient: bool,
    replicas: int,
    only: tuple[str, ...],
    without: tuple[str, ...],
    metrics: str | None,
    functions_only: bool,
    projection: Path | None,
    api: bool,
    stuck_after: float,
    with_parent: bool,
    log_format: LogFormat,
    log_level: str,
    server: Server,
) -> None:
    """Run a node with the registry and the code in the directory APP.

    It joins the mesh of the NATS server (without a flag, variable or context: the one that the app's client entry
    names, else nats://localhost:4222) and runs functions, workflows, processes and services until it is told to
    stop. SIGTERM or Ctrl-C: it hands its workflows over, finishes the calls under way and exits with 0. A second one:
    it exits at once.

    When the node is ready, one line on standard output says so. Logs go to standard error.
    """
    from node.cli.client_entry import client_of, connection_of
    from node.logs import set_up
    from node.node import NodeConfig
    from node.offers import Offers
    from node.process_settings import run_as_a_node

    name = node_id or new_node_id()
    set_up(log_format, log_level, fields={"node": name})
    registry = load_app(app, strict=strict)
    url, options = server.url, server.options(patience_s=float("inf") if patient else 0.0)
    entry = None if server.is_said else client_of(registry)
    if entry is not None:
        url, options = connection_of(entry, options, os.environ)
    config = NodeConfig(
        url,
        node_id=name,
        replicas=replicas,
        options=options,
        offers=Offers(only, without),
        functions_only=functions_only,
        metrics=metrics,
        projection=projection,
        api=api,
        stuck_s=stuck_after,
        tracing=tracing_asked_for(name),
    )
    sys.exit(run_as_a_node(_serve, config, registry, with_parent))


def tracing_asked_for(node_id: str) -> Tracing | None:
    """What makes the spans of a node, when the variables of OpenTelemetry ask for any. Raises TracingNotPossible."""
    from node.telemetry.trace_settings import trace_settings

    settings = trace_settings(os.environ)
    if settings is None:
        return None
    from mesh.version import VERSION
    from node.telemetry.tracing import tracing_of

    tracing = tracing_of(settings, node_id, VERSION)
    tracing.make_global()
    return tracing


def new_node_id() -> str:
    """A name for a node that is given none."""
    import secrets

    return f"node-{secrets.token_hex(3)}"


def load_app(app: Path, *, strict: bool) -> Registry:
    """Load the registry of an app; what is wrong with it and what has no effect in it are logged.

    Raises NoWorkers, and RegistryError when strict.
    """
    from node.node import NoWorkers
    from node.registry import load_registry

    add_to_path(app)
    registry = load_registry(app, strict=strict, environ=os.environ)
    for problem in (*registry.problems, *registry.without_effect):
        _log.warning("%s", problem)
    if not has_work(registry):
        raise NoWorkers(
            f"nothing in {app} can be run: no sound function, process or worker; `mesh check {app}` says what is wrong"
        )
    return registry


async def _serve(config: NodeConfig, registry: Registry, with_parent: bool) -> int:
    """Run the node until it is told to go, then leave; returns the exit status."""
    import anyio

    from mesh.errors import Disconnected, NotReady, OutcomeUnknown, RequestTimeout
    from mesh.groups import unwrapped
    from node.keys import key_files_of
    from node.node import running_node
    from node.service_manager import ServiceManager

    manager = ServiceManager(os.environ)
    node: Node | None = None
    with unwrapped():
        async with anyio.create_task_group() as tasks:

            def go(reason: str) -> None:
                if node is None:
                    tasks.cancel_scope.cancel()
                else:
                    _log.info("%s", reason)
                    manager.stopping("leaving the mesh")
                    tasks.start_soon(_leave, node, tasks.cancel_scope)

            tasks.start_soon(_on_signals, go)
            if with_parent:
                tasks.start_soon(_on_closed_input, go)
            while True:
                try:
                    async with running_node(config, registry) as node:
                        queues = ", ".join(sorted(node.engines)) or "none"
                        click.echo(f"node {node.id} is ready, pid {os.getpid()}, queues {queues}")
                        manager.ready(f"node {node.id}, queues {queues}")
                        tasks.start_soon(manager.keep_alive)
                        if files := key_files_of(node.conn.codec):
                            tasks.start_soon(_on_hangup, files)
                        await anyio.sleep_forever()
                except (Disconnected, NotReady, OutcomeUnknown, RequestTimeout) as error:
                    # A server that is there, but serves nothing yet: its cluster has no leader.
                    if node is not None or not config.options.patience_s:
                        raise
                    _log.warning("not up yet, trying again: %s", error)
                await anyio.sleep(START_AGAIN_S)
    _log.info("node %s is down", config.node_id)
    return 0


async def _on_signals(go: Callable[[str], None]) -> None:
    """Go politely at the first SIGTERM or SIGINT, at once at the second."""
    import anyio

    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        told = False
        async for number in signals:
            if told:
                _log.warning("%s again, going at once", number.name)
                # Not sys.exit: it would wait for a function that is busy in a thread.
                os._exit(128 + number)
            told = True
            go(f"{number.name}: leaving; a second one ends it at once")


async def _on_hangup(files: list[KeyFile]) -> None:
    """Look at the key files at every SIGHUP."""
    import anyio

    with anyio.open_signal_receiver(signal.SIGHUP) as signals:
        async for _ in signals:
            for file in files:
                file.look(anyway=True)


async def _on_closed_input(go: Callable[[str], None]) -> None:
    """Go when standard input ends: then whoever started this node is gone, however it died."""
    import anyio

    while True:
        await anyio.wait_readable(sys.stdin.fileno())
        if not os.read(sys.stdin.fileno(), 4096):
            break
    go("whoever started this node is gone: leaving")


async def _leave(node: Node, scope: anyio.CancelScope) -> None:
    await node.leave()
    scope.cancel()


@click.command("nodes")
@watch_option
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print a line {node, state, functions_only, machine, pid, version, registry, started, uptime_s, "
    "memory_bytes, queues: {name: partitions}, runs, suspended, calls, functions, processes, services: [...], "
    "projection: {messages, seconds}, metrics} for each.",
)
@connection_options
def list_nodes(*, watch: bool, every: float, as_json: bool, server: Server) -> None:
    """List the nodes of the mesh.

    For each: its state (up, leaving, or silent when it does not answer), how many partitions of each queue it owns,
    the workflow runs it has in memory, those suspended, the function calls under way, the functions it offers, its
    processes, how many of its services run, for how long it is up, its memory, and where its metrics are. A narrow
    terminal shows less of this; --json is everything.
    """
    from node.cli.directory import list_all

    empty = f"no node is up; start one with: mesh node APP{server.hint}"
    list_all(server, "nodes", _nodes_view, empty=empty, as_json=as_json, watch=watch, every_s=every)


async def ask_nodes(client: Client) -> dict[str, dict[str, Any]]:
    """What every member of the mesh answers to "how are you?" (`node.api.directory.ask_nodes`)."""
    from node.api import directory

    return await directory.ask_nodes(client)


def _nodes_view(records: Sequence[Mapping[str, Any]]) -> ListView:
    columns = (
        "node", "state", "pid", "runs", "suspended", "calls", "functions", "processes", "services", "up", "memory",
        "projection", "metrics", "version", "queues",
    )  # fmt: skip
    # What there is nothing to say about goes first.
    quiet = [
        name for name in ("metrics", "projection", "suspended", "services") if not any(map(itemgetter(name), records))
    ]
    order = ("version", "metrics", "functions", "memory", "up", "pid", "projection", "processes", "services", "calls",
             "suspended", "queues")  # fmt: skip
    spare = [*quiet, *(name for name in order if name not in quiet)]
    rows = [_node_row(record) for record in records]
    return ListView(columns, rows, status_column=1, spare=spare, last_characters=QUEUES_CHARACTERS)


def _node_row(record: Mapping[str, Any]) -> tuple[str, ...]:
    queues = " ".join(f"{name}:{partitions}" for name, partitions in sorted(record["queues"].items()))
    numbers = (record[name] for name in ("pid", "runs", "suspended", "calls", "functions", "processes"))
    services = _services_cell([str(service.get("state")) for service in record["services"]])
    up = span(record["uptime_s"]) if record["uptime_s"] is not None else "-"
    memory = f"{record['memory_bytes'] / 1e6:.0f}MB" if record["memory_bytes"] else "-"
    return (
        record["node"], record["state"], *map(str, numbers), services, up, memory, _projection_cell(record),
        str(record["metrics"] or "-"), record["version"] or "?", queues or "-",
    )  # fmt: skip


def _projection_cell(record: Mapping[str, Any]) -> str:
    """How far a node's projection is behind the streams."""
    projection = record["projection"]
    if not isinstance(projection, Mapping):
        return "-"
    messages = projection.get("messages")
    return f"{messages} behind" if messages else "current"


def _services_cell(states: list[str]) -> str:
    """How many services run: `2`, or `1/2` when not all do that should. One that has done its work does not count."""
    running = states.count("Running")
    wanted = running + sum(state in ("Starting", "Failed") for state in states)
    return str(running) if running == wanted else f"{running}/{wanted}"
