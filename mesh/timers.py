"""Durable timers and cron: scheduled messages of the server (ADR-51). Pure: headers in, headers out.

A timer is a message on the run's own `mesh.at` subject; when it is due, the server publishes the tick and deletes it.
Writing the same timer again replaces it, so setting one twice is harmless.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from mesh.subjects import WorkflowKey, token

EVERY: Final = "@every"
NS: Final = 1_000_000_000
# The farthest instant that fits RFC 3339 with four digits of year.
FARTHEST_NS: Final = 253_402_300_799 * NS


def at_header(due_ns: int) -> str:
    """`@at <RFC 3339>` with nanoseconds, for a Unix time in ns; instants beyond the year 9999 are moved there."""
    seconds, ns = divmod(max(0, min(due_ns, FARTHEST_NS)), NS)
    return f"@at {datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ns:09d}Z"


def timer_headers(key: WorkflowKey, run: int, name: str, due_ns: int) -> dict[str, str]:
    """The headers of the message that makes the server publish `tick.<run>.<name>` at due_ns."""
    return {"Nats-Schedule": at_header(due_ns), "Nats-Schedule-Target": f"{key.subject('tick')}.{run}.{name}"}


def cron_subject(key: WorkflowKey) -> str:
    """Where the schedule of a cron workflow is stored."""
    return f"mesh.at.{token(key.queue)}.cron.{token(key.id)}"


def either_subject(key: WorkflowKey) -> str:
    """Where the schedule is stored, paused or not."""
    return f"mesh.at.{token(key.queue)}.*.{token(key.id)}"


def paused_subject(key: WorkflowKey) -> str:
    """Where the schedule is stored while it is paused: the server publishes nothing from there."""
    return f"mesh.at.{token(key.queue)}.paused.{token(key.id)}"


def cron_headers(key: WorkflowKey, expression: str, timezone: str = "UTC") -> dict[str, str]:
    """The headers that start a workflow again and again. Raises ValueError for what is no cron expression."""
    schedule = cron_expression(expression)
    headers = {"Nats-Schedule": schedule, "Nats-Schedule-Target": key.start()}
    if not schedule.startswith(EVERY):  # an interval is in no time zone, and the server refuses one
        headers["Nats-Schedule-Time-Zone"] = timezone
    return headers


def cron_expression(expression: str) -> str:
    """A five-field cron expression (or @hourly and the like, or `@every 5m`) as the server takes it: seconds first."""
    text = expression.strip()
    if text.startswith("@"):
        return text
    fields = text.split()
    if len(fields) == 5:
        return " ".join(("0", *fields))
    if len(fields) == 6:
        return text
    raise ValueError(
        f"{expression!r} is no cron expression; write five fields (minute hour day month weekday) or @every 5m"
    )
