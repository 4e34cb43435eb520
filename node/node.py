"""One node: a connection, its part in the roster, an engine for each queue, a function host.

Start order: connection, streams, roster, engines, functions, directory. Stop order is the reverse, politely: the node
says that it leaves, hands its partitions over with their checkpoints, finishes its calls, and goes.
"""

from __future__ import annotations

import gc
import logging
import os
import secrets
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import anyio
import anyio.abc

from mesh import codec
from mesh.client import Client
from mesh.connection import Connection, ConnectOptions, connect
from mesh.errors import (
    TEMPORARY,
    Disconnected,
    InvalidName,
    MeshError,
    NoResponders,
    PayloadTooLarge,
    RequestTimeout,
    Undecodable,
)
from mesh.failure import Failure, Kind
from mesh.groups import unwrapped
from mesh.hosts import HostRecord
from mesh.outbox import Outbox
from mesh.pids import TOPOLOGY, node_id_fault
from mesh.roster import Roster
from mesh.subjects import node_request, token
from node.functions.host import FunctionHost
from node.machine.code import Code
from node.modules.standard import StandardModules
from node.queues.running import run_consumers
from node.registry import EntryId, NatsFunctionEntry, Placement, Registry
from node.services.placing import ServicePlacing
from node.services.services import Services
from node.services.spawning import ServiceSpawner
from node.units.live import LiveDriver
from node.units.names import MeshNames
from node.units.peers import Peers
from node.units.processes import ProcessHost
from node.units.switchboard import Switchboard
from node.workflows.engine import Engine
from store.streams import PARTITIONS_DEFAULT, ensure_queue

DRAIN_TIMEOUT_S: Final = 10.0
CANCEL_GRACE_S: Final = 1.0  # for processes that nobody supervises, when their node leaves
LAST_WORDS_S: Final = 1.0  # for output that nobody takes
PLAN_RETRY_S: Final = 0.5
ID_IN_USE_S: Final = 1.0  # a node that runs answers its ping within this
# A thread that wants Python's lock gets it after this; the default of 5 ms would be the latency of every call.
SWITCH_INTERVAL_S: Final = 0.0005
GC_THRESHOLDS: Final = (50_000, 20, 20)

_log = logging.getLogger(__name__)


class NodeIdInUse(MeshError):
    """Raised when a node is about to start under the id of another one that runs."""

    code = "node-id-in-use"

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        super().__init__(
            f"a node {node_id!r} runs on this mesh already; give this one another id, or stop that one first"
        )


class NoWorkers(MeshError):
    """Raised when a registry has nothing that a node could run."""

    code = "nothing-to-run"


@dataclass(frozen=True, slots=True)
class Offers:
    """Which of an app's functions, hosts, workers and services a node runs: glob patterns over entry ids.

    only: those that one of these fits; empty = all. without: but none that one of these fits.
    """

    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def __call__(self, entry_id: str) -> bool:
        """Whether an entry is run."""
        wanted = not self.only or any(fnmatchcase(entry_id, pattern) for pattern in self.only)
        return wanted and not any(fnmatchcase(entry_id, pattern) for pattern in self.without)


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """How a node is run. url None: the address of the registry's client entry."""

    url: str | Sequence[str]
    node_id: str = ""
    partitions: int = PARTITIONS_DEFAULT
    replicas: int = 1
    resident_max: int = 2000
    options: ConnectOptions = field(default_factory=ConnectOptions)
    workflows: bool = True
    functions: bool = True
    services: bool = True
    offers: Offers = field(default_factory=lambda: Offers())


class Node:
    """A running node. Made by `running_node`."""

    def __init__(self, config: NodeConfig, registry: Registry, conn: Connection, outbox: Outbox) -> None:
        self.config = config
        self.id = config.node_id or f"node-{secrets.token_hex(3)}"
        if fault := node_id_fault(self.id):
            raise InvalidName(fault)
        self.registry = registry
        self.code = Code(registry)
        self.client = Client(conn)
        self.conn = conn
        self.outbox = outbox
        self.engines: dict[str, Engine] = {}
        self._changed = anyio.Event()
        self._settling = anyio.Lock()
        self._leaving = False
        self._foreign = {
            str(entry_id): (entry.subject, str(entry.encoding))
            for entry_id, entry in registry.functions().items()
            if isinstance(entry, NatsFunctionEntry)
        }
        self._defaults = {str(entry_id): dict(entry.options) for entry_id, entry in registry.functions().items()}
        self._workers = _host_records(registry, config.offers) if config.workflows else []
        self.functions: FunctionHost | None = None
        self._tasks: anyio.abc.TaskGroup | None = None
        self.switchboard = Switchboard(
            node_id=self.id, directory=_Directory(self), tasks=lambda: self._group, unit_ended=self._unit_ended
        )
        self.modules = StandardModules(
            registry, self.client, node_id=self.id, deliver=self.switchboard.deliver, call=self._call,
            replicas=config.replicas,
        )  # fmt: skip
        self.live = LiveDriver(
            client=self.client,
            switchboard=self.switchboard,
            modules=self.modules,
            tasks=lambda: self._group,
            foreign=self.foreign,
            call_defaults=self.call_defaults,
        )
        host_ids = [str(host) for host in registry.process_hosts() if config.offers(str(host))]
        self.processes = ProcessHost(
            code=self.code,
            switchboard=self.switchboard,
            driver=self.live,
            host_ids=host_ids if config.functions else (),
        )
        self.names = MeshNames(
            conn, self.client.js, self.id, is_alive=self.switchboard.is_alive, is_here=self._is_here,
            on_change=self._on_mesh_name,
            replicas=config.replicas,
        )  # fmt: skip
        peers = Peers(
            conn, self.id, is_up=lambda node: self._boots.get(node) is not None, handle=self.switchboard.answer
        )
        self._boots: dict[str, str] = {}
        self._lives: dict[str, tuple[str, str]] = {}  # boot and incarnation of the others
        self._incarnation = ""
        self.switchboard.attach(hosts=self.processes, peers=peers, mesh_names=self.names)
        if config.functions:
            self.functions = FunctionHost(
                conn=conn, outbox=outbox, code=self.code, live=self.live, switchboard=self.switchboard, node_id=self.id,
                version=moonmesh_version(), offers=config.offers,
            )  # fmt: skip
        single = [
            str(entry_id)
            for entry_id, view in registry.services().items()
            if view.placement is Placement.ONE and self._offers_service(str(entry_id))
        ]
        self.roster = Roster(
            conn,
            self.client.js,
            node_id=self.id,
            incarnation=lambda: secrets.token_hex(8),
            queues=frozenset(record.queue for record in self._workers),
            on_change=self._on_change,
            replicas=config.replicas,
            details={
                "pid": os.getpid(),
                "boot": self.switchboard.boot,
                "functions": self.functions.offered if self.functions is not None else [],
                "hosts": sorted(self.processes.host_ids),
                "services": single,
            },
        )

        self.placing = ServicePlacing(
            registry.services(),
            self.names,
            node_id=self.id,
            claim_pid=self.switchboard.new_pid("#services"),
            offers=self._offers_service,
            may_act=lambda: self.roster.may_act(),
            nodes_with=self._nodes_with_service,
        )
        self.services = Services(
            registry,
            ServiceSpawner(
                registry=registry, switchboard=self.switchboard, client=self.client, tasks=lambda: self._group
            ),
            self.placing,
        )
        self._stop_services = anyio.Event()
        self._services_stopped = anyio.Event()

    async def _call(self, function_id: str, args: list[Any], context: Mapping[str, Any]) -> bytes:
        """Call a function wherever it is, once; its outcome."""
        return await self.live.calls.call(function_id, codec.encode([args, dict(context)]))

    def foreign(self, function_id: str) -> tuple[str, str] | None:
        """Subject and encoding of a function that a service outside of the mesh serves."""
        return self._foreign.get(function_id)

    def _offers_service(self, service_id: str) -> bool:
        """Whether this node may run a service: nobody has excluded it, and its host is here."""
        view = self.registry.services()[EntryId(service_id)]
        here = self.processes.runs(str(view.host)) or any(record.worker == view.host for record in self._workers)
        return here and self.config.services and self.config.offers(service_id)

    def _nodes_with_service(self, service_id: str) -> list[str]:
        return [
            str(member.node_id)
            for member in self.roster.members()
            if not member.leaving and service_id in self.roster.details(member.node_id).get("services", ())
        ]

    def _hosts_of(self, function_id: str) -> int:
        members = self.roster.members()
        return sum(function_id in self.roster.details(member.node_id).get("functions", ()) for member in members)

    def call_defaults(self, function_id: str) -> Mapping[str, Any]:
        """The call options that a function's entry sets."""
        return self._defaults.get(function_id, {})

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled. Ready when the node is a member and answers. Raises NodeIdInUse."""
        await self._check_id()
        js = self.client.js
        streams = {
            record.queue: await ensure_queue(
                js, record.queue, partitions=self.config.partitions, replicas=self.config.replicas
            )
            for record in self._workers
        }
        self.conn.subscribe_direct(node_request(self.id, "ping"), self._on_ping)
        self.conn.subscribe_direct(node_request(self.id, "status"), self._on_status)
        await self.client.hosts.announce(self._workers, replicas=self.config.replicas)
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            await tasks.start(self.roster.run)
            await tasks.start(self.names.run)
            await tasks.start(self.modules.run)
            for record in self._workers:
                engine = Engine(
                    conn=self.conn,
                    js=js,
                    outbox=self.outbox,
                    roster=self.roster,
                    hosts=self.client.hosts,
                    host=record,
                    stream=streams[record.queue],
                    code=self.code,
                    call_defaults=self.call_defaults,
                    foreign=self._foreign,
                    hosts_of=self._hosts_of,
                    switchboard=self.switchboard,
                    resident_max=self.config.resident_max,
                )
                self.engines[record.queue] = engine
                await tasks.start(engine.run)
                tasks.start_soon(self._serve_owner, engine)
            if self.functions is not None:
                await tasks.start(self.functions.run)
            tasks.start_soon(self._settle_for_ever)
            self._on_change()
            await tasks.start(self.placing.run)
            await tasks.start(self._serve_services)
            await tasks.start(run_consumers, self.registry, self.modules.queues, self.config.offers)
            task_status.started()
            _log.info("node %s is up", self.id)

    async def _check_id(self) -> None:
        """Two nodes of one id would answer for each other's units and take turns in being taken for lost."""
        try:
            await self.conn.request(node_request(self.id, "ping"), b"", timeout_s=ID_IN_USE_S)
        except NoResponders:
            return
        except RequestTimeout:
            _log.warning("something listens for node %s and is silent; if that is another node, stop it", self.id)
            return
        raise NodeIdInUse(self.id)

    async def _serve_services(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Run the services until the node leaves. Raises BootFailed when a required one does not start."""
        try:
            async with self.services:
                await self.services.boot()
                task_status.started()
                await self._stop_services.wait()
        finally:
            self._services_stopped.set()

    async def _end_processes(self) -> None:
        """Stop the services in order, then ask all other processes to stop, then end what is left."""
        await self.modules.queues.drain(DRAIN_TIMEOUT_S)
        self._stop_services.set()
        await self._services_stopped.wait()
        with anyio.move_on_after(DRAIN_TIMEOUT_S):
            await self.placing.give_up()
        for unit in self.processes.units:
            unit.post("cancel", None, b"node leaving", TOPOLOGY.encode())
        with anyio.move_on_after(CANCEL_GRACE_S):
            while self.processes.running:  # noqa: ASYNC110 - a last look around, not worth an event for each end
                await anyio.sleep(0.02)
        for unit in self.processes.units:
            unit.kill(Failure("process terminated: its node has left", Kind.UNAVAILABLE))

    async def leave(self) -> None:
        """Hand everything over and finish what is under way. The node is of no use afterwards."""
        _log.info("node %s leaves", self.id)
        self._leaving = True
        try:
            await self.roster.announce_leaving()
            async with self._settling, anyio.create_task_group() as tasks:
                for engine in self.engines.values():
                    for number in list(engine.partitions):
                        tasks.start_soon(self._give_back, engine, number)
            await self._end_processes()
            if self.functions is not None:
                await self.functions.drain(DRAIN_TIMEOUT_S)
            with anyio.move_on_after(LAST_WORDS_S):
                await self.modules.io.flush()
            await self.outbox.flush(DRAIN_TIMEOUT_S)
            await self.roster.leave()
        except* (*TEMPORARY, PayloadTooLarge) as group:
            _log.warning("node %s leaves without handing over, the others find out: %s", self.id, group.exceptions[0])

    # -- partitions --------------------------------------------------------------------------------------------

    def _on_change(self) -> None:
        self._changed.set()
        self.placing.look()
        members = self.roster.members()
        boots = {str(m.node_id): str(self.roster.details(m.node_id).get("boot", "")) for m in members}
        # A node that was taken for lost and is back has a new incarnation. To the others its units have ended; so have
        # theirs to it, or it would wait for ends that nobody tells it.
        lives = {str(m.node_id): (boots[m.node_id], m.incarnation) for m in members if m.node_id != self.id}
        was_lost = self._incarnation not in ("", self.roster.me.incarnation)
        self._incarnation = self.roster.me.incarnation
        if boots != self._boots or lives != self._lives or was_lost:
            gone = [node for node, life in self._lives.items() if was_lost or lives.get(node) != life]
            self._boots, self._lives = boots, lives
            for node in gone:
                self.switchboard.node_lost(node)
            if gone:
                self.switchboard.nodes_changed(gone)
                if self._tasks is not None and self.id == min(boots, default=""):
                    self._tasks.start_soon(self.names.purge)

    def _is_here(self, pid: str) -> bool:
        return self.switchboard.get(pid) is not None or pid == self.placing.claim_pid

    def _on_mesh_name(self, name: str) -> None:
        self.switchboard.on_mesh_name(name)
        self.placing.look()

    def boot_of(self, node_id: str) -> str | None:
        """Which start of a node is up."""
        return self._boots.get(node_id)

    def _unit_ended(self, pid: str) -> None:
        self.live.unit_ended(pid)

    @property
    def _group(self) -> anyio.abc.TaskGroup:
        if self._tasks is None:
            raise RuntimeError("the node is not running")
        return self._tasks

    async def _settle_for_ever(self) -> None:
        """Bring what this node runs in line with its plan, after every change of members or claims."""
        while True:
            with anyio.move_on_after(PLAN_RETRY_S):
                await self._changed.wait()
            self._changed = anyio.Event()
            for engine in self.engines.values():
                if self._leaving:
                    return
                try:
                    await self._settle(engine)
                except* (*TEMPORARY, PayloadTooLarge) as group:
                    _log.warning("queue %s: ownership not settled yet: %s", engine.queue, group.exceptions[0])

    async def _settle(self, engine: Engine) -> None:
        async with self._settling:
            await self._carry_out_plan(engine)

    async def _carry_out_plan(self, engine: Engine) -> None:
        plan = self.roster.plan(engine.queue, engine.stream.partitions)
        kept = {claim.partition for claim in (*plan.keep, *plan.release)}
        for number in [number for number in engine.partitions if number not in kept]:
            _log.warning("queue %s partition %d is lost to this node", engine.queue, number)
            engine.drop(number)
        async with anyio.create_task_group() as tasks:
            for claim in plan.release:
                if claim.partition in engine.partitions:
                    tasks.start_soon(self._give_back, engine, claim.partition)
                else:
                    tasks.start_soon(self.roster.release, claim, claim.checkpoint, self.roster.busy(claim))
            for claim in plan.claim:
                tasks.start_soon(self._take, engine, claim.partition)
            for claim in plan.keep:
                if claim.partition not in engine.partitions:
                    engine.take(claim, self.roster.busy(claim))

    async def _take(self, engine: Engine, number: int) -> None:
        for claim in self.roster.plan(engine.queue, engine.stream.partitions).claim:
            if claim.partition == number:
                busy = self.roster.busy(claim)
                mine = await self.roster.claim(claim)
                if mine is not None and number not in engine.partitions:
                    engine.take(mine, busy, handed_over=claim.node_id is None)

    async def _give_back(self, engine: Engine, number: int) -> None:
        given = engine.drop(number)
        if given is not None:
            claim, checkpoint, busy = given
            await self.roster.release(claim, checkpoint, busy)

    # -- questions ---------------------------------------------------------------------------------------------

    def _on_ping(self, _subject: str, reply: str, _data: bytes, _raw_headers: bytes | None) -> None:
        self._reply(reply, {"node": self.id})

    def _on_status(self, _subject: str, reply: str, _data: bytes, _raw_headers: bytes | None) -> None:
        self._reply(reply, self.status())

    def _reply(self, reply: str, value: object) -> None:
        if reply:
            try:
                self.conn.publish_nowait(reply, codec.encode(value))
            except Disconnected:
                return

    def status(self) -> dict[str, Any]:
        """What this node is doing, for `mesh nodes`."""
        queues = {}
        for queue, engine in self.engines.items():
            statistics = engine.statistics()
            queues[queue] = {name: getattr(statistics, name) for name in statistics.__slots__}
        return {
            "node": self.id, "pid": os.getpid(), "version": moonmesh_version(), "queues": queues,
            "calls": self.functions.running if self.functions is not None else 0,
            "functions": self.functions.offered if self.functions is not None else [],
            "processes": self.processes.running,
            "services": [asdict(statistics) for statistics in self.services.statistics()],
        }  # fmt: skip

    async def _serve_owner(self, engine: Engine) -> None:
        """Answer questions about workflows whose partition this node owns."""
        async with anyio.create_task_group() as tasks:

            def on_request(subject: str, reply: str, data: bytes, _raw_headers: bytes | None) -> None:
                number = subject.split(".")[3]
                if reply and number.isdecimal() and int(number) in engine.partitions:
                    tasks.start_soon(self._describe, engine, reply, data)

            subject = f"mesh.queue.{token(engine.queue)}.*.describe"
            subscription = self.conn.subscribe_direct(subject, on_request)
            try:
                await anyio.sleep_forever()
            finally:
                subscription.unsubscribe()

    async def _describe(self, engine: Engine, reply: str, data: bytes) -> None:
        try:
            wish = codec.decode(data)
            described = await engine.describe(str(wish["id"])) if isinstance(wish, dict) and "id" in wish else None
        except (Undecodable, MeshError) as error:
            described = {"status": "running", "note": str(error)}
        self._reply(reply, {**described, "node": self.id} if described else None)


class _Directory:
    """The nodes of the mesh, as the switchboard asks for them."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def boot_of(self, node_id: str) -> str | None:
        return self._node.boot_of(node_id)

    def nodes_with_host(self, host_id: str) -> list[str]:
        roster = self._node.roster
        return [
            member.node_id
            for member in roster.members()
            if not member.leaving
            and member.node_id != self._node.id
            and host_id in roster.details(member.node_id).get("hosts", ())
        ]


@asynccontextmanager
async def running_node(config: NodeConfig, registry: Registry) -> AsyncIterator[Node]:
    """Run a node while the block runs; leaving the block takes it down at once, `node.leave()` before that politely."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    # Runs are many small objects that live long and form no cycles: looking through them again and again for garbage
    # cost a third of a busy node's time.
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    name = f"moonmesh {config.node_id or 'node'}"
    with unwrapped():
        async with connect(config.url, name=name, options=config.options) as conn, Outbox(conn) as outbox:
            node = Node(config, registry, conn, outbox)
            async with anyio.create_task_group() as tasks:
                await tasks.start(node.run)
                yield node
                tasks.cancel_scope.cancel()


def moonmesh_version() -> str:
    """The version of this installation."""
    try:
        return version("moonmesh")
    except PackageNotFoundError:
        return "0.0.0"


def _host_records(registry: Registry, offers: Offers) -> list[HostRecord]:
    records = []
    for worker_id, worker in registry.workers().items():
        if not offers(str(worker_id)):
            continue
        names = sorted(
            {str(entry_id) for entry_id, entry in registry.workflows().items() if entry.worker == worker_id}
            | {
                entry.type_name
                for entry in registry.workflows().values()
                if entry.worker == worker_id and entry.type_name
            }
        )
        records.append(HostRecord(str(worker_id), str(worker.client), worker.task_queue, tuple(names)))
    return records


__all__ = ["NoWorkers", "Node", "NodeConfig", "NodeIdInUse", "running_node"]
