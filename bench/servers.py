"""The servers of a bench: the embedded one, or a cluster of three on loopback, each in a process of its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

import mesh.client
from mesh.errors import MeshError
from mesh.server import embedded_server
from mesh.server_process import find_binary
from mesh.sync import SYNC_INTERVALS, Sync

CLUSTER: Final = 3
READY_S: Final = 20.0
END_S: Final = 10.0


class BenchFailed(MeshError):
    """Raised when something did not do what was to be measured: then there is no figure."""

    code = "bench-failed"


@dataclass(frozen=True, slots=True)
class Servers:
    """Where clients connect (addresses split by commas), and the processes."""

    url: str
    pids: Sequence[int]


@asynccontextmanager
async def running_servers(directory: Path, sync: Sync, replicas: int) -> AsyncIterator[Servers]:
    """Run one server, or a cluster of three when there are to be copies; they are ready when the block starts."""
    if replicas == 1:
        async with embedded_server(directory / "store", port=0, sync=sync) as server:
            yield Servers(server.url, (server.pid,))
        return
    ports = free_ports(2 * CLUSTER)
    clients, routes = ports[:CLUSTER], ports[CLUSTER:]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for i in range(CLUSTER):
            config = directory / f"server-{i}.conf"
            config.write_text(_configuration(i, directory, sync, clients[i], routes), "utf-8")
            with (directory / f"server-{i}.log").open("wb") as log:
                processes.append(
                    subprocess.Popen([*_tie(), str(find_binary()), "-c", str(config)], stdout=log, stderr=log)  # noqa: ASYNC220 - returns at once
                )
        url = ",".join(f"nats://127.0.0.1:{port}" for port in clients)
        await _wait_ready(url, directory)
        yield Servers(url, tuple(process.pid for process in processes))
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(_end, processes)


def _configuration(number: int, directory: Path, sync: Sync, port: int, routes: Sequence[int]) -> str:
    urls = ", ".join(f'"nats://127.0.0.1:{route}"' for route in routes)
    return (
        f'server_name: "bench-{number}"\nlisten: "127.0.0.1:{port}"\n'
        f'jetstream {{ store_dir: "{directory}/store-{number}"\n sync_interval: "{SYNC_INTERVALS[sync]}" }}\n'
        f'cluster {{ name: "bench"\n listen: "127.0.0.1:{routes[number]}"\n routes: [{urls}] }}\n'
    )


async def _wait_ready(url: str, directory: Path) -> None:
    """Wait until the cluster has a leader for JetStream that sees all servers: before, no stream gets three copies."""
    error: Exception | None = None
    with anyio.move_on_after(READY_S):
        while True:
            try:
                async with mesh.client.connect(url, name="bench-ready") as client:
                    stream = {
                        "name": "ready",
                        "subjects": ["bench.ready"],
                        "num_replicas": CLUSTER,
                        "storage": "memory",
                    }
                    await client.js.api("STREAM.CREATE.ready", stream, timeout_s=2)
                    await client.js.api("STREAM.DELETE.ready", timeout_s=2)
                    return
            except (MeshError, OSError) as failed:
                error = failed
                await anyio.sleep(0.1)
    log = (directory / "server-0.log").read_text("utf-8", "replace").splitlines()[-3:]
    raise BenchFailed(f"the three servers are not ready after {READY_S:g} s: {error}; the first one says {log}")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now. Another process may take one before the server does; then it does not start."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def _tie() -> tuple[str, ...]:
    """What ends a server with this process, even if that is killed, on systems that can."""
    return ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
