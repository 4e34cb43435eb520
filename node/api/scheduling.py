"""The schedules of a mesh, as verbs: `mesh.api.schedule.*` and `mesh schedule`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from mesh import codec
from mesh.errors import MeshError, Undecodable
from mesh.instants import iso
from mesh.starting import AlreadyStarted
from node.api.locating import host_of, workers
from node.api.problems import CONFLICT, StateError
from node.api.requests import BadRequest
from node.api.verbs import Asker, Record

if TYPE_CHECKING:
    from mesh.scheduling import ScheduleState

UTC: Final = "UTC"


class IsRunning(StateError):
    """Raised when a schedule is to start its workflow now, and a run of it is open."""

    code = "is-running"
    status = CONFLICT


async def add(
    asker: Asker,
    *,
    id: str,
    workflow: str,
    cron: str = "",
    every: str | float = "",
    timezone: str = UTC,
    args: Sequence[Any] = (),
    host: str | None = None,
    memo: Mapping[str, Any] | None = None,
    attrs: Mapping[str, Any] | None = None,
    run_timeout_s: float = 0.0,
    execution_timeout_s: float = 0.0,
    retry_policy: Mapping[str, Any] | None = None,
    paused: bool = False,
    replace: bool = False,
) -> Record:
    """Have a workflow started regularly; the schedule's record."""
    if bool(cron) == bool(every):
        raise BadRequest("give one of cron and every")
    schedules = asker.client.schedules
    added = await schedules.add(
        id, workflow, *args, host=await host_of(asker.client, asker.url, workflow, host), cron=cron, every=str(every),
        timezone=timezone, memo=memo, search_attributes=attrs, run_timeout_s=run_timeout_s,
        execution_timeout_s=execution_timeout_s, retry_policy=retry_policy, paused=paused, instead=replace,
    )  # fmt: skip
    return record_of(await schedules.state(added))


async def every_schedule(asker: Asker, *, queue: str | None = None) -> list[Record]:
    """The schedules, by id."""
    await workers(asker.client, asker.url)
    return [record_of(state) for state in await asker.client.schedules.states(queue=queue)]


async def pause(asker: Asker, *, id: str, queue: str | None = None) -> Record:
    """Start nothing any more until it is resumed; the schedule's record. Raises NoSchedule."""
    schedules = asker.client.schedules
    return record_of(await schedules.state(await schedules.pause(id, queue=queue)))


async def resume(asker: Asker, *, id: str, queue: str | None = None) -> Record:
    """Start it again when it is due; the schedule's record. Raises NoSchedule."""
    schedules = asker.client.schedules
    return record_of(await schedules.state(await schedules.resume(id, queue=queue)))


async def trigger(asker: Asker, *, id: str, queue: str | None = None) -> Record:
    """Start it now, paused or not: {id, queue, run}. Raises NoSchedule, IsRunning."""
    schedules = asker.client.schedules
    schedule = await schedules.get(id, queue=queue)
    try:
        _, run = await schedules.trigger(id, queue=schedule.key.queue)
    except AlreadyStarted:
        state = record_of(await schedules.state(schedule))
        raise IsRunning(
            f"workflow {id!r} is running; runs of a schedule do not overlap: wait for its end, or terminate it", state
        ) from None
    return {"id": id, "queue": schedule.key.queue, "run": run}


async def remove(asker: Asker, *, id: str, queue: str | None = None) -> Record:
    """Forget a schedule; a run that is open goes on: {id, queue}. Raises NoSchedule."""
    schedule = await asker.client.schedules.remove(id, queue=queue)
    return {"id": id, "queue": schedule.key.queue}


def record_of(state: ScheduleState) -> Record:
    """A schedule as it is printed."""
    schedule = state.schedule
    try:
        args = codec.unpack(schedule.spec.args)
    except (MeshError, Undecodable):
        args = None
    return {
        "id": schedule.key.id,
        "queue": schedule.key.queue,
        "workflow": schedule.spec.workflow,
        "args": args,
        "cron": None if schedule.every is not None else schedule.expression,
        "every": schedule.every,
        "timezone": None if schedule.every is not None else schedule.timezone,
        "paused": schedule.paused,
        "next": iso(state.next_ns) if state.next_ns else None,
        "run": state.run or None,
        "last_run": iso(state.started_ns) if state.started_ns else None,
        "last_status": state.status or None,
    }
