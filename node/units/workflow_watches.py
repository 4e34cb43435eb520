"""Processes that monitor workflows or are linked to them (contract 11.8).

A workflow's end is in its history, so nothing is registered with its owner: whoever watches waits for the end in the
log, also when it came before. Monitors get EXIT on any end; links get LINK_DOWN when it failed, EXIT when it did not.
A link is one-way: a process that dies is nothing to the workflow.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import anyio
import anyio.abc

from mesh import codec
from mesh.client import Client
from mesh.errors import MeshError, NotFound
from mesh.failure import Failure, Kind
from mesh.hosts import UnknownHost
from mesh.pids import WorkflowPid
from mesh.results import WorkflowFailed, WorkflowSuspended
from mesh.subjects import WorkflowKey
from mesh.timers import cron_subject
from node.units.unit import LiveUnit

SUSPENDED_PAUSE_S: Final = 1.0
AGAIN_S: Final = 0.5
SCHEDULED_PAUSE_S: Final = 1.0  # a cron schedule is no finer than that

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Watch:
    kinds: set[str]
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)


class WorkflowWatches:
    """What the units of a node watch among workflows."""

    def __init__(self, client: Client, tasks: Callable[[], anyio.abc.TaskGroup]) -> None:
        self._client = client
        self._tasks = tasks
        self._watches: dict[str, dict[str, _Watch]] = {}  # by unit, by workflow

    def add(self, unit: LiveUnit, pid: WorkflowPid, kind: str, *, run: int = 0) -> None:
        """Watch a workflow. kind: monitor or link. run: the one that was just started, 0 for the newest."""
        if unit.ended:
            return
        mine = self._watches.setdefault(unit.pid, {})
        watch = mine.get(str(pid))
        if watch is not None:
            watch.kinds.add(kind)
            return
        watch = mine[str(pid)] = _Watch({kind})
        self._tasks().start_soon(self._wait, unit, pid, run, watch)

    def remove(self, unit: LiveUnit, pid: WorkflowPid, kind: str) -> None:
        """Watch it no more."""
        watch = self._watches.get(unit.pid, {}).get(str(pid))
        if watch is not None:
            watch.kinds.discard(kind)
            if not watch.kinds:
                watch.scope.cancel()
                del self._watches[unit.pid][str(pid)]

    def unit_ended(self, pid: str) -> None:
        """A unit watches nothing any more."""
        for watch in self._watches.pop(pid, {}).values():
            watch.scope.cancel()

    async def outcome(self, key: WorkflowKey, run: int) -> bytes:
        """Wait for the end of a workflow, through retries and continued runs, suspended or not."""
        handle = self._client.get(key.id, queue=key.queue)
        handle.run = run
        while True:
            try:
                return codec.encode_success(await handle.result())
            except WorkflowFailed as error:
                return codec.encode_failure(error.failure)
            except WorkflowSuspended:
                await anyio.sleep(SUSPENDED_PAUSE_S)

    async def _wait(self, unit: LiveUnit, pid: WorkflowPid, run: int, watch: _Watch) -> None:
        with watch.scope:
            outcome = await self._end_of(pid, run)
            if self._watches.get(unit.pid, {}).pop(str(pid), None) is None or unit.ended:
                return
            source = str(pid).encode("utf-8", "surrogateescape")
            failure = outcome[:3] == codec.FAILURE_PREFIX
            if "monitor" in watch.kinds or not failure:
                unit.post("ended", None, outcome, source)
            if "link" in watch.kinds and failure:
                unit.post("link_down", None, outcome, source)

    async def _waits_for_its_first_run(self, key: WorkflowKey) -> bool:
        """Whether there is nothing of a workflow yet but its cron schedule."""
        history = self._client.history(key.queue)
        if await history.partition_of(key) is not None:
            return False
        return await self._client.js.get_last(history.stream, cron_subject(key)) is not None

    async def _end_of(self, pid: WorkflowPid, run: int) -> bytes:
        while True:
            try:
                queue = (await self._client.hosts.resolve(pid.worker)).queue
                key = WorkflowKey(queue, pid.workflow_id)
                if await self._waits_for_its_first_run(key):
                    await anyio.sleep(SCHEDULED_PAUSE_S)
                    continue
                return await self.outcome(key, run)
            except (NotFound, UnknownHost) as error:
                return codec.encode_failure(Failure(f"no such workflow: {pid} ({error})", Kind.NOT_FOUND, False))
            except MeshError as error:
                _log.info("watching %s: %s; trying again", pid, error)
                await anyio.sleep(AGAIN_S)
