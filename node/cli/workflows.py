"""Verbs about one workflow: start, signal, result, cancel, terminate. `mesh show` has a file of its own."""

from __future__ import annotations

import math
import os
import shlex
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from node.cli.carrying_out import carried_out
from node.cli.connecting import Server, connection_options, run
from node.cli.printing import print_json, say
from node.cli.values import ATTRIBUTE, DURATION, JSON

if TYPE_CHECKING:
    from mesh.client import WorkflowHandle
    from mesh.starting import ConflictPolicy, ReusePolicy
    from node.api.verbs import Asker

CONFLICT: Final = ("use_existing", "fail", "terminate_existing")
REUSE: Final = ("allow_duplicate", "allow_duplicate_failed_only", "reject_duplicate")


queue_option = click.option("--queue", metavar="NAME", help="Queue of the workflow, where an id is on several.")
run_option = click.option(
    "--run", "run_number", type=click.IntRange(1), metavar="RUN",
    help="An older run of the ID, by the number of its start; `mesh show ID` and `mesh ls --all-runs` have them.",
)  # fmt: skip
# What says how a workflow is started, now (`mesh start`) or regularly (`mesh schedule add`).
host_option = click.option(
    "--host", metavar="NAME", help="Worker or task queue to run on; needed when several offer the workflow."
)
input_option = click.option(
    "--input", "inputs", type=JSON, multiple=True, metavar="JSON|@FILE|-",
    help="Argument of the workflow; repeat it for more.",
)  # fmt: skip
run_timeout_option = click.option(
    "--run-timeout", type=DURATION, default=0.0, metavar="DURATION", help="Limit of one run."
)
memo_option = click.option(
    "--memo", type=ATTRIBUTE, multiple=True, metavar="KEY=VALUE", help="Note to keep with it; repeatable."
)
attr_option = click.option(
    "--attr", type=ATTRIBUTE, multiple=True, metavar="KEY=VALUE", help="Search attribute; repeatable."
)


@click.command()
@click.argument("workflow", metavar="WORKFLOW")
@host_option
@click.option("--id", "workflow_id", metavar="TEXT", help="Id of the workflow; by default one that is new.")
@input_option
@click.option("--wait", is_flag=True, help="Wait for the result and print that, as `mesh result` does.")
@click.option("--conflict", type=click.Choice(CONFLICT), help="When one with this id runs.  [default: use_existing]")
@click.option(
    "--reuse", type=click.Choice(REUSE), default=REUSE[0], show_default=True, help="When one with this id has run."
)
@run_timeout_option
@click.option("--execution-timeout", type=DURATION, default=0.0, metavar="DURATION", help="Limit of all runs together.")
@click.option("--start-delay", type=DURATION, default=0.0, metavar="DURATION", help="Begin this much later.")
@click.option("--cron", default="", metavar="TEXT", help="Start it regularly: 'minute hour day month weekday' (UTC).")
@memo_option
@attr_option
@click.option("--json", "as_json", is_flag=True, help="Print {id, queue, run, existing}; with --wait as `mesh result`.")
@connection_options
def start(
    workflow: str,
    *,
    host: str | None,
    workflow_id: str | None,
    inputs: tuple[Any, ...],
    wait: bool,
    conflict: ConflictPolicy | None,
    reuse: ReusePolicy,
    run_timeout: float,
    execution_timeout: float,
    start_delay: float,
    cron: str,
    memo: tuple[tuple[str, Any], ...],
    attr: tuple[tuple[str, Any], ...],
    as_json: bool,
    server: Server,
) -> None:
    """Start the workflow WORKFLOW (namespace:name) and print its id.

    It is stored when this returns and runs as soon as a node is up; --timeout is for that only, not for --wait.

    \b
      mesh start app.workflows:order --id order-1 --input '{"total": 3}'
      mesh start app.workflows:order --input @order.json --wait
    """  # noqa: D301 - click reads the control character

    async def main() -> None:
        from mesh.tracecontext import carrying, parse_context
        from node.api import verbs

        async with server.client() as client:
            asker = server.asker(client)
            # As OpenTelemetry has it for commands: the trace in which this one is run.
            trace = parse_context(os.environ.get("TRACEPARENT", ""), os.environ.get("TRACESTATE", ""))
            with carrying(trace), server.deadline("the start"):
                record = await verbs.start(
                    asker,
                    workflow=workflow,
                    args=inputs,
                    host=host,
                    id=workflow_id,
                    conflict=conflict,
                    reuse=reuse,
                    run_timeout_s=run_timeout,
                    execution_timeout_s=execution_timeout,
                    start_delay_s=start_delay,
                    cron=cron,
                    memo=dict(memo),
                    attrs=dict(attr),
                )
            if wait and not cron:
                _say_started(workflow, record, cron, server.hint)
                handle = client.get(record["id"], queue=record["queue"])
                await _print_result(asker, handle, math.inf, run=record["run"], as_json=as_json)
                return
        if as_json:
            print_json(record)
        else:
            click.echo(record["id"])
        _say_started(workflow, record, cron, server.hint)

    run(main)


@click.command("signal")
@click.argument("workflow_id", metavar="ID")
@click.argument("topic")
@click.argument("value", type=JSON, default="null", metavar="[JSON|@FILE|-]")
@queue_option
@click.option("--json", "as_json", is_flag=True, help="Print {id, queue, topic, seq}.")
@connection_options
def signal_one(workflow_id: str, topic: str, *, value: Any, queue: str | None, as_json: bool, server: Server) -> None:
    """Send a signal to the running workflow ID.

    It is stored when this returns: it reaches the workflow whether a node is up at the moment or not. When the workflow
    does not listen to TOPIC at the moment, and its owner says so at once, a line says what it listens to.

    \b
      mesh signal order-1 approve '{"approved": true}'
    """  # noqa: D301 - click reads the control character

    async def main() -> None:
        from mesh.subjects import WorkflowKey
        from node.api import verbs

        async with server.client() as client:
            with server.deadline("the signal"):
                record = await verbs.signal(server.asker(client), id=workflow_id, topic=topic, value=value, queue=queue)
            if as_json:
                print_json(record)
            else:
                say(f"signal {topic} for {workflow_id} is stored, sequence {record['seq']}")
            sys.stdout.flush()
            unheard = await verbs.why_unheard(client, WorkflowKey(record["queue"], workflow_id), topic)
            if unheard is not None:
                say(f"note: {unheard}; see: mesh show {short_id(workflow_id)}{server.hint}")

    run(main)


@click.command()
@click.argument("workflow_id", metavar="ID")
@queue_option
@run_option
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print {id, queue, run, status, value, error}; error is {message, kind, ...} or null.",
)
@connection_options(timeout=None)
def result(workflow_id: str, *, queue: str | None, run_number: int | None, as_json: bool, server: Server) -> None:
    """Wait for the end of the workflow ID and print its result as JSON.

    With --run the end of what that run has begun, through retries, continued and reset runs: mostly one that has ended
    before the workflow was started once more.

    Exit status 1 when it failed, was canceled or terminated, is suspended, or has not ended within --timeout. Without
    --timeout it waits for as long as it takes.
    """

    async def main() -> None:
        async with server.client() as client:
            asker = server.asker(client)
            with server.answer_deadline("the workflow"):
                handle = await asker.find(workflow_id, queue)
                if run_number:
                    await client.history(handle.key.queue).run_named(handle.key, run_number)
            await _print_result(asker, handle, server.timeout_s, run=run_number or 0, as_json=as_json)

    run(main)


@click.command()
@click.argument("workflow_id", metavar="ID")
@queue_option
@click.option("--json", "as_json", is_flag=True, help="Print {id, queue, run}.")
@connection_options
def cancel(workflow_id: str, *, queue: str | None, as_json: bool, server: Server) -> None:
    """Ask the workflow ID to stop. It may clean up first, or go on: that is for its code to decide."""
    carried_out(server, "the cancellation", "cancel", id=workflow_id, queue=queue, as_json=as_json)
    say(f"asked {workflow_id} to stop; wait for it with: mesh result {workflow_id}{server.hint}")


@click.command()
@click.argument("workflow_id", metavar="ID")
@queue_option
@click.option(
    "--force",
    is_flag=True,
    help="End it although its start cannot be read (a lost key), for which it would wait. Its children go on.",
)
@click.option("--json", "as_json", is_flag=True, help="Print {id, queue, run}.")
@connection_options
def terminate(workflow_id: str, *, queue: str | None, force: bool, as_json: bool, server: Server) -> None:
    """End the workflow ID now: its code is not asked and cleans nothing up. A cron schedule of the id ends too."""
    carried_out(server, "the termination", "terminate", id=workflow_id, queue=queue, force=force, as_json=as_json)
    say(f"{workflow_id} is told to end now; see: mesh show {workflow_id}{server.hint}")


async def _print_result(asker: Asker, handle: WorkflowHandle, timeout_s: float, *, run: int = 0, as_json: bool) -> None:
    """Wait and print. A failure goes to standard error, or into the JSON, and raises Exit(1)."""
    from mesh.failure import Failure
    from mesh.results import WorkflowFailed, WorkflowSuspended
    from node.api import verbs

    timeout = None if math.isinf(timeout_s) else timeout_s
    record = await verbs.result_of(asker, handle, run=run, timeout_s=timeout)
    failure = Failure.from_wire(record["error"]) if record["error"] is not None else None
    if as_json:
        print_json(record)
    elif failure is None:
        print_json(record["value"])
    elif record["status"] == "suspended":
        raise WorkflowSuspended(handle.id, failure.message)
    else:
        say(f"mesh: {WorkflowFailed(handle.id, record['status'], failure)}")
        if failure.stack:
            say(failure.stack)
    if failure is not None:
        raise click.exceptions.Exit(1)


def short_id(workflow_id: str) -> str:
    """An id as it is typed into a shell."""
    if workflow_id.replace("-", "").replace("_", "").isalnum():
        return workflow_id
    return f"'{workflow_id}'" if "'" not in workflow_id else shlex.quote(workflow_id)


def _say_started(workflow: str, record: dict[str, Any], cron: str, hint: str) -> None:
    name, queue = short_id(record["id"]), record["queue"]
    if cron:
        say(f"{workflow} is scheduled as {record['id']} on queue {queue}: {cron}")
        say(f"next: mesh terminate {name}{hint}   ends the schedule")
        return
    verb = "was running already" if record["existing"] else "is started"
    say(f"{workflow} {verb} as {record['id']} on queue {queue}, run {record['run']}")
    say(f"next: mesh show {name}{hint}   or   mesh result {name}{hint}")
