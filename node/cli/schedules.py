"""`mesh schedule`: workflows that the server starts regularly."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from mesh.instants import parse_iso_ns
from mesh.spelling import proposal
from node.cli.carrying_out import carried_out
from node.cli.connecting import Server, connection_options, run
from node.cli.live import ListView, show_list, watch_option
from node.cli.printing import away, print_json, say
from node.cli.values import DURATION
from node.cli.workflows import (
    attr_option,
    host_option,
    input_option,
    memo_option,
    queue_option,
    run_timeout_option,
    short_id,
)

RECORD: Final = "{id, queue, workflow, args, cron, every, timezone, paused, next, run, last_run, last_status}"

Record = Mapping[str, Any]


class _Verbs(click.Group):
    """A mistyped verb is answered with the nearest."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb of a line. Raises UsageError with a proposal."""
        names = self.list_commands(ctx)
        if args and args[0] not in names and not args[0].startswith("-"):
            hint = proposal(args[0], names, f"there are {', '.join(names)}")
            ctx.fail(f"no verb {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=_Verbs)
def schedule() -> None:
    """Start workflows regularly.

    The server keeps the schedules and starts the workflows; runs of one schedule never overlap: when the next start is
    due while a run is open, it is left out.
    """


@schedule.command(short_help="Start a workflow regularly.")
@click.argument("schedule_id", metavar="ID")
@click.argument("workflow", metavar="WORKFLOW")
@click.option("--cron", default="", metavar="TEXT", help="When: 'minute hour day month weekday', or @daily and such.")
@click.option("--tz", "timezone", default="", metavar="ZONE", help="Whose clock --cron goes by.  [default: UTC]")
@click.option("--every", "interval", default="", metavar="DURATION", help="How often instead, such as 5m.")
@input_option
@host_option
@run_timeout_option
@click.option("--execution-timeout", type=DURATION, default=0.0, metavar="DURATION", help="Limit of a run's retries.")
@memo_option
@attr_option
@click.option("--paused", is_flag=True, help="Do not start it before it is resumed.")
@click.option("--replace", is_flag=True, help="Take the place of a schedule with this ID.")
@click.option("--json", "as_json", is_flag=True, help=f"Print {RECORD}.")
@connection_options
def add(
    schedule_id: str,
    workflow: str,
    *,
    cron: str,
    timezone: str,
    interval: str,
    inputs: tuple[Any, ...],
    host: str | None,
    run_timeout: float,
    execution_timeout: float,
    memo: tuple[tuple[str, Any], ...],
    attr: tuple[tuple[str, Any], ...],
    paused: bool,
    replace: bool,
    as_json: bool,
    server: Server,
) -> None:
    """Start WORKFLOW (namespace:name) regularly, each time under the id ID.

    \b
      mesh schedule add nightly app.workflows:report --cron '30 2 * * *' --tz Europe/Paris
      mesh schedule add poll app.workflows:poll --every 5m --input '{"feed": 3}'
    """  # noqa: D301 - click reads the control character
    if bool(cron) == bool(interval):
        raise click.UsageError("say when: --cron 'minute hour day month weekday', or --every 5m")
    if timezone and interval:
        raise click.UsageError("--tz goes with --cron; an interval is the same in every time zone")

    async def main() -> None:
        from node.api.carrying_out import carry_out

        async with server.client() as client:
            with server.deadline("the schedule"):
                record = await carry_out(
                    server.asker(client),
                    "schedule.add",
                    id=schedule_id,
                    workflow=workflow,
                    cron=cron,
                    every=interval,
                    timezone=timezone or "UTC",
                    args=inputs,
                    host=host,
                    memo=dict(memo),
                    attrs=dict(attr),
                    run_timeout_s=run_timeout,
                    execution_timeout_s=execution_timeout,
                    paused=paused,
                    replace=replace,
                )
        if as_json:
            print_json(record)
        when = "it is paused" if record["paused"] else f"next start {_when(record['next'])}"
        say(f"{workflow} is scheduled as {schedule_id} on queue {record['queue']}, {_spec(record)}; {when}")
        name = short_id(schedule_id)
        say(f"next: mesh schedule ls{server.hint}   or   mesh schedule rm {name}{server.hint}")

    run(main)


@schedule.command(short_help="List the schedules.")
@click.option("--queue", metavar="NAME", help="Only those of this queue.")
@watch_option
@click.option("--json", "as_json", is_flag=True, help=f"Print a line {RECORD} for each.")
@connection_options
def ls(*, queue: str | None, watch: bool, every: float, as_json: bool, server: Server) -> None:
    """List the schedules: when each is due, and what has become of its last run."""

    async def main() -> None:
        from node.api.carrying_out import carry_out

        async with server.client() as client:

            async def fetch() -> list[dict[str, Any]]:
                with server.deadline("the schedules"):
                    records: list[dict[str, Any]] = await carry_out(server.asker(client), "schedule.ls", queue=queue)
                    return records

            await show_list(
                fetch, _view, empty="there are no schedules; see `mesh schedule add --help`",
                as_json=as_json, watch=watch, every_s=every,
            )  # fmt: skip

    run(main)


@schedule.command()
@click.argument("schedule_id", metavar="ID")
@queue_option
@click.option("--json", "as_json", is_flag=True, help=f"Print {RECORD}.")
@connection_options
def pause(schedule_id: str, *, queue: str | None, as_json: bool, server: Server) -> None:
    """Start nothing any more until it is resumed. A run that is open goes on."""
    record = carried_out(server, "the schedule", "schedule.pause", id=schedule_id, queue=queue, as_json=as_json)
    say(f"{schedule_id} on queue {record['queue']} is paused")
    say(f"next: mesh schedule resume {short_id(schedule_id)}{server.hint}")


@schedule.command()
@click.argument("schedule_id", metavar="ID")
@queue_option
@click.option("--json", "as_json", is_flag=True, help=f"Print {RECORD}.")
@connection_options
def resume(schedule_id: str, *, queue: str | None, as_json: bool, server: Server) -> None:
    """Start it again when it is due. What was missed is not made up for."""
    record = carried_out(server, "the schedule", "schedule.resume", id=schedule_id, queue=queue, as_json=as_json)
    say(f"{schedule_id} is resumed; next start {_when(record['next'])}")


@schedule.command()
@click.argument("schedule_id", metavar="ID")
@queue_option
@click.option("--json", "as_json", is_flag=True, help="Print {id, queue, run}.")
@connection_options
def trigger(schedule_id: str, *, queue: str | None, as_json: bool, server: Server) -> None:
    """Start it now, paused or not. Not while a run of it is open."""
    record = carried_out(server, "the schedule", "schedule.trigger", id=schedule_id, queue=queue, as_json=as_json)
    say(f"{schedule_id} is started, run {record['run']}; see: mesh show {short_id(schedule_id)}{server.hint}")


@schedule.command()
@click.argument("schedule_id", metavar="ID")
@queue_option
@click.option("--json", "as_json", is_flag=True, help="Print {id, queue}.")
@connection_options
def rm(schedule_id: str, *, queue: str | None, as_json: bool, server: Server) -> None:
    """Forget a schedule. A run that is open goes on."""
    record = carried_out(server, "the schedule", "schedule.rm", id=schedule_id, queue=queue, as_json=as_json)
    say(f"{schedule_id} on queue {record['queue']} is scheduled no more")


def _view(records: Sequence[Record]) -> ListView:
    columns = ("id", "last status", "workflow", "when", "next", "last run", "queue")
    return ListView(columns, [_row(record) for record in records], status_column=1, spare=("queue", "workflow"))


def _row(record: Record) -> tuple[str, ...]:
    now_ns = time.time_ns()
    last = away(parse_iso_ns(record["last_run"]), now_ns) if record["last_run"] else "-"
    due = "paused" if record["paused"] else away(parse_iso_ns(record["next"]), now_ns) if record["next"] else "?"
    return (record["id"], record["last_status"] or "-", record["workflow"], _spec(record), due, last, record["queue"])


def _spec(record: Record) -> str:
    if record["every"] is not None:
        return f"every {record['every']}"
    return f"{record['cron']} {record['timezone']}"


def _when(instant: str | None) -> str:
    return away(parse_iso_ns(instant), time.time_ns()) if instant else "when the server says"
