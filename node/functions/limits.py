"""The limits of a worker's activities on one node: calls of workflows, over all functions of the worker (contract 2.2).

How many run and begin is decided by `node.functions.throttle`; here is whose limits they are, how a limit of the whole
task queue is shared between the nodes, and which of the waiting calls begins next. What begins it, is the host.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from node.functions.job import Function, Job
from node.functions.throttle import Throttle
from node.registry import EntryId, Registry, WorkerOptions


@dataclass(slots=True)
class WorkerLimit:
    """The limits of one worker. Rates are calls a second, None = no limit; that of the queue is the whole mesh's."""

    throttle: Throttle
    worker_per_second: float | None
    queue_per_second: float | None
    functions: list[Function] = field(default_factory=list)
    waiting: int = 0
    timer: asyncio.TimerHandle | None = None  # somebody waits for the time to come
    beginning: bool = False  # what waits is being begun

    def share(self, nodes: int) -> None:
        """Take this node's share of the queue's rate. nodes: how many live ones offer functions of this worker."""
        share = None if self.queue_per_second is None else self.queue_per_second / max(1, nodes)
        rates = [rate for rate in (self.worker_per_second, share) if rate is not None]
        self.throttle.per_second = min(rates, default=None)

    def admits(self, function: Function, now_s: float) -> bool:
        """Whether a call that has just come may begin: nobody waits whose turn it is."""
        return self.timer is None and not function.limited and self.throttle.wait_s(now_s) == 0.0

    def hold(self, job: Job) -> None:
        """Have a call wait."""
        job.function.limited.append(job)
        self.waiting += 1

    def release(self, job: Job) -> None:
        """Let a call wait no more."""
        job.function.limited.remove(job)
        self.waiting -= 1

    def next(self) -> Job | None:
        """The call that has waited longest of those whose function has a place for it."""
        if not self.waiting:
            return None
        heads = [function.limited[0] for function in self.functions if not function.is_full and function.limited_first]
        return min(heads, key=lambda job: job.waits_since_s, default=None)


def worker_limit(options: WorkerOptions) -> WorkerLimit:
    """The limits of a worker, as long as no other node is known."""
    limit = WorkerLimit(
        Throttle(options.activities_max), options.worker_activities_per_second, options.queue_activities_per_second
    )
    limit.share(1)
    return limit


def worker_limits(registry: Registry) -> dict[EntryId, WorkerLimit]:
    """The limits of all workers."""
    return {worker_id: worker_limit(worker.options) for worker_id, worker in registry.workers().items()}
