"""The processes of a chaos run: nats-servers and nodes, each on a host of its own, to be killed, stopped and started.

    async with a_fleet(record, app, nodes=3, servers=1) as fleet:
        fleet.nodes["n1"].kill()
        await fleet.nodes["n1"].start()

All of them write to `logs/` of the record directory. A process that ends without being told to is noted in
`fleet.deaths`: no node and no server may do that, whatever happens to the others. So is one that is told to leave and does
not, or fails as it leaves.

With private hosts (`tests.chaos.hosts`) every store is on a small disk of its own, which can be filled.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, ClassVar, Final
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

import anyio
import anyio.to_thread

from mesh.groups import unwrapped
from tests.chaos import clock
from tests.chaos.hosts import Hosts, is_private, mount_small_disk, some_hosts, unmount
from tests.cluster import plain_environment
from tests.ports import free_ports
from tests.servers import nats_server_binary
from tests.waiting import wait_until, wait_until_async

READY: Final = " is ready"
READY_TIMEOUT_S: Final = 60.0
# A node that leaves finishes the calls under way. Longer than that, and it does not leave at all.
LEAVE_TIMEOUT_S: Final = 30.0
ASK_TIMEOUT_S: Final = 2.0
EFFECTS: Final = "MESH_CHAOS_EFFECTS"
# Enough for what the load writes in ten minutes, little enough to be filled in a moment (it is memory).
DISK_MB: Final = 256
BALLAST: Final = "ballast"
# Little enough that what some workflows carry has to go through an object store.
MESSAGE_BYTES_MAX: Final = 32 * 1024
# What answers itself over the monitoring port must not go through somebody's proxy.
_open = build_opener(ProxyHandler({})).open


@dataclass(frozen=True, slots=True)
class Death:
    """A process that did not end as it was told to: at all, or so. status: below zero for a signal."""

    name: str
    how: str
    status: int
    at: float


class Process:
    """One process on a host, started again and again under the same name.

    may_end: whether something is done to it that it need not survive. leaves_with: the statuses of one that was told to leave. By the signal, when that came before it could listen.
    """

    leaves_with: ClassVar[tuple[int, ...]] = (0, -signal.SIGTERM)

    def __init__(
        self, name: str, hosts: Hosts, command: Sequence[str], log_file: Path, environ: dict[str, str]
    ) -> None:
        self.name = name
        self.host = name
        self.log_file = log_file
        self.deaths: list[Death] = []
        self.starts = 0
        self._hosts = hosts
        self._command = list(command)
        self._environ = environ
        self._process: subprocess.Popen[bytes] | None = None
        self._leaving = False
        self.may_end = False
        self._log_from = 0

    @property
    def alive(self) -> bool:
        """Whether it runs, or stands still."""
        self.look()
        return self._process is not None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError(f"{self.name} does not run")
        return self._process.pid

    def look(self) -> None:
        """Note a death that nobody has asked for."""
        if self._process is not None and not self._leaving and (status := self._process.poll()) is not None:
            if not self.may_end:
                self.deaths.append(Death(self.name, "ended by itself", status, time.time()))
            self._process = None

    async def start(self) -> None:
        """Start it, if it does not run. Does not wait until it is ready."""
        if self.alive:
            return
        with self.log_file.open("ab") as log:
            self._log_from = log.tell()
            self._process = self._spawn(log)
        self.starts += 1

    def _spawn(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        # A session of its own: Ctrl-C is for us, and we decide what comes of it. Started by this thread, which stays:
        # the kernel ends the process when the thread that started it is gone.
        return subprocess.Popen(
            self._hosts.on(self.host, self._command),
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environ, start_new_session=True,
        )  # fmt: skip

    def kill(self) -> None:
        """SIGKILL, also of what stands still."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """SIGSTOP: it stands still and keeps its connections."""
        self._signal(signal.SIGSTOP)

    def cont(self) -> None:
        """SIGCONT: it goes on, knowing nothing of the time between."""
        self._signal(signal.SIGCONT)

    async def terminate(self, timeout_s: float = LEAVE_TIMEOUT_S) -> int | None:
        """SIGTERM, and wait until it has left; its exit status, None when it had to be killed in the end."""
        self._signal(signal.SIGTERM)
        process = self._process
        if process is None:
            return None
        deadline = anyio.current_time() + timeout_s
        self._leaving = True
        try:
            while process.poll() is None:
                if anyio.current_time() > deadline:
                    self.kill()
                    self.deaths.append(Death(self.name, f"did not leave within {timeout_s:g} s", 0, time.time()))
                    return None
                await anyio.sleep(0.02)
            if self._process is process:
                self._process = None
                if process.returncode not in self.leaves_with:
                    self.deaths.append(Death(self.name, "failed as it left", process.returncode, time.time()))
            return process.returncode
        finally:
            self._leaving = False

    async def restart(self) -> int | None:
        """Have it leave, and start it again; with which status it had left."""
        status = await self.terminate()
        await self.start()
        return status

    async def is_well(self) -> bool:
        """Whether it does its work, since it was started last."""
        raise NotImplementedError

    def said(self) -> str:
        """What it has written since it was started last."""
        with self.log_file.open("rb") as log:
            log.seek(self._log_from)
            return log.read().decode(errors="replace")

    def _signal(self, number: signal.Signals) -> None:
        self.look()
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)


class Node(Process):
    """A node of ours, with a clock that can be set."""

    def __init__(self, *arguments: Any, clock_file: Path) -> None:
        super().__init__(*arguments)
        self._clock_file = clock_file
        self.set_clock(0.0)

    @property
    def is_ready(self) -> bool:
        """Whether it has said so since it was started last."""
        return READY in self.said()

    async def is_well(self) -> bool:
        return self.is_ready

    def set_clock(self, seconds: float) -> None:
        """Have its clock go so many seconds ahead, from now on."""
        clock.set_ahead(self._clock_file, seconds)


class Server(Process):
    """A nats-server. disk: where its store is, when that is a small disk of its own."""

    leaves_with = (0, 1, -signal.SIGTERM)

    def __init__(
        self, *arguments: Any, address: str, ports: tuple[int, int, int], store: Path, disk: Path | None
    ) -> None:
        super().__init__(*arguments)
        self.address = address
        self.store = store
        self.client_port, self.cluster_port, self.monitor_port = ports
        self.disk = disk

    @property
    def url(self) -> str:
        return f"nats://{self.address}:{self.client_port}"

    @property
    def route(self) -> str:
        return f"nats://{self.address}:{self.cluster_port}"

    async def ask(self, path: str) -> dict[str, Any]:
        """An answer of its monitoring port, {} when it does not answer."""
        return await anyio.to_thread.run_sync(self._get, path, abandon_on_cancel=True)

    def _get(self, path: str) -> dict[str, Any]:
        try:
            with _open(f"http://{self.address}:{self.monitor_port}/{path}", timeout=ASK_TIMEOUT_S) as answer:
                found: dict[str, Any] = json.load(answer)
        except HTTPError as error:  # a server that is not well says so with this status, and why in the body
            try:
                found = json.load(error)
            except (OSError, ValueError):
                return {}
        except (OSError, ValueError):
            return {}
        return found

    async def is_healthy(self) -> bool:
        """Whether it serves JetStream and is up to date with its cluster."""
        return (await self.ask("healthz")).get("status") == "ok"

    async def is_well(self) -> bool:
        return await self.is_healthy()

    async def last_seqs(self) -> dict[str, int]:
        """The last sequence of every stream of which it has a copy."""
        said = await self.ask("jsz?streams=true")
        return {
            stream["name"]: int(stream["state"]["last_seq"])
            for account in said.get("account_details") or []
            for stream in account.get("stream_detail") or []
        }

    def lose_store(self) -> None:
        """Remove all that it has stored. Only when it does not run."""
        shutil.rmtree(self.store)

    async def disk_trouble(self) -> str:
        """What a disk that was full has done to it that stays: a stream whose write failed, JetStream turned off."""
        for path in ("healthz?js-enabled-only=true", "healthz"):
            said = await self.ask(path)
            error = str(said.get("error", ""))
            if "js-enabled" in path and said.get("status") != "ok":
                return error or "JetStream is off"
            if "write error" in error:
                return error
        return ""

    def fill_disk(self) -> None:
        """Take all the room that its disk has left."""
        if self.disk is None:
            raise RuntimeError(f"the store of {self.name} is on no disk of its own")
        with (self.disk / BALLAST).open("wb") as ballast:
            size = shutil.disk_usage(self.disk).free
            while size >= 4096:
                try:
                    os.posix_fallocate(ballast.fileno(), ballast.seek(0, os.SEEK_END), size)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    size //= 2

    def empty_disk(self) -> None:
        """Give the room back."""
        if self.disk is not None:
            (self.disk / BALLAST).unlink(missing_ok=True)


@dataclass(slots=True)
class Fleet:
    """All of them. Made by `a_fleet`."""

    hosts: Hosts
    servers: dict[str, Server] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)

    @property
    def urls(self) -> list[str]:
        """The servers, as we and the nodes reach them."""
        return [server.url for server in self.servers.values()]

    @property
    def deaths(self) -> list[Death]:
        """Who has ended otherwise than it was told to, in order."""
        processes: list[Process] = [*self.servers.values(), *self.nodes.values()]
        for process in processes:
            process.look()
        return sorted((death for process in processes for death in process.deaths), key=lambda death: death.at)

    def host_of(self, name: str) -> str:
        """The host of a node or server."""
        return (self.servers | self.nodes)[name].host

    async def is_led_by(self, servers: Sequence[Server]) -> bool:
        """Whether these servers agree that the cluster and every stream in it is led by one of them."""
        names = {server.name for server in servers}
        for server in servers:
            said = await server.ask("jsz?streams=true")
            leaders = [(said.get("meta_cluster") or {}).get("leader")]
            for account in said.get("account_details") or []:
                for stream in account.get("stream_detail") or []:
                    leaders.append((stream.get("cluster") or {}).get("leader"))
            if not names.issuperset(leaders):
                return False
        return True

    async def stream_leader(self, prefix: str = "WF_") -> str | None:
        """The server that leads the stream whose name begins so, as the first server that knows says."""
        for server in self.servers.values():
            if not server.alive:
                continue
            for account in (await server.ask("jsz?streams=true")).get("account_details") or []:
                for stream in account.get("stream_detail") or []:
                    leader = (stream.get("cluster") or {}).get("leader")
                    if str(stream.get("name", "")).startswith(prefix) and leader in self.servers:
                        return str(leader)
        return None


@asynccontextmanager
async def a_fleet(
    directory: Path, app: Path, *, nodes: int, servers: int, node_command: Sequence[str] = ("node",)
) -> AsyncIterator[Fleet]:
    """Run servers and nodes while the block runs; the nodes are ready when it starts. Nobody is left after it.

    directory: the run's record; `logs`, `effects` are made in it. node_command: the module to run instead of `node`,
    with its first arguments. Raises AssertionError with what was written if somebody does not become ready.
    """
    for name in ("logs", "effects", "servers", "clocks"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    server_names = [f"s{number}" for number in range(1, servers + 1)]
    node_names = [f"n{number}" for number in range(1, nodes + 1)]
    with unwrapped():
        async with some_hosts([*node_names, *server_names]) as hosts:
            fleet = Fleet(hosts)
            try:
                await _add_servers(fleet, directory, server_names)
                for name in node_names:
                    _add_node(fleet, directory, app, name, node_command)
                for process in [*fleet.servers.values(), *fleet.nodes.values()]:
                    await process.start()
                await _wait_ready(fleet)
                yield fleet
            finally:
                for process in [*fleet.nodes.values(), *fleet.servers.values()]:
                    process.kill()
                with anyio.CancelScope(shield=True):
                    for server in fleet.servers.values():
                        if server.disk is not None:
                            await unmount(server.disk)
                shutil.rmtree(directory / "servers", ignore_errors=True)
                shutil.rmtree(directory / "clocks", ignore_errors=True)


async def _wait_ready(fleet: Fleet) -> None:
    for server in fleet.servers.values():
        await _wait_for(server, wait_until_async(server.is_healthy, READY_TIMEOUT_S))
    for node in fleet.nodes.values():
        await _wait_for(node, wait_until(lambda node=node: node.is_ready or not node.alive, READY_TIMEOUT_S))  # type: ignore[misc]
        if not node.alive:
            raise AssertionError(f"{node.name} ended at once; it wrote:\n{node.said()}")


async def _wait_for(process: Process, waiting: Any) -> None:
    try:
        await waiting
    except AssertionError as error:
        raise AssertionError(f"{process.name} is not ready: {error}; it wrote:\n{process.said()}") from None


async def _add_servers(fleet: Fleet, directory: Path, names: Sequence[str]) -> None:
    apart = fleet.hosts.are_apart
    free = iter([] if apart else free_ports(3 * len(names)))
    for name in names:
        ports = (4222, 6222, 8222) if apart else (next(free), next(free), next(free))
        disk = directory / "servers" / name if is_private() else None
        if disk is not None:
            await mount_small_disk(disk, DISK_MB)
        command = [nats_server_binary(), "-c", str(directory / "servers" / f"{name}.conf")]
        fleet.servers[name] = Server(
            name, fleet.hosts, command, directory / "logs" / f"{name}.log", plain_environment(),
            address=fleet.hosts.address(name), ports=ports, store=directory / "servers" / name / "store", disk=disk,
        )  # fmt: skip
    for name, server in fleet.servers.items():
        (directory / "servers" / f"{name}.conf").write_text(_configuration(server, list(fleet.servers.values())))


def _configuration(server: Server, servers: Sequence[Server]) -> str:
    lines = [
        f'server_name: "{server.name}"',
        f'listen: "{server.address}:{server.client_port}"',
        f'http: "{server.address}:{server.monitor_port}"',
        f"max_payload: {MESSAGE_BYTES_MAX}",
        f'jetstream {{ store_dir: "{server.store}", max_file_store: {DISK_MB}MB }}',
    ]
    if len(servers) > 1:
        routes = ", ".join(f'"{other.route}"' for other in servers)
        listen = f"{server.address}:{server.cluster_port}"
        lines.append(f'cluster {{ name: chaos, listen: "{listen}", no_advertise: true, routes: [{routes}] }}')
    return "\n".join(lines) + "\n"


def _add_node(fleet: Fleet, directory: Path, app: Path, name: str, node_command: Sequence[str]) -> None:
    clock_file = directory / "clocks" / name
    command = [
        *(sys.executable, "-m", "tests.chaos.clock", *node_command, "node", str(app)),
        *("--id", name, "--nats", ",".join(fleet.urls), "--log-format", "text"),
        *(("--replicas", "3") if len(fleet.servers) >= 3 else ()),
    ]
    environ = plain_environment({
        clock.FILE: str(clock_file), EFFECTS: str(directory / "effects" / f"{name}.jsonl"), "PYTHONUNBUFFERED": "1",
    })  # fmt: skip
    fleet.nodes[name] = Node(
        name, fleet.hosts, command, directory / "logs" / f"{name}.log", environ, clock_file=clock_file
    )
