"""What is measured runs in processes of its own: a server, nodes. Here they are started, asked and ended.

Invariant: a `Mesh` that is left leaves no process and no file behind.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
import psutil

import mesh.client
from bench.results import Setup
from bench.servers import BenchFailed, Servers, running_servers
from mesh import codec
from mesh.errors import NoResponders, RequestTimeout
from mesh.subjects import node_request
from store.streams import PARTITIONS_DEFAULT

HOST: Final = "bench:worker"
QUEUE: Final = "bench"
READY_S: Final = 30.0
END_S: Final = 15.0
ROOT: Final = Path(__file__).resolve().parent.parent
APP: Final = ROOT / "bench" / "app"


@dataclass(slots=True)
class NodeProcess:
    """A node in an OS process of its own."""

    id: str
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    async def wait(self) -> None:
        """Wait until it has ended; by force after a while."""
        try:
            await anyio.to_thread.run_sync(self.process.wait, END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            await anyio.to_thread.run_sync(self.process.wait)
        if self.process.stdin is not None:
            self.process.stdin.close()

    async def end(self) -> None:
        """End it politely."""
        self.process.terminate()
        await self.wait()

    def rss_mb(self) -> float:
        """Resident memory in MB (10^6 bytes)."""
        return rss_mb(self.pid)


@dataclass(slots=True)
class Mesh:
    """Servers, the nodes started on them, and a client. Made by `running_mesh`."""

    servers: Servers
    client: mesh.client.Client
    directory: Path
    nodes: dict[str, NodeProcess]
    replicas: int = 1

    async def start_node(self, node_id: str, *arguments: str, partitions: int | None = None) -> NodeProcess:
        """Start a node; returns when it answers, and owns so many partitions. arguments: more of the command line's."""
        log = self.directory / f"{node_id}.log"
        command = [
            *(sys.executable, "-m", "node", "node", str(APP), "--nats", self.servers.url, "--no-context"),
            *("--id", node_id, "--strict", "--log-level", "warning", "--with-parent"),
            *("--replicas", str(self.replicas)),
            *arguments,
        ]
        with log.open("wb") as output:
            # Own session: Ctrl-C is for us, and we end the nodes. Standard input: it leaves when we are gone.
            process = subprocess.Popen(  # noqa: ASYNC220 - returns at once
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                cwd=ROOT,
                env=_plain_environment(),
                start_new_session=True,
            )
        node = self.nodes[node_id] = NodeProcess(node_id, log, process)
        with anyio.move_on_after(READY_S):
            while process.poll() is None:
                status = await self.status(node_id)
                if status is not None and (partitions is None or status["partitions"] == partitions):
                    return node
                await anyio.sleep(0.02)
        raise BenchFailed(f"node {node_id} is not ready after {READY_S:g} s: {_last_lines(log)}")

    async def start_nodes(self, count: int, prefix: str = "bench") -> list[NodeProcess]:
        """Start nodes side by side; returns when they own all partitions, each a part."""
        names = [f"{prefix}-{i + 1}" for i in range(count)]
        async with anyio.create_task_group() as tasks:
            for name in names:
                tasks.start_soon(self.start_node, name)
        owned: dict[str, Any] = {}
        with anyio.move_on_after(READY_S):
            while True:
                owned = {name: (await self.status(name) or {}).get("partitions", 0) for name in names}
                if sum(owned.values()) == PARTITIONS_DEFAULT and all(owned.values()):
                    return [self.nodes[name] for name in names]
                await anyio.sleep(0.02)
        raise BenchFailed(f"the partitions are not spread over {count} nodes after {READY_S:g} s: {owned}")

    def cpu(self) -> dict[str, float]:
        """CPU seconds that nodes, servers and this client have used so far."""
        return {
            "node": sum(cpu_s(node.pid) for node in self.nodes.values()),
            "server": sum(cpu_s(pid) for pid in self.servers.pids),
            "client": own_cpu_s(),
        }

    async def end_node(self, node_id: str) -> None:
        """End a node politely."""
        await self.nodes.pop(node_id).end()

    async def status(self, node_id: str) -> dict[str, Any] | None:
        """What a node says of its engine; None while it does not answer."""
        try:
            reply = await self.client.conn.request(node_request(node_id, "status"), timeout_s=5)
        except (NoResponders, RequestTimeout):
            return None
        queues = codec.decode(reply.data)["queues"]
        status: dict[str, Any] | None = queues.get(QUEUE)
        return status


@asynccontextmanager
async def running_mesh(setup: Setup) -> AsyncIterator[Mesh]:
    """Run the servers of a setup on empty stores, and a client; nodes are started by the caller."""
    with tempfile.TemporaryDirectory(prefix="mesh-bench-") as name:
        directory = Path(name)
        async with (
            running_servers(directory, setup.sync, setup.replicas) as servers,
            mesh.client.connect(servers.url, name="bench") as client,
        ):
            mesh_ = Mesh(servers, client, directory, {}, setup.replicas)
            try:
                yield mesh_
            except BaseException:
                for node in mesh_.nodes.values():
                    sys.stderr.write(f"--- {node.id}: {_last_lines(node.log)}\n")
                raise
            finally:
                with anyio.CancelScope(shield=True):
                    await _end_all(mesh_.nodes.values())
                _tell_complaints(directory)


def used(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """CPU seconds used between two looks of `Mesh.cpu`."""
    return {who: round(after[who] - before[who], 3) for who in after}


async def _end_all(nodes: Iterable[NodeProcess]) -> None:
    async with anyio.create_task_group() as tasks:
        for node in nodes:
            tasks.start_soon(node.end)


def rss_mb(pid: int) -> float:
    """Resident memory of a process in MB (10^6 bytes)."""
    return float(psutil.Process(pid).memory_info().rss) / 1e6


def cpu_s(pid: int) -> float:
    """CPU time a process has used so far."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def own_cpu_s() -> float:
    """CPU time this process has used so far."""
    times = os.times()
    return times.user + times.system


def _plain_environment() -> dict[str, str]:
    """The environment without anything that says how to reach another mesh."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("NATS_", "MESH_"))}


def _tell_complaints(directory: Path) -> None:
    """What nodes have warned of may explain a figure, such as a lease that was lost on a busy machine."""
    for log in sorted(set(directory.glob("*.log")) - set(directory.glob("server-*.log"))):
        complaints = [line for line in log.read_text("utf-8", "replace").splitlines() if not line.startswith("node ")]
        if complaints:
            sys.stderr.write(f"  {log.stem} wrote {len(complaints)} lines, the last one: {complaints[-1][:300]}\n")


def _last_lines(log: Path) -> str:
    return "\n".join(log.read_text("utf-8", "replace").splitlines()[-5:]) or "it said nothing"
