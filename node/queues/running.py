"""Runs the consumers of a node: those that start at boot, each started again when its queue fails it.

How long to wait before a new start is what `lifecycle.restart` says (`node.services.supervision`). Consumers stop
before the functions of the node do, so that what they hold is settled.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

import anyio
import anyio.abc

from mesh.errors import Disconnected, MeshError, NotReady, RequestTimeout
from mesh.groups import unwrapped
from node.modules.queue import QueueModule
from node.registry import ConsumerEntry, EntryId, Registry, Startup
from node.services.services import BootFailed
from node.services.supervision import restart_delay_s

_log = logging.getLogger(__name__)


async def run_consumers(
    registry: Registry,
    queues: QueueModule,
    offers: Callable[[str], bool],
    *,
    task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Run what is to be run until cancelled. Ready when each has been started once.

    Raises BootFailed when one that is required does not start, and as itself what is no fault of the consumer: that the
    server cannot be reached or does not serve.
    """
    consumers = registry.consumers()
    wanted = [consumers[i] for i in registry.started_at_boot() if i in consumers and offers(str(i))]
    failed: dict[EntryId, str] = {}
    with unwrapped():
        async with anyio.create_task_group() as tasks:
            for entry in wanted:
                error = await tasks.start(_keep_running, entry, queues)
                if error is None or entry.lifecycle.startup is not Startup.REQUIRED:
                    continue
                if isinstance(error, (Disconnected, NotReady, RequestTimeout)):
                    raise error
                failed[entry.id] = _reason(entry, error)
            if failed:
                raise BootFailed(failed)
            task_status.started()


async def _keep_running(
    entry: ConsumerEntry, queues: QueueModule, *, task_status: anyio.abc.TaskStatus[Exception | None]
) -> None:
    """Run a consumer for ever, or as often as it may be started. Ready after the first start, with why it failed."""
    lifecycle = entry.lifecycle
    starts, told = 0, False
    while True:
        starts += 1
        begun = anyio.current_time()
        try:
            async with anyio.create_task_group() as tasks:
                with anyio.fail_after(lifecycle.start_timeout_s):
                    await tasks.start(queues.consume, str(entry.id))
                if not told:
                    told = True
                    task_status.started(None)
        except* (MeshError, TimeoutError) as group:
            error = group.exceptions[0]
        else:
            return
        reason = _reason(entry, error)
        if not told:
            told = True
            task_status.started(error)
        if anyio.current_time() - begun >= lifecycle.stable_threshold_s:
            starts = 1
        if lifecycle.restart.attempts_max and starts >= lifecycle.restart.attempts_max:
            _log.error("consumer %s has failed for good: %s", entry.id, reason)
            return
        pause_s = restart_delay_s(lifecycle.restart, starts, random.random())  # noqa: S311 - jitter
        _log.warning("consumer %s failed: %s; starting it again in %.1f s", entry.id, reason, pause_s)
        await anyio.sleep(pause_s)


def _reason(entry: ConsumerEntry, error: Exception) -> str:
    return str(error) or f"did not start within {entry.lifecycle.start_timeout_s:g} s"
