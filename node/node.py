"""One node: a connection, its part in the roster, an engine for each queue, a function host, processes and services.

Here is how the parts are put together and started. Start order: connection, streams, roster, engines, functions,
directory. How a node leaves is in `node.leaving`.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import anyio
import anyio.abc

from mesh import codec
from mesh.client import Client
from mesh.connection import Connection, ConnectOptions, connect
from mesh.errors import (
    InvalidName,
    MeshError,
    NoResponders,
    RequestTimeout,
)
from mesh.groups import unwrapped
from mesh.hosts import HostRecord
from mesh.outbox import Outbox
from mesh.pids import node_id_fault
from mesh.presence import Presence
from mesh.references import NO_QUEUE
from mesh.roster import Roster
from mesh.server_settings import sync_interval
from mesh.server_store import stores_here
from mesh.subjects import node_request
from mesh.version import VERSION
from node.api.service import ControlApi
from node.functions.host import FunctionHost
from node.intake import Intake
from node.inventory import Inventory, memory_bytes
from node.keys import keys_of, told_keys, watch_keys
from node.leaving import leave
from node.machine.code import Code
from node.members import Members
from node.modules.standard import StandardModules
from node.offers import Offers, host_records
from node.questions import Questions
from node.queues.running import run_consumers
from node.registry import EntryId, NatsFunctionEntry, Registry, content_fingerprint
from node.registry.kinds import WorkerOptions
from node.services.placing import ServicePlacing
from node.services.service_spawner import ServiceSpawner
from node.services.services import Services, ServiceStatistics
from node.services.serving import Serving
from node.telemetry.node_telemetry import NodeTelemetry
from node.units.answers import Answers
from node.units.farewells import Farewells
from node.units.live import LiveDriver
from node.units.names import MeshNames
from node.units.naming import Naming
from node.units.peers import Peers
from node.units.processes import ProcessHost
from node.units.spawning import Spawning
from node.units.switchboard import Switchboard
from node.units.table import UnitTable
from node.watchdog import STUCK_S, Running, Watchdog
from node.workflows.engine import Engine
from node.workflows.ownership import Ownership
from store.durability import promise, settings_of
from store.streams import PARTITIONS_DEFAULT, QueueStream, ensure_queue

if TYPE_CHECKING:
    from node.telemetry.tracing import Tracing
    from store.projecting import Projecting

REGISTRY_HASH_DIGITS: Final = 12  # enough to see that two nodes differ
SUSPENDED_SHOWN_MAX: Final = 10  # of each queue
WRITTEN_S: Final = 10.0  # a node that cannot start waits so long for what it has written, as an election takes
ID_IN_USE_S: Final = 1.0  # a node that runs answers its ping within this

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
class NodeConfig:
    """How a node is run. url: one or several addresses. offers: which part of the app it runs.

    metrics: [HOST]:PORT where /metrics, /healthz and /readyz are served; None = nowhere.
    functions_only: it serves functions and is no member of the mesh: it owns no workflows, runs no processes and
    services, and needs no right to do so.
    projection: file of the projection that it keeps, so that workflows can be listed; None = it keeps none.
    api: whether it serves the control API. stuck_s: the node ends itself when its loop has not turned for so long,
    and the processor was busy; 0 = never.
    tracing: makes the node's spans; it is shut down with the node. None = none are made.
    """

    url: str | Sequence[str]
    node_id: str = ""
    partitions: int = PARTITIONS_DEFAULT
    replicas: int = 1
    resident_max: int = 2000
    options: ConnectOptions = field(default_factory=ConnectOptions)
    workflows: bool = True
    functions: bool = True
    services: bool = True
    functions_only: bool = False
    api: bool = True
    stuck_s: float = STUCK_S
    offers: Offers = field(default_factory=lambda: Offers())
    metrics: str | None = None
    projection: Path | None = None
    tracing: Tracing | None = None


class Node:
    """A running node. Made by `running_node`."""

    def __init__(
        self, config: NodeConfig, registry: Registry, conn: Connection, outbox: Outbox, telemetry: NodeTelemetry
    ) -> None:
        self.config = config
        self.id = config.node_id
        if fault := node_id_fault(self.id):
            raise InvalidName(fault)
        self.version = VERSION
        self.state: Literal["starting", "up", "leaving"] = "starting"
        self.telemetry = telemetry
        self.registry = registry
        self.code = Code(registry)
        self.client = Client(conn)
        self.conn = conn
        self.outbox = outbox
        self.engines: dict[str, Engine] = {}
        self._watchdog = Watchdog(self.id, config.url, config.options, self._running, stuck_s=config.stuck_s)
        self.members = Members(self.id)
        self._foreign = {
            str(entry_id): (entry.subject, str(entry.encoding))
            for entry_id, entry in registry.functions().items()
            if isinstance(entry, NatsFunctionEntry)
        }
        self._defaults = {str(entry_id): dict(entry.options) for entry_id, entry in registry.functions().items()}
        self._workers = host_records(registry, config.offers) if config.workflows and not config.functions_only else []
        self.functions: FunctionHost | None = None
        self._tasks: anyio.abc.TaskGroup | None = None
        self.units = UnitTable(self.id, self.members.boot_of)
        peers = Peers(
            conn, self.id, is_up=lambda node: self.members.boot_of(node) is not None,
            handle=lambda verb, args, done: self._answers.answer(verb, args, done),
            listens=not config.functions_only,
        )  # fmt: skip
        self.names = MeshNames(
            conn, self.client.js, self.id, is_alive=self.units.is_alive, is_here=self._is_here,
            on_change=self._on_mesh_name,
            replicas=config.replicas,
        )  # fmt: skip
        self.switchboard = Switchboard(self.units, peers)
        self.naming = Naming(
            self.units, self.switchboard, self.names, tasks=lambda: self._group,
            name_changed=lambda name, pid: self.processes.name_changed(name, pid),
        )  # fmt: skip
        self.farewells = Farewells(self.units, self.switchboard, self.naming, peers, unit_ended=self._unit_ended)
        self.spawning = Spawning(
            self.units, self.switchboard, self.naming, peers,
            hosts=lambda: self.processes, nodes_with_host=self.members.nodes_with_host,
        )  # fmt: skip
        self._answers = Answers(self.units, self.switchboard, self.naming, self.farewells, self.spawning)
        self.modules = StandardModules(
            registry, self.client, node_id=self.id, deliver=self.units.deliver, call=self._call,
            replicas=config.replicas, is_member=not config.functions_only,
        )  # fmt: skip
        self.live = LiveDriver(
            client=self.client,
            units=self.units,
            switchboard=self.switchboard,
            naming=self.naming,
            spawning=self.spawning,
            modules=self.modules,
            tasks=lambda: self._group,
            foreign=self.foreign,
            call_defaults=self.call_defaults,
        )
        host_ids = [str(host) for host in registry.process_hosts() if config.offers(str(host))]
        self.processes = ProcessHost(
            code=self.code,
            units=self.units,
            farewells=self.farewells,
            driver=self.live,
            host_ids=host_ids if config.functions and not config.functions_only else (),
        )
        if config.functions:
            self.functions = FunctionHost(
                conn=conn, outbox=outbox, code=self.code, live=self.live, units=self.units, farewells=self.farewells,
                spawning=self.spawning, node_id=self.id, version=self.version, offers=config.offers,
                process_calls=not config.functions_only,
                tracing=config.tracing,
            )  # fmt: skip
        self.placing = ServicePlacing(
            registry.services(),
            self.names,
            node_id=self.id,
            claim_pid=self.units.new_pid("#services"),
            offers=self._offers_service,
            may_act=lambda: self.roster.may_act(),
            nodes_with=self.members.nodes_with_service,
        )
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
                "boot": self.units.boot,
                "functions": self.functions.offered if self.functions is not None else [],
                "hosts": sorted(self.processes.host_ids),
                "services": self.placing.single,
            },
        )
        self.members.attach(self.roster)
        self.ownership = Ownership(self.roster, self.engines)
        self.services = Services(
            registry,
            ServiceSpawner(
                registry=registry,
                units=self.units,
                spawning=self.spawning,
                client=self.client,
                tasks=lambda: self._group,
            ),
            self.placing,
        )
        self.serving = Serving(self.services)
        self.inventory = Inventory(
            self.id, registry, functions=self.functions, processes=self.processes, links=self.switchboard.links,
            naming=self.naming, services=self.services.statistics,
            encrypted=self.conn.codec is not None,
        )  # fmt: skip
        self._registry_hash = content_fingerprint(registry)[:REGISTRY_HASH_DIGITS]
        self._began_ns = time.time_ns()
        self.metrics_at = ""  # http://HOST:PORT, once they are served
        self.presence: Presence | None = None
        if config.functions_only and self.functions is not None:
            if not self.functions.offered:
                raise NoWorkers(f"node {self.id} is to serve functions only, and the app offers it none")
            details = {"pid": os.getpid(), "boot": self.units.boot, "functions": self.functions.offered}
            self.presence = Presence(self.client.js, self.id, details)
        self.projecting: Projecting | None = None
        if config.projection:
            # Imported when needed: it brings SQLite with it, a tenth of a node's start.
            from store.projecting import Projecting

            self.projecting = Projecting(conn, self.client.js, config.projection)
        self.intake = Intake(conn)
        self.api = (
            ControlApi(self.client, node_id=self.id, version=self.version, projecting=self.projecting)
            if config.api
            else None
        )

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

    def call_defaults(self, function_id: str) -> Mapping[str, Any]:
        """The call options that a function's entry sets."""
        return self._defaults.get(function_id, {})

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled. Ready when the node is a member and answers. Raises NodeIdInUse."""
        await self._check_id()
        if self.presence is not None:
            await self._serve_functions(self.presence, task_status)
            return
        js = self.client.js
        streams = {
            record.queue: await ensure_queue(
                js, record.queue, partitions=self.config.partitions, replicas=self.config.replicas
            )
            for record in self._workers
        }
        for queue in (NO_QUEUE, *streams):
            await js.objects.ensure_bucket(queue, replicas=self.config.replicas)
        questions = Questions(
            self.conn, self.id, status=self.status, suspended=self.suspended, inventory=self.inventory
        )
        questions.start()
        await self.client.hosts.announce(self._workers, replicas=self.config.replicas)
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            await tasks.start(self.roster.run)
            await tasks.start(self.names.run)
            await tasks.start(self.modules.run)
            for record in self._workers:
                engine = self.engines[record.queue] = self._engine(record, streams[record.queue])
                await tasks.start(engine.run)
                tasks.start_soon(questions.serve_owner, engine)
            if self.functions is not None:
                await tasks.start(self.functions.run)
            tasks.start_soon(self._say_durability, streams.values())
            if self.conn.codec is not None:
                tasks.start_soon(watch_keys, self.conn.codec, self._on_other_keys)
            tasks.start_soon(self._watchdog.run)
            tasks.start_soon(self.ownership.run)
            self._on_change()
            await tasks.start(self.placing.run)
            await tasks.start(self.serving.run)
            await tasks.start(run_consumers, self.registry, self.modules.queues, self.config.offers)
            if self.projecting is not None:
                await tasks.start(self.projecting.run)
            await tasks.start(self.intake.run)
            if self.api is not None:
                await tasks.start(self.api.run)
            if self.config.metrics is not None:
                tasks.start_soon(self.telemetry.loop_lag.run)
            self.state = "up"
            task_status.started()
            _log.info("node %s is up", self.id)

    def _engine(self, record: HostRecord, stream: QueueStream) -> Engine:
        """What runs the workflows of a queue here."""
        return Engine(
            conn=self.conn,
            js=self.client.js,
            outbox=self.outbox,
            roster=self.roster,
            hosts=self.client.hosts,
            host=record,
            options=self._options_of(record),
            stream=stream,
            code=self.code,
            call_defaults=self.call_defaults,
            foreign=self._foreign,
            hosts_of=self.members.hosts_of,
            switchboard=self.switchboard,
            naming=self.naming,
            resident_max=self.config.resident_max,
            tracing=self.config.tracing,
            take_call=self.functions.take if self.functions is not None else None,
        )

    async def _serve_functions(self, presence: Presence, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Serve functions and nothing else. Ready when calls arrive."""
        Questions(self.conn, self.id, status=self.status, suspended=self.suspended, inventory=self.inventory).start()
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            await tasks.start(self.modules.run)
            if self.functions is not None:
                await tasks.start(self.functions.run)
            tasks.start_soon(self._watchdog.run)
            tasks.start_soon(presence.run)
            if self.config.metrics is not None:
                tasks.start_soon(self.telemetry.loop_lag.run)
            self.state = "up"
            task_status.started()
            _log.info("node %s is up and serves functions only", self.id)

    def status(self) -> dict[str, Any]:
        """What this node is doing, for `mesh nodes`."""
        queues = {}
        for queue, engine in self.engines.items():
            statistics = engine.statistics()
            queues[queue] = {name: getattr(statistics, name) for name in statistics.__slots__}
        return {
            "node": self.id, "pid": os.getpid(), "version": self.version, "queues": queues,
            "suspended": [run for engine in self.engines.values() for run in engine.suspended()[:SUSPENDED_SHOWN_MAX]],
            "machine": socket.gethostname(), "memory_bytes": memory_bytes(),
            "began_ns": self._began_ns, "now_ns": time.time_ns(), "registry": self._registry_hash,
            "workers": [
                {
                    "worker": record.worker, "queue": record.queue, "workflows": list(record.workflows),
                    "durability": str(self._options_of(record).durability),
                    "encryption": str(self._options_of(record).encryption),
                    "keys": told_keys(self.conn.codec, record.queue),
                }
                for record in self._workers
            ],
            "calls": self.functions.running if self.functions is not None else 0,
            "functions": self.functions.offered if self.functions is not None else [],
            "processes": self.processes.running,
            "services": [self._told(statistics) for statistics in self.services.statistics()],
            "keys": told_keys(self.conn.codec),
            "metrics": self.metrics_at or None,
            "projection": self.projecting.lag().to_wire() if self.projecting is not None else None,
        }  # fmt: skip

    def _told(self, statistics: ServiceStatistics) -> dict[str, Any]:
        """How a service is, for everybody: where payloads are encrypted, without what its code has said."""
        told = asdict(statistics)
        if self.conn.codec is not None and told["last_error"]:
            told["last_error"] = "encrypted"
        return told

    def suspended(self) -> list[dict[str, Any]]:
        """The runs of this node that cannot go on, and why."""
        return [run for engine in self.engines.values() for run in engine.suspended()]

    def _running(self) -> Running | None:
        """The run whose code is being executed right now; asked from another thread."""
        return next((found for engine in self.engines.values() if (found := engine.running) is not None), None)

    def _options_of(self, record: HostRecord) -> WorkerOptions:
        return self.registry.workers()[EntryId(record.worker)].options

    async def _say_durability(self, streams: Iterable[QueueStream]) -> None:
        """Say what acknowledged events survive, loudly where that is less than a worker wants.

        Nobody waits for it: servers that tell how often they flush are listened to for a while.
        """
        sync = await sync_interval(self.conn, stores_here())
        for stream in streams:
            try:
                config = (await self.client.js.stream_info(stream.name)).config
            except MeshError as error:
                _log.warning("queue %s: what its stream promises is not known: %s", stream.queue, error)
                continue
            given = promise(settings_of(config, sync))
            wants = {r.worker: self._options_of(r).durability for r in self._workers if r.queue == stream.queue}
            about = {"queue": stream.queue, "durability": str(given.durability)}
            _log.info("queue %s: %s", stream.queue, given.text, extra=about)
            for worker, want in wants.items():
                if not given.durability.covers(want):
                    _log.warning(
                        "worker %s wants durability %s and queue %s gives it %s: %s; to have more: %s",
                        worker, want, stream.queue, given.durability, given.text, given.more, extra=about,
                    )  # fmt: skip

    async def _check_id(self) -> None:
        """Two nodes of one id would answer for each other's units and take turns in being taken for lost."""
        if self.config.functions_only:
            return  # has no units that others know of, and need not be allowed to ask
        try:
            await self.conn.request(node_request(self.id, "ping"), b"", timeout_s=ID_IN_USE_S)
        except NoResponders:
            return
        except RequestTimeout:
            _log.warning("something listens for node %s and is silent; if that is another node, stop it", self.id)
            return
        raise NodeIdInUse(self.id)

    async def leave(self) -> None:
        """Hand everything over and finish what is under way. The node is of no use afterwards."""
        self.state = "leaving"
        await leave(self)

    def _on_change(self) -> None:
        self.ownership.look()
        self.placing.look()
        gone = self.members.look()
        for node in gone:
            self.farewells.node_lost(node)
        if self.members.host_has_gone() or gone:
            for engine in self.engines.values():
                engine.node_gone()
        if gone:
            self.farewells.nodes_changed(gone)
            if self._tasks is not None and self.members.is_first:
                self._tasks.start_soon(self.names.purge)
        if self.functions is not None:
            self.functions.share_limits(self.members.offering)

    def _on_other_keys(self) -> None:
        for engine in self.engines.values():
            engine.keys_changed()

    def _is_here(self, pid: str) -> bool:
        return self.units.get(pid) is not None or pid == self.placing.claim_pid

    def _on_mesh_name(self, name: str) -> None:
        self.naming.look_again(name)
        self.placing.look()

    def _unit_ended(self, pid: str) -> None:
        self.live.unit_ended(pid)

    @property
    def _group(self) -> anyio.abc.TaskGroup:
        if self._tasks is None:
            raise RuntimeError("the node is not running")
        return self._tasks


@asynccontextmanager
async def running_node(config: NodeConfig, registry: Registry) -> AsyncIterator[Node]:
    """Run a node while the block runs; leaving the block takes it down at once, `node.leave()` before that politely."""
    with unwrapped():
        config = replace(
            config,
            node_id=config.node_id or f"node-{secrets.token_hex(3)}",
            options=replace(config.options, codec=keys_of(registry, config.options.codec)),
        )
        telemetry = NodeTelemetry(config.node_id)
        async with (
            telemetry.logging_live(),
            telemetry.traced(config.tracing),
            telemetry.served(config.metrics) as served_at,
            connect(config.url, name=f"moonmesh {config.node_id}", options=config.options) as conn,
            Outbox(conn) as outbox,
        ):
            node = Node(config, registry, conn, outbox, telemetry)
            telemetry.attach(node)
            node.metrics_at = served_at
            if served_at:
                _log.info("metrics are at %s/metrics", served_at)
            async with anyio.create_task_group() as tasks:
                try:
                    await tasks.start(node.run)
                except MeshError:
                    # It has offered functions already, and what they have done is only recorded once that is written.
                    with suppress(RequestTimeout):
                        await outbox.flush(WRITTEN_S)
                    raise
                yield node
                tasks.cancel_scope.cancel()


__all__ = ["NoWorkers", "Node", "NodeConfig", "NodeIdInUse", "running_node"]
