"""Nodes: `mesh node` runs one, `mesh nodes` says which there are."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from node.cli.apps import APP, add_to_path, has_work
from node.cli.connecting import Server, connection_options, run
from node.cli.printing import print_json, print_table, say
from node.cli.values import METRICS_ADDRESS

if TYPE_CHECKING:
    import anyio

    from mesh.client import Client
    from node.logs import LogFormat
    from node.node import Node, NodeConfig
    from node.registry import Registry

LOG_FORMATS: Final = ("auto", "text", "json")
STATUS_TIMEOUT_S: Final = 1.0
LOG_LEVELS: Final = ("debug", "info", "warning", "error")

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
    import anyio

    from node.cli.client_entry import client_of, connection_of
    from node.logs import set_up
    from node.node import NodeConfig
    from node.offers import Offers

    name = node_id or new_node_id()
    set_up(log_format, log_level, fields={"node": name})
    registry = load_app(app, strict=strict)
    url, options = server.url, server.options(patience_s=float("inf") if patient else 0.0)
    entry = None if server.is_said else client_of(registry)
    if entry is not None:
        url, options = connection_of(entry, options, os.environ)
    config = NodeConfig(
        url, node_id=name, replicas=replicas, options=options, offers=Offers(only, without), metrics=metrics
    )
    # A step waits for the loop several times; uvloop's turns are shorter.
    uvloop = importlib.util.find_spec("uvloop") is not None
    sys.exit(anyio.run(_serve, config, registry, with_parent, backend_options={"use_uvloop": uvloop}))


def new_node_id() -> str:
    """A name for a node that is given none."""
    import secrets

    return f"node-{secrets.token_hex(3)}"


def load_app(app: Path, *, strict: bool) -> Registry:
    """Load the registry of an app; its problems are logged. Raises NoWorkers, and RegistryError when strict."""
    from node.node import NoWorkers
    from node.registry import load_registry

    add_to_path(app)
    registry = load_registry(app, strict=strict, environ=os.environ)
    for problem in registry.problems:
        _log.warning("%s", problem)
    if not has_work(registry):
        raise NoWorkers(
            f"nothing in {app} can be run: no sound function, process or worker; `mesh check {app}` says what is wrong"
        )
    return registry


async def _serve(config: NodeConfig, registry: Registry, with_parent: bool) -> int:
    """Run the node until it is told to go, then leave; returns the exit status."""
    import anyio

    from mesh.groups import unwrapped
    from node.node import running_node

    node: Node | None = None
    with unwrapped():
        async with anyio.create_task_group() as tasks:

            def go(reason: str) -> None:
                if node is None:
                    tasks.cancel_scope.cancel()
                else:
                    _log.info("%s", reason)
                    tasks.start_soon(_leave, node, tasks.cancel_scope)

            tasks.start_soon(_on_signals, go)
            if with_parent:
                tasks.start_soon(_on_closed_input, go)
            async with running_node(config, registry) as node:
                queues = ", ".join(sorted(node.engines)) or "none"
                click.echo(f"node {node.id} is ready, pid {os.getpid()}, queues {queues}")
                await anyio.sleep_forever()
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
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print [{node, state, pid, version, queues: {name: partitions}, runs, suspended, calls, functions, processes, "
    "services: [{id, state, starts, ...}]}].",
)
@connection_options
def list_nodes(*, as_json: bool, server: Server) -> None:
    """List the nodes of the mesh.

    For each: its state (up, leaving, or silent when it does not answer), how many partitions of each queue it owns,
    the workflow runs it has in memory, those suspended, the function calls under way, the functions it offers, its
    processes, and how many of its services run. A narrow terminal shows less of this; --json is everything.
    """

    async def main() -> None:
        async with server.client() as client:
            with server.deadline("the nodes"):
                records = await _node_records(client, server.url)
        if as_json:
            print_json(records)
            return
        if not records:
            say(f"no node is up; start one with: mesh node APP{server.hint}")
            return
        columns = (
            "node", "state", "pid", "runs", "suspended", "calls", "functions", "processes", "services", "version",
            "queues",
        )  # fmt: skip
        rows = [_node_row(record) for record in records]
        spare = [
            "version",
            "functions",
            *([] if any(record["suspended"] for record in records) else ["suspended"]),
            "pid",
        ]
        print_table(columns, rows, status_column=1, spare=spare)

    run(main)


async def ask_nodes(client: Client) -> dict[str, dict[str, Any]]:
    """What every member of the mesh answers to "how are you?"; {} for one that does not answer."""
    import anyio

    from mesh import codec
    from mesh.errors import Disconnected, NoResponders, RequestTimeout, Undecodable
    from mesh.subjects import node_request

    answers: dict[str, dict[str, Any]] = {}

    async def ask(node_id: str) -> None:
        try:
            reply = await client.conn.request(node_request(node_id, "status"), b"", timeout_s=STATUS_TIMEOUT_S)
            answer = codec.decode(reply.data)
        except (Disconnected, NoResponders, RequestTimeout, Undecodable):
            return
        if isinstance(answer, dict):
            answers[node_id] = answer

    members = await _members(client)
    async with anyio.create_task_group() as tasks:
        for node_id in members:
            tasks.start_soon(ask, node_id)
    return {node_id: answers.get(node_id, {}) | {"member": member} for node_id, member in members.items()}


async def _members(client: Client) -> dict[str, dict[str, Any]]:
    """The member keys as they stand. Raises NotFound when no node has ever been up."""
    from mesh.roster import BUCKET
    from mesh.subjects import bucket_key_name

    entries = await client.js.kv_entries(BUCKET, "member.>")
    members = {}
    for entry in entries:
        try:
            member = json.loads(entry.value)
        except ValueError:
            continue
        if isinstance(member, dict):
            members[bucket_key_name(entry.key.partition(".")[2])] = member
    return dict(sorted(members.items()))


async def _node_records(client: Client, url: str) -> list[dict[str, Any]]:
    from mesh.errors import NotFound
    from node.cli.locating import EmptyMesh

    try:
        answers = await ask_nodes(client)
    except NotFound:
        await client.js.api("INFO")
        raise EmptyMesh(url) from None
    return [_node_record(node_id, answer) for node_id, answer in answers.items()]


def _node_record(node_id: str, answer: dict[str, Any]) -> dict[str, Any]:
    member = answer["member"]
    queues = {
        name: statistics for name, statistics in (answer.get("queues") or {}).items() if isinstance(statistics, dict)
    }
    return {
        "node": node_id,
        "state": "silent" if "pid" not in answer else "leaving" if member.get("leaving") else "up",
        "pid": answer.get("pid") or member.get("pid"),
        "version": answer.get("version"),
        "queues": {name: statistics.get("partitions", 0) for name, statistics in queues.items()},
        "runs": sum(int(statistics.get("resident", 0)) for statistics in queues.values()),
        "suspended": sum(int(statistics.get("suspended", 0)) for statistics in queues.values()),
        "calls": answer.get("calls", 0),
        "functions": len(answer.get("functions") or ()),
        "processes": answer.get("processes", 0),
        "services": [service for service in answer.get("services") or () if isinstance(service, dict)],
    }


def _node_row(record: dict[str, Any]) -> tuple[str, ...]:
    queues = " ".join(f"{name}:{partitions}" for name, partitions in sorted(record["queues"].items()))
    numbers = (record[name] for name in ("pid", "runs", "suspended", "calls", "functions", "processes"))
    services = _services_cell([str(service.get("state")) for service in record["services"]])
    return (record["node"], record["state"], *map(str, numbers), services, record["version"] or "?", queues or "-")


def _services_cell(states: list[str]) -> str:
    """How many services run: `2`, or `1/2` when not all do that should. One that has done its work does not count."""
    running = states.count("Running")
    wanted = running + sum(state in ("Starting", "Failed") for state in states)
    return str(running) if running == wanted else f"{running}/{wanted}"
