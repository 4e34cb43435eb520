"""The Python client's view of schedules: made for a workflow by its name, found by their id on any queue.

await client.schedules.add("nightly", "app.workflows:report", cron="30 2 * * *", timezone="Europe/Paris")
await client.schedules.pause("nightly")
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import anyio

from mesh import codec
from mesh.errors import NotFound
from mesh.events import StartSpec
from mesh.jetstream import JetStream
from mesh.schedules import (
    UTC_NAME,
    BadSchedule,
    NoSchedule,
    Schedule,
    ScheduleChanged,
    find_schedule,
    list_schedules,
    next_ns,
    pause_schedule,
    put_schedule,
    remove_schedule,
    resume_schedule,
)
from mesh.starting import new_entropy, start_workflow
from mesh.states import describe
from mesh.stored_messages import StoredMessage
from mesh.subjects import WorkflowKey
from mesh.timers import EVERY

if TYPE_CHECKING:
    from mesh.client import Client

LOOK_UPS_AT_ONCE = 16
MOVES_MAX = 5


@dataclass(frozen=True, slots=True)
class ScheduleState:
    """A schedule and what has come of it. next_ns: 0 when it is paused or unknown. run: the newest one, 0 = none yet.

    status: of the newest run, "" when there was none.
    """

    schedule: Schedule
    next_ns: int
    run: int
    started_ns: int
    status: str


class Schedules:
    """The schedules of a mesh."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def add(
        self,
        id: str,
        workflow: str,
        *args: Any,
        host: str | None = None,
        cron: str = "",
        every: str = "",
        timezone: str = UTC_NAME,
        memo: Mapping[str, Any] | None = None,
        search_attributes: Mapping[str, Any] | None = None,
        run_timeout_s: float = 0.0,
        execution_timeout_s: float = 0.0,
        retry_policy: Mapping[str, Any] | None = None,
        paused: bool = False,
        instead: bool = False,
    ) -> Schedule:
        """Have a workflow started regularly: by a cron expression in a time zone, or every so often.

        paused: not before it is resumed. instead: also when there is a schedule with this id, in its place.
        host: as of `Client.start`.
        Raises UnknownHost, UnknownWorkflow, NobodyOffers, SeveralHosts, BadSchedule, ScheduleExists.
        """
        if bool(cron) == bool(every):
            raise BadSchedule("a schedule is a cron expression or an interval: give one of cron and every")
        record = await self._client.host_offering(host, workflow)
        spec = StartSpec(
            workflow=workflow,
            args=codec.pack(list(args)),
            host=record.worker,
            client=record.client,
            entropy=new_entropy(),
            run_timeout_ns=round(run_timeout_s * 1e9),
            execution_timeout_ns=round(execution_timeout_s * 1e9),
            retry_policy=retry_policy,
            cron=cron or f"{EVERY} {every}",
            memo=memo or {},
            attrs=search_attributes or {},
            encrypted=record.encrypted,
        )
        key = WorkflowKey(record.queue, id)
        await put_schedule(self._client.js, key, spec, timezone=timezone, paused=paused, instead=instead)
        return await self.get(id, queue=record.queue)

    async def get(self, id: str, *, queue: str | None = None) -> Schedule:
        """The schedule with this id. Raises NoSchedule; one that is on several queues needs `queue`."""
        if queue is not None:
            found = await find_schedule(self._client.js, WorkflowKey(queue, id))
            if found is None:
                raise NoSchedule(id, [s.key.id for s in await list_schedules(self._client.js, queue)])
            return found
        everywhere = await self.all()
        named = [schedule for schedule in everywhere if schedule.key.id == id]
        if not named:
            raise NoSchedule(id, {schedule.key.id for schedule in everywhere})
        if len(named) > 1:
            queues = ", ".join(schedule.key.queue for schedule in named)
            raise NotFound(f"schedule {id!r} is on several queues ({queues}); say which")
        return named[0]

    async def all(self, *, queue: str | None = None) -> list[Schedule]:
        """All schedules, or those of a queue, by id."""
        queues = [queue] if queue is not None else await self._client.queues()
        found = [schedule for name in queues for schedule in await list_schedules(self._client.js, name)]
        return sorted(found, key=lambda schedule: (schedule.key.id, schedule.key.queue))

    async def state(self, schedule: Schedule) -> ScheduleState:
        """When a schedule is due, and what has become of its newest run."""
        key, client = schedule.key, self._client
        history = client.history(key.queue)
        found = await history.last_run(key)
        last = await history.last_start(key) if found is not None else None
        due_ns = next_ns(schedule, time.time_ns(), _scheduled(last.start) if last is not None else None) or 0
        if found is None:
            return ScheduleState(schedule, due_ns, 0, 0, "")
        status = (await describe(client, key)).status
        return ScheduleState(schedule, due_ns, found[0].run, found[0].start.timestamp_ns, status)

    async def states(self, *, queue: str | None = None) -> list[ScheduleState]:
        """The same of all schedules, or those of a queue."""
        schedules = await self.all(queue=queue)
        found: dict[int, ScheduleState] = {}
        limit = anyio.CapacityLimiter(LOOK_UPS_AT_ONCE)

        async def look(number: int, schedule: Schedule) -> None:
            async with limit:
                found[number] = await self.state(schedule)

        async with anyio.create_task_group() as tasks:
            for number, schedule in enumerate(schedules):
                tasks.start_soon(look, number, schedule)
        return [found[number] for number in range(len(schedules))]

    async def pause(self, id: str, *, queue: str | None = None) -> Schedule:
        """Start nothing any more until it is resumed; a run that is open goes on. Raises NoSchedule."""
        return await self._move(id, queue, pause_schedule)

    async def resume(self, id: str, *, queue: str | None = None) -> Schedule:
        """Start it again when it is due; what was missed is not made up for. Raises NoSchedule."""
        return await self._move(id, queue, resume_schedule)

    async def _move(
        self, id: str, queue: str | None, move: Callable[[JetStream, Schedule], Awaitable[None]]
    ) -> Schedule:
        """Pause or resume what is there now, also when somebody else changes it meanwhile."""
        for left in reversed(range(MOVES_MAX)):
            schedule = await self.get(id, queue=queue)
            try:
                await move(self._client.js, schedule)
                return await self.get(id, queue=schedule.key.queue)
            except ScheduleChanged:
                if not left:
                    raise
        raise AssertionError("the last try returns or raises")

    async def trigger(self, id: str, *, queue: str | None = None) -> tuple[Schedule, int]:
        """Start it now, paused or not; returns the run. Raises NoSchedule, AlreadyStarted while a run is open."""
        schedule = await self.get(id, queue=queue)
        spec = _once(schedule.spec)
        return schedule, (await start_workflow(self._client.js, schedule.key, spec, conflict="fail")).run

    async def remove(self, id: str, *, queue: str | None = None) -> Schedule:
        """Forget a schedule; a run that is open goes on. Raises NoSchedule."""
        schedule = await self.get(id, queue=queue)
        await remove_schedule(self._client.js, schedule.key)
        return schedule


def _once(spec: StartSpec) -> StartSpec:
    """The start of a schedule as one that is published now."""
    return replace(spec, cron="", entropy=new_entropy())


def _scheduled(start: StoredMessage) -> StoredMessage | None:
    """A start, if the server has published it for a schedule."""
    return start if start.raw_headers is not None and b"Nats-Scheduler: " in start.raw_headers else None
