"""Real nodes as processes of the operating system, to be killed, stopped and told to leave.

    async with a_node(app, server.url, node_id="a") as a, a_node(app, server.url, node_id="b") as b:
        a.kill()

A node is ready when the block starts. What it wrote is in `node.log()`; when the block fails, it is printed, and pytest
shows it with the failure. `mesh_command` runs any other command of the command line.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest
from anyio.streams.text import TextReceiveStream

from mesh.groups import unwrapped

START_TIMEOUT_S = 45.0  # a machine with much else to do, and nothing compiled yet
STOP_TIMEOUT_S = 20.0
# How long a command waits for answers of the mesh: on a machine with much else to do they may take longer than a person
# should have to wait.
ANSWER_TIMEOUT = "20s"
PROJECT = Path(__file__).parent.parent


def plain_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment without anything that says where a mesh is, so that no test reaches one by accident; and patient."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NATS_", "MESH_"))}
    path = os.pathsep.join(part for part in (str(PROJECT), kept.get("PYTHONPATH", "")) if part)
    ours = {"XDG_CONFIG_HOME": "/nonexistent", "PYTHONPATH": path, "NATS_TIMEOUT": ANSWER_TIMEOUT}
    return kept | ours | dict(extra or {})


@dataclass(frozen=True, slots=True)
class Finished:
    """What a command came to."""

    status: int
    out: str
    err: str

    def records(self) -> list[dict[str, Any]]:
        """What a command has printed as JSON, one object a line."""
        return [json.loads(line) for line in self.out.splitlines()]


async def mesh_command(
    *arguments: str,
    url: str | None = None,
    stdin: str = "",
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Finished:
    """Run `mesh` with these arguments as a process of its own. url: put into NATS_URL."""
    done = await anyio.run_process(
        [sys.executable, "-m", "node", *arguments],
        input=stdin.encode(),
        check=False,
        cwd=directory,
        env=plain_environment(({"NATS_URL": url} if url else {}) | dict(environ or {})),
    )
    return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())


class NodeProcess:
    """A node that runs as a process of its own."""

    def __init__(self, node_id: str, process: anyio.abc.Process, log_file: Path) -> None:
        self.id = node_id
        self.log_file = log_file
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit status, None while it runs."""
        return self._process.returncode

    def log(self) -> str:
        """Everything it has written to standard error."""
        return self.log_file.read_text(errors="replace")

    def kill(self) -> None:
        """SIGKILL: it has no chance to do anything more."""
        self._send(signal.SIGKILL)

    def stop(self) -> None:
        """SIGSTOP: it stands still and keeps its connections."""
        self._send(signal.SIGSTOP)

    def cont(self) -> None:
        """SIGCONT: it goes on, knowing nothing of the time between."""
        self._send(signal.SIGCONT)

    async def terminate(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """SIGTERM, and wait until it has left; returns its exit status."""
        self._send(signal.SIGTERM)
        return await self.wait(timeout_s)

    async def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Wait until it has ended; returns its exit status, below zero for a signal."""
        with anyio.move_on_after(timeout_s):
            return await self._process.wait()
        raise AssertionError(f"node {self.id} still runs after {timeout_s:g} s; it wrote:\n{self.log()}")

    def _send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(number)


@asynccontextmanager
async def a_node(
    app: Path,
    url: str,
    *,
    node_id: str,
    arguments: tuple[str, ...] = (),
    environ: Mapping[str, str] | None = None,
    start_timeout_s: float = START_TIMEOUT_S,
) -> AsyncIterator[NodeProcess]:
    """Run `mesh node APP` as a process while the block runs; it is ready when the block starts.

    arguments: further options of the command. After the block it is told to leave, by force if need be. It also leaves
    when this process is gone, however it died.
    """
    with tempfile.TemporaryDirectory(prefix="mesh-node-") as directory:
        log_file = Path(directory) / f"{node_id}.log"
        command = [sys.executable, "-m", "node", "node", str(app), "--nats", url, "--id", node_id, "--with-parent"]
        with log_file.open("wb") as log:
            process = await anyio.open_process(
                [*command, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=plain_environment(environ),
            )
        node = NodeProcess(node_id, process, log_file)
        try:
            # The error of the block leaves as itself, not wrapped into the group of our own task.
            with unwrapped():
                async with anyio.create_task_group() as tasks:
                    with anyio.move_on_after(start_timeout_s) as waiting:
                        await tasks.start(_read_stdout, process)
                    if waiting.cancelled_caught or process.returncode is not None:
                        pytest.fail(f"node {node_id} did not become ready; it wrote:\n{node.log()}")
                    yield node
                    tasks.cancel_scope.cancel()
        except BaseException:
            print(f"--- node {node_id} (pid {node.pid}, exit status {node.returncode}) wrote:\n{node.log()}---")
            raise
        finally:
            with anyio.CancelScope(shield=True):
                await _end(node)
                await process.aclose()


async def _read_stdout(
    process: anyio.abc.Process, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> None:
    """Ready with the line that says so, or when the process closes its output; reads on so that it never blocks."""
    if process.stdout is None:
        raise RuntimeError("the node's output is not piped")
    seen, told = "", False
    async for text in TextReceiveStream(process.stdout):
        seen += text
        if not told and " is ready" in seen and seen.endswith("\n"):
            told = True
            task_status.started()
    if not told:
        await process.wait()
        task_status.started()


async def _end(node: NodeProcess) -> None:
    if node.returncode is None:
        node.cont()
        with anyio.move_on_after(STOP_TIMEOUT_S):
            await node.terminate()
    if node.returncode is None:
        node.kill()
        await node.wait()
