"""Schedules: workflows that the server starts regularly (ADR-51).

A schedule is a message in its queue's stream, on `mesh.at.<queue>.cron.<id>`: its body is the start that the server
publishes each time, its headers say when. A paused one is the same body on `mesh.at.<queue>.paused.<id>`, without the
headers that the server acts on. There is no other state.

A start that comes while a run of the id is open is ignored, like any other: runs of a schedule never overlap.

Invariant: a schedule is moved by writing its new place before the old one is purged. What was interrupted in between
is in both; then it fires, so it counts as not paused, and doing the same again completes it.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from mesh.duration import SECOND, BadDuration, parse_duration_ns
from mesh.errors import Conflict, InvalidName, MeshError, NotFound, ServerRefused, Undecodable
from mesh.events import StartSpec, decode_start
from mesh.instants import timestamp_ns_of
from mesh.jetstream import JetStream
from mesh.spelling import proposal
from mesh.stored_messages import StoredMessage
from mesh.subjects import WorkflowKey, stream_name, token, untoken
from mesh.timers import EVERY, NS, cron_expression, cron_headers, cron_subject, either_subject, paused_subject
from mesh.wire import parse_headers

ZONE_CHARACTERS_MAX: Final = 100
UTC_NAME: Final = "UTC"
HEADER_SCHEDULE: Final = "Mesh-Schedule"
HEADER_TIMEZONE: Final = "Mesh-Schedule-Time-Zone"
# The server's codes for a schedule and for a time zone that it cannot read.
_BAD_SCHEDULE: Final = 10189
_BAD_ZONE: Final = 10223
_ALIASES: Final = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}  # fmt: skip


class BadSchedule(InvalidName):
    """Raised when nobody can tell from an expression or a time zone when to start."""

    code = "bad-schedule"


class ScheduleExists(MeshError):
    """Raised when a schedule with this id is there already."""

    code = "schedule-exists"

    def __init__(self, key: WorkflowKey) -> None:
        super().__init__(f"a schedule {key.id!r} is on queue {key.queue!r} already; replace it, or choose another id")


class ScheduleChanged(Conflict):
    """Raised when somebody else has changed or removed a schedule at the same time."""

    code = "schedule-changed"

    def __init__(self, key: WorkflowKey) -> None:
        MeshError.__init__(
            self,
            f"schedule {key.id!r} on queue {key.queue!r} was changed or removed by somebody else at the same time; "
            "look at it with `mesh schedule ls` and try again",
        )


class NoSchedule(NotFound):
    """Raised when there is no schedule with this id."""

    code = "no-schedule"

    def __init__(self, schedule_id: str, known: Iterable[str]) -> None:
        super().__init__(f"no schedule {schedule_id!r}; {proposal(schedule_id, sorted(known))}")


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule as it is stored. expression: as somebody wrote it. stored_ns: when that was, or it was resumed.

    seq: of the newest message that there is of it, in either place; 0 when it is not stored.
    """

    key: WorkflowKey
    spec: StartSpec
    expression: str
    timezone: str
    paused: bool
    stored_ns: int
    body: bytes
    seq: int = 0

    @property
    def every(self) -> str | None:
        """The interval, for one that has no calendar."""
        return self.expression.removeprefix(EVERY).strip() if self.expression.startswith(EVERY) else None


async def put_schedule(
    js: JetStream, key: WorkflowKey, spec: StartSpec, *, timezone: str = UTC_NAME, paused: bool = False,
    instead: bool = True,
) -> None:  # fmt: skip
    """Store a schedule; `spec.cron` says when. instead: also when there is one. Raises BadSchedule, ScheduleExists."""
    check_schedule(spec.cron, timezone)
    if not instead and await find_schedule(js, key) is not None:
        raise ScheduleExists(key)
    new = Schedule(key, spec, spec.cron, timezone, paused, 0, spec.encode())
    try:
        await _store(js, new, expect_seq=None if instead else 0)
    except Conflict:
        raise ScheduleExists(key) from None


async def find_schedule(js: JetStream, key: WorkflowKey) -> Schedule | None:
    """The schedule of this id on its queue."""
    found = await _read(js, key.queue, [cron_subject(key), paused_subject(key)])
    return found[0] if found else None


async def list_schedules(js: JetStream, queue: str) -> list[Schedule]:
    """The schedules of a queue, by id."""
    at = f"mesh.at.{token(queue)}"
    return await _read(js, queue, [f"{at}.cron.*", f"{at}.paused.*"])


async def pause_schedule(js: JetStream, schedule: Schedule) -> None:
    """Have the server start nothing any more, until it is resumed. Harmless to repeat. Raises ScheduleChanged."""
    await _move(js, schedule, paused=True)


async def resume_schedule(js: JetStream, schedule: Schedule) -> None:
    """Have the server start it again. What it missed is not made up for. Harmless to repeat. Raises ScheduleChanged."""
    if schedule.paused:
        await _move(js, schedule, paused=False)


async def remove_schedule(js: JetStream, key: WorkflowKey) -> None:
    """Forget a schedule; a run that is open goes on."""
    # Both places at once: one after the other, somebody could move it back behind us.
    await _take_away(js, key, either_subject(key))


def check_schedule(expression: str, timezone: str) -> None:
    """Refuse what is no schedule, and say why. The server has the last word. Raises BadSchedule."""
    try:
        written = cron_expression(expression)
    except ValueError as error:
        raise BadSchedule(str(error)) from error
    if written.startswith(EVERY):
        _check_interval(expression, written.removeprefix(EVERY).strip(), timezone)
        return
    _zone(timezone)
    if written.startswith("@"):
        if written not in _ALIASES:
            hint = proposal(written, _ALIASES, f"there are {', '.join(_ALIASES)} and @every 5m")
            raise BadSchedule(f"{expression!r} is no schedule; {hint}")
        return
    from cronsim import CronSimError

    try:
        _cron_times(written, datetime(2000, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        what = str(error).replace("Bad ", "its ")
        raise BadSchedule(
            f"cron_schedule must be a cron expression, {expression!r} cannot be read ({what} is no such); write minute "
            "hour day month weekday, such as '*/5 * * * *'"
        ) from None
    except ValueError:
        # The only one that is left: Python reads no number of more than 4,300 digits.
        raise BadSchedule("cron_schedule has a number with thousands of digits") from None


def next_ns(schedule: Schedule, now_ns: int, last_start: StoredMessage | None) -> int | None:
    """When the next start is due; None when it is paused, or nobody can tell. last_start: of the workflow.

    Anybody with the right may have written the schedule, and anything may stand in it.
    """
    if schedule.paused:
        return None
    if schedule.every is None:
        return _next_by_calendar(schedule, now_ns)
    try:
        interval_ns = parse_duration_ns(schedule.every, number_unit_ns=SECOND)
    except BadDuration:
        return None
    if interval_ns < NS:
        return None
    if last_start is not None and last_start.timestamp_ns >= schedule.stored_ns:
        # The server says with each start when the next one is.
        said = parse_headers(last_start.raw_headers).get("Nats-Schedule-Next") if last_start.raw_headers else None
        with suppress(ValueError):
            if said and (said_ns := timestamp_ns_of(said)) > now_ns:
                return said_ns
    first_ns = -(-(schedule.stored_ns + interval_ns) // NS) * NS  # it fires at whole seconds
    missed = max(0, -(-(now_ns - first_ns) // interval_ns))
    return first_ns + missed * interval_ns


async def _move(js: JetStream, schedule: Schedule, *, paused: bool) -> None:
    """Write it to the other place, unless somebody has removed or replaced it since it was read."""
    try:
        await _store(js, replace(schedule, paused=paused, stored_ns=0, seq=0), expect_seq=schedule.seq)
    except Conflict:
        raise ScheduleChanged(schedule.key) from None


async def _store(js: JetStream, schedule: Schedule, *, expect_seq: int | None = None) -> None:
    """Write a schedule to where it belongs, then take it away from where it does not.

    expect_seq: of what there must be of it in either place, 0 for nothing. Raises Conflict when there is not.
    """
    key = schedule.key
    here, there = cron_subject(key), paused_subject(key)
    headers = cron_headers(key, schedule.expression, schedule.timezone)
    if schedule.paused:
        here, there = there, here
        headers = {
            HEADER_SCHEDULE: schedule.expression,
            HEADER_TIMEZONE: schedule.timezone,
            "Nats-Rollup": "sub",
        }
    try:
        ack = await js.publish(
            here, schedule.body, headers=headers, expect_last_subject_seq=expect_seq,
            expect_subject=either_subject(key) if expect_seq is not None else None,
        )  # fmt: skip
    except ServerRefused as error:
        if error.err_code == _BAD_ZONE:
            raise BadSchedule(f"the server knows no time zone {schedule.timezone!r}") from error
        if error.err_code != _BAD_SCHEDULE:
            raise
        raise BadSchedule(f"cron_schedule must be a cron expression, {schedule.expression!r} cannot be read") from error
    # What somebody has written there since then stays.
    await _take_away(js, key, there, up_to_seq=ack.seq)


async def _take_away(js: JetStream, key: WorkflowKey, subject: str, *, up_to_seq: int | None = None) -> None:
    # Who may end workflows need not have the right to delete, unless there is something to delete.
    stream = stream_name(key.queue)
    if await js.get_last(stream, subject, from_leader=True) is not None:
        await js.purge(stream, subject=subject, up_to_seq=up_to_seq)


async def _read(js: JetStream, queue: str, subjects: list[str]) -> list[Schedule]:
    stream = stream_name(queue)
    try:
        messages = await js.multi_last(stream, subjects)
    except ServerRefused:  # more than it tells at once
        messages = [m for subject in subjects for m in await js.batch_get(stream, subject_filter=subject)]
    except NotFound:
        return []
    found: dict[str, Schedule] = {}
    for message in messages:
        schedule = _decoded(queue, message)
        known = found.get(schedule.key.id)
        newest = max(schedule.seq, known.seq) if known is not None else schedule.seq
        # In both places: it fires.
        found[schedule.key.id] = replace(schedule if known is None or known.paused else known, seq=newest)
    return [found[name] for name in sorted(found)]


def _decoded(queue: str, message: StoredMessage) -> Schedule:
    place, id_token = message.subject.split(".")[3:5]
    headers = parse_headers(message.raw_headers) if message.raw_headers else {}
    paused = place == "paused"
    written = headers.get(HEADER_SCHEDULE if paused else "Nats-Schedule", "")
    zone = headers.get(HEADER_TIMEZONE if paused else "Nats-Schedule-Time-Zone", UTC_NAME)
    try:
        spec = decode_start(message.data, headers)
    except Undecodable:
        spec = StartSpec("?")
    key = WorkflowKey(queue, untoken(id_token))
    return Schedule(key, spec, spec.cron or written, zone, paused, message.timestamp_ns, message.data, message.seq)


def _check_interval(expression: str, interval: str, timezone: str) -> None:
    try:
        interval_ns = parse_duration_ns(interval, number_unit_ns=SECOND)
    except BadDuration:
        interval_ns = 0
    if interval_ns < NS:
        raise BadSchedule(f"{expression!r} is no interval; write a duration of at least a second, such as @every 5m")
    if timezone != UTC_NAME:
        raise BadSchedule(f"an interval is in no time zone: leave {timezone} out, or write a cron expression")


def _zone(name: str) -> Any:
    # Each part of a name that is none is imported as a package inside of the one before it.
    from zoneinfo import ZoneInfo, available_timezones

    if len(name) > ZONE_CHARACTERS_MAX:
        raise BadSchedule(f"there is no time zone {name[:ZONE_CHARACTERS_MAX]!r}...; write one such as Europe/Paris")
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):  # also a name that is a directory, or no name of a file
        hint = proposal(name, available_timezones(), "write one such as Europe/Paris, or UTC")
        raise BadSchedule(f"there is no time zone {name!r}; {hint}") from None


def _next_by_calendar(schedule: Schedule, now_ns: int) -> int | None:
    from cronsim import CronSimError

    try:
        written = cron_expression(_ALIASES.get(schedule.expression, schedule.expression))
        now = datetime.fromtimestamp(now_ns // NS, UTC).astimezone(_zone(schedule.timezone))
        due = next(_cron_times(written, now), None)
    except (ValueError, CronSimError, BadSchedule):
        return None  # what the server takes and we do not know
    return int(due.timestamp()) * NS if due is not None else None


def _cron_times(written: str, after: datetime) -> Any:
    from cronsim import CronSim

    return CronSim(written.upper().replace("?", "*"), after)
