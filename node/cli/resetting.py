"""`mesh reset`: run a workflow anew from one of its events."""

from __future__ import annotations

import click

from node.cli.carrying_out import carried_out
from node.cli.connecting import Server, connection_options
from node.cli.printing import say
from node.cli.workflows import queue_option, short_id

# An open workflow is ended first, and its owner may have to read it for that.
TIMEOUT_DEFAULT = "15s"


@click.command()
@click.argument("workflow_id", metavar="ID")
@click.option(
    "--event",
    "number",
    type=click.IntRange(1),
    required=True,
    metavar="N",
    help="The last event that is taken over: its number in `mesh show ID`, or its stream sequence.",
)
@click.option("--reason", default="", metavar="TEXT", help="Why; kept in the history.")
@click.option(
    "--signals/--no-signals",
    default=True,
    help="Whether signals that came after the event are given to the new run.  [default: they are]",
)
@click.option(
    "--without",
    "without",
    type=click.IntRange(1),
    multiple=True,
    metavar="N",
    help="A signal after the event that is not given to the new run, such as one that nobody can read. Repeatable.",
)
@queue_option
@click.option("--json", "as_json", is_flag=True, help="Print {id, queue, run, base, event, seq}.")
@connection_options(timeout=TIMEOUT_DEFAULT)
def reset(
    workflow_id: str,
    *,
    number: int,
    reason: str,
    signals: bool,
    without: tuple[int, ...],
    queue: str | None,
    as_json: bool,
    server: Server,
) -> None:
    """Run the workflow ID anew from one of its events: what to do when its code had a fault and is fixed now.

    A new run begins whose history is that of the old one up to event N. What its code does upon that event is done
    again, with the code that is there now: calls that had no outcome yet are made, timers are set with their old due
    time. An old run that is open is terminated; whoever waits for the result goes on waiting. Limits of time count
    anew. Not possible where children run at the event.

    \b
      mesh show order-1
      mesh reset order-1 --event 17 --reason 'charged with the old price'
    """  # noqa: D301 - click reads the control character
    record = carried_out(
        server, "the reset", "reset", id=workflow_id, event=number, queue=queue, reason=reason, signals=signals,
        as_json=as_json, **({"without": list(without)} if without else {}),
    )  # fmt: skip
    name = short_id(workflow_id)
    say(
        f"{workflow_id} goes on from event {record['event']} of run {record['base']} "
        f"as run {record['run']} on queue {record['queue']}"
    )
    say(f"next: mesh show {name}{server.hint}   or   mesh result {name}{server.hint}")
