"""`mesh up`: a whole mesh on this machine, a server and some nodes as processes, watched and ended together.

A node that dies is started again, as is the server; one that dies too often takes everything down, since then nobody
would notice. Nodes are in sessions of their own, so that Ctrl-C reaches only us and the order of the end is ours: the
nodes first, together, the server last. Each holds the reading end of a pipe of ours: should we be killed, they notice.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from mesh.errors import MeshError
from mesh.stores import STORE_VARIABLE, STORES
from mesh.sync import ALWAYS, SYNCS, Sync
from node.cli.apps import APP
from node.cli.connecting import run
from node.cli.nodes import load_app, log_options, metrics_option, store_option, strict_option
from node.cli.printing import say

if TYPE_CHECKING:
    import anyio.abc

    from node.logs import LogFormat
    from node.registry import Registry

NODES_MAX: Final = 64
# Longer than a node takes to finish the calls under way (10 s) and to write what is left (10 s). What a worker says in
# `worker_stop_timeout` comes on top.
LEAVE_TIMEOUT_S: Final = 25.0
# Beside the server's store. The first node keeps it, so that workflows can be listed.
PROJECTION: Final = "projection.sqlite3"

# In the commands that are proposed.
TRIED_ID: Final = "try-1"

_OURS: Final = ("NATS_", "MESH_METRICS")

_log = logging.getLogger(__name__)


class NodeFailed(MeshError):
    """Raised when a node of `mesh up` cannot be started, or dies again and again."""

    code = "node-failed"


@click.command()
@click.argument("app", type=APP)
@click.option("--nodes", type=click.IntRange(1, NODES_MAX), default=1, show_default=True, help="How many nodes to run.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Where the server listens. It asks for no password: keep it on this machine.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=4222,
    show_default=True,
    help="Port of the server; 0 for any free one.",
)
@click.option(
    "--sync",
    type=click.Choice(SYNCS),
    default=ALWAYS,
    show_default=True,
    help="always survives a power failure, relaxed is faster and survives crashes of processes only.",
)
@click.option(
    "--keys",
    "key_file",
    envvar="MESH_KEYS",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Keys that the nodes encrypt payloads with; `mesh keys new FILE` makes one.",
)
@metrics_option
@store_option
@strict_option
@log_options
def up(
    app: Path,
    *,
    nodes: int,
    host: str,
    port: int,
    sync: Sync,
    key_file: Path | None,
    metrics: str | None,
    store: Path | None,
    strict: bool,
    log_format: LogFormat,
    log_level: str,
) -> None:
    """Run a mesh on this machine: a NATS server of its own and nodes with the app in the directory APP.

    A node or server that dies is started again. Ctrl-C or SIGTERM: the nodes finish what is under way and leave, then
    the server stops; everything goes on from there next time. A second Ctrl-C ends it at once.

    With --metrics the first node serves at that port, each further one at the port after it.
    """
    from node.logs import set_up

    set_up(log_format, log_level)
    registry = load_app(app, strict=strict)
    directory = store or Path(STORES) / (app.resolve().name or "root")
    if key_file is not None:
        from mesh.key_files import read_key_file

        read_key_file(key_file)  # what is wrong with it is said here, not by each node
    with_keys = ["--keys", str(key_file)] if key_file is not None else []
    arguments = [*(["--strict"] if strict else []), *with_keys, "--log-format", log_format, "--log-level", log_level]

    async def main() -> None:
        from mesh.server import embedded_server

        async with embedded_server(directory, host=host, port=port, sync=sync) as server:
            click.echo(f"server   {server.url}  pid {server.pid}  store {directory}  sync {sync}")
            stop_timeouts_s = [worker.options.stop_timeout_s for worker in registry.workers().values()]
            leave_s = LEAVE_TIMEOUT_S + max(stop_timeouts_s, default=0.0)
            projection = ("--projection", str(directory / PROJECTION))
            crew = [
                _Child(
                    f"node-{i + 1}",
                    app,
                    server.url,
                    (*arguments, *_metrics_of(metrics, i), *(() if i else projection)),
                    leave_s,
                    directory,
                )
                for i in range(nodes)
            ]
            usual = port == 4222 and not os.environ.get("NATS_URL")
            await _run(crew, _next_steps(registry, "" if usual else server.url, key_file))

    run(main)


def _metrics_of(address: str | None, number: int) -> tuple[str, ...]:
    """The options with which the node of this number, from 0, serves its metrics."""
    from node.telemetry.address import following_address

    return ("--metrics", following_address(address, number)) if address is not None else ()


async def _run(crew: list[_Child], next_steps: list[str]) -> None:
    """Run the nodes until a signal and let them leave. Raises NodeFailed; Exit when it had to be at once."""
    import anyio

    from mesh.groups import unwrapped

    with unwrapped():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_on_signals, crew)
            async with anyio.create_task_group() as children:
                async with anyio.create_task_group() as starting:
                    for child in crew:
                        starting.start_soon(children.start, child.keep_running)
                for line in next_steps:
                    click.echo(line)
            # All have left.
            tasks.cancel_scope.cancel()
    if any(child.killed for child in crew):
        raise click.exceptions.Exit(128 + signal.SIGINT)


async def _on_signals(crew: list[_Child]) -> None:
    """Tell all nodes to leave at the first SIGINT or SIGTERM, kill them at the second or when it takes too long."""
    import anyio

    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        first = True
        patience = anyio.CancelScope()
        with patience:
            async for _ in signals:
                if not first:
                    break
                first = False
                patience.deadline = anyio.current_time() + max(child.leave_timeout_s for child in crew)
                say("the nodes leave, then the server stops; once more ends everything at once")
                for child in crew:
                    child.leave()
        for child in crew:
            child.kill()


@dataclass(slots=True)
class _Child:
    """One node: its process, started again when it dies."""

    node_id: str
    app: Path
    url: str
    arguments: tuple[str, ...]
    leave_timeout_s: float
    store: Path
    killed: bool = False
    _leaving: bool = False
    _process: anyio.abc.Process | None = None
    _deaths: list[float] = field(default_factory=list)

    def leave(self) -> None:
        """Tell it to leave; it is not started again."""
        self._leaving = True
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """End it now."""
        self._leaving = self.killed = True
        self._send(signal.SIGKILL)

    async def keep_running(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Run the node until it is told to leave and has left. Ready when the node is. Raises NodeFailed."""
        import anyio

        from mesh.server import DEFAULT_RESTARTS

        try:
            ready = await self._start()
            if not ready and not self._leaving:
                raise NodeFailed(f"{self.node_id} could not start; see its log above")
            task_status.started()
            while not self._leaving:
                code = await self._wait()
                if self._leaving:
                    break
                self._deaths.append(anyio.current_time())
                delay_s = DEFAULT_RESTARTS.delay_s(self._deaths, anyio.current_time())
                if delay_s is None:
                    raise NodeFailed(f"{self.node_id} {_ending(code)}, too often to go on; see its log above")
                _log.warning("%s %s; starting it again in %g s", self.node_id, _ending(code), delay_s)
                await anyio.sleep(delay_s)
                if not self._leaving:
                    await self._start()
            await self._wait()
        finally:
            with anyio.CancelScope(shield=True):
                await self._end()

    async def _start(self) -> bool:
        """Start the process and wait until it is ready; False when it ended before."""
        import anyio
        from anyio.streams.text import TextReceiveStream

        command = [sys.executable, "-m", "node", "node", str(self.app), "--nats", self.url, "--no-context"]
        command += ["--id", self.node_id, "--with-parent", *self.arguments]
        # Nothing of a mesh elsewhere: the server is ours and asks for no password. Each node has metrics of its own.
        environ = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        environ[STORE_VARIABLE] = str(self.store.absolute())
        self._process = await anyio.open_process(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=None, env=environ, start_new_session=True
        )
        seen = ""
        if self._process.stdout is not None:
            async for text in TextReceiveStream(self._process.stdout):
                seen += text
                if " is ready" in seen and seen.endswith("\n"):
                    click.echo(
                        f"{self.node_id:8} pid {self._process.pid}  queues {seen.strip().partition(', queues ')[2]}"
                    )
                    return True
        # Waited for here: else our signal to the dead process would reap it first, and asyncio complains about that.
        await self._process.wait()
        return False

    async def _wait(self) -> int:
        """Wait until the process has ended, passing on what it prints, so that it never blocks."""
        from anyio.streams.text import TextReceiveStream

        if self._process is None:
            return 0
        if self._process.stdout is not None:
            async for text in TextReceiveStream(self._process.stdout):
                click.echo(text, nl=False)
        return await self._process.wait()

    async def _end(self) -> None:
        import anyio

        if self._process is None:
            return
        if self._process.returncode is None:
            self._send(signal.SIGTERM)
            with anyio.move_on_after(self.leave_timeout_s):
                await self._process.wait()
        if self._process.returncode is None:
            self._send(signal.SIGKILL)
            await self._process.wait()
        await self._process.aclose()

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)


def _ending(code: int) -> str:
    """An exit status in words."""
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"


def _next_steps(registry: Registry, address: str, key_file: Path | None) -> list[str]:
    """Commands to try, made of what the app has; each can be typed in as it stands.

    address: when it must be said. key_file: that of the nodes; without it a workflow would be started in plain.
    """
    steps = [(f"export NATS_URL={shlex.quote(address)}", "which mesh")] if address else []
    if key_file is not None:
        steps.append((f"export MESH_KEYS={shlex.quote(str(key_file))}", "its keys"))
    workers = Counter(view.worker for view in registry.workflows().values() if view.worker)
    if workers:
        # The first one of those on the worker that has most of them: others are mostly for children.
        worker = workers.most_common(1)[0][0]
        entries = [registry.entries[name] for name, view in registry.workflows().items() if view.worker == worker]
        workflow = min(entries, key=lambda entry: (entry.file, entry.line)).id
        steps.append(
            (
                f"mesh start {shlex.quote(workflow)} --id {TRIED_ID} --input '{{}}'",
                "its input goes into the braces",
            )
        )
        steps.append((f"mesh show {TRIED_ID}", "what it does, and its history"))
        steps.append(("mesh watch", "what happens on the mesh, live"))
    elif registry.functions():
        steps.append(("mesh functions", "who offers what"))
    if registry.services():
        steps.append(("mesh services", "how they do"))
    steps.append(("mesh nodes", "who is there"))
    steps.append(("mesh doctor", "whether all is well"))
    width = max((len(command) for command, about in steps if about), default=0)
    lines = [f"  {command:<{width}}   {about}".rstrip() for command, about in steps]
    return ["next, in another terminal:", *lines, "Ctrl-C stops everything"]
