"""How services get their processes: as processes of this node, or as workflows that outlive every node.

A service whose process is a workflow has one workflow on the mesh, whatever its placement: every node that starts the
service finds it by its id. Stopping the service leaves it alone, for durable work does not end with a node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio
import anyio.abc

from mesh import codec
from mesh.client import Client
from mesh.errors import MeshError
from mesh.failure import Failure, Kind
from mesh.pids import TOPOLOGY, WorkflowPid
from mesh.subjects import WorkflowKey
from node.registry import EntryId, Registry, Value
from node.services.services import SpawnFailed, Watcher
from node.units.spawn_request import SpawnRequest
from node.units.spawning import Spawning
from node.units.table import UnitTable
from node.units.workflow_watches import WorkflowWatches


class ServiceSpawner:
    """Spawns the processes of services on this node."""

    def __init__(
        self,
        *,
        registry: Registry,
        units: UnitTable,
        spawning: Spawning,
        client: Client,
        tasks: Callable[[], anyio.abc.TaskGroup],
    ) -> None:
        self._registry = registry
        self._units = units
        self._spawning = spawning
        self._client = client
        self._tasks = tasks
        self._watches = WorkflowWatches(client, tasks)
        self._workflows: dict[str, tuple[anyio.CancelScope, Watcher]] = {}

    async def spawn(self, process_id: EntryId, host_id: EntryId, args: Sequence[Value], watcher: Watcher) -> str:
        """Spawn a process and return its PID. Raises SpawnFailed, or another MeshError."""
        if process_id in self._registry.workflows():
            return await self._start_workflow(process_id, host_id, args, watcher)
        ours = self._units.new_watcher(lambda outcome: watcher.ended(_failure(outcome)))
        wish = SpawnRequest(str(process_id), str(host_id), codec.encode([list(args), None]), monitor=True)
        outcome = self._spawning.spawn_here(ours.pid, wish)
        ok, value = codec.decode_outcome(outcome)
        if not ok:
            self._units.forget(ours)
            raise SpawnFailed(process_id, value)
        return str(value)

    async def cancel(self, pid: str, reason: str) -> None:
        """Ask a process to stop; a workflow is only left alone."""
        unit = self._units.get(pid)
        if unit is not None:
            unit.post("cancel", None, reason.encode(), TOPOLOGY.encode())
        self._leave(pid)

    async def kill(self, pid: str) -> None:
        """End a process without asking it."""
        unit = self._units.get(pid)
        if unit is not None:
            unit.kill(Failure("process terminated", Kind.INTERNAL))
        self._leave(pid)

    async def _start_workflow(self, workflow: EntryId, host: EntryId, args: Sequence[Value], watcher: Watcher) -> str:
        handle = await self._client.start(str(workflow), *args, host=str(host), id=f"service/{workflow}")
        record = await self._client.hosts.resolve(str(host))
        pid = str(WorkflowPid(record.client, record.worker, handle.id))
        scope = anyio.CancelScope()
        self._workflows[pid] = (scope, watcher)
        self._tasks().start_soon(self._wait_for, pid, handle.key, handle.run, scope, watcher)
        return pid

    async def _wait_for(self, pid: str, key: WorkflowKey, run: int, scope: anyio.CancelScope, watcher: Watcher) -> None:
        with scope:
            try:
                failure = _failure(await self._watches.outcome(key, run))
            except MeshError as error:
                failure = Failure(str(error), Kind.UNAVAILABLE)
            if self._workflows.pop(pid, None) is not None:
                watcher.ended(failure)

    def _leave(self, pid: str) -> None:
        waiting = self._workflows.pop(pid, None)
        if waiting is not None:
            scope, watcher = waiting
            scope.cancel()
            watcher.ended(None)


def _failure(outcome: bytes) -> Failure | None:
    ok, value = codec.decode_outcome(outcome)
    return None if ok else value
