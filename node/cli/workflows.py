"""Verbs about one workflow: start, signal, result, cancel, terminate. `mesh show` has a file of its own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import click

from mesh.errors import MeshError, NotFound
from node.cli.connecting import Server, connection_options, run
from node.cli.printing import print_json, say
from node.cli.values import ATTRIBUTE, DURATION, JSON

if TYPE_CHECKING:
    from mesh.client import Client, WorkflowHandle
    from mesh.starting import ConflictPolicy, ReusePolicy

CONFLICT: Final = ("use_existing", "fail", "terminate_existing")
REUSE: Final = ("allow_duplicate", "allow_duplicate_failed_only", "reject_duplicate")


class HasEnded(MeshError):
    """Raised when something is asked of a workflow that has ended."""

    code = "has-ended"

    def __init__(self, workflow_id: str, status: str, what: str, hint: str) -> None:
        super().__init__(f"workflow {workflow_id!r} has ended ({status}); {what}, see `mesh show {workflow_id}{hint}`")


class StillRunning(MeshError, TimeoutError):
    """Raised when the time to wait for a result is over. The workflow knows nothing of it."""

    code = "still-running"

    def __init__(self, workflow_id: str, timeout_s: float, hint: str) -> None:
        super().__init__(
            f"workflow {workflow_id!r} has not ended within {timeout_s:g} s and goes on; "
            f"`mesh show {workflow_id}{hint}` says what it waits for"
        )


queue_option = click.option("--queue", metavar="NAME", help="Queue of the workflow, where an id is on several.")


@click.command()
@click.argument("workflow", metavar="WORKFLOW")
@click.option("--host", metavar="NAME", help="Worker or task queue to run on; needed when several offer the workflow.")
@click.option("--id", "workflow_id", metavar="TEXT", help="Id of the workflow; by default one that is new.")
@click.option(
    "--input",
    "inputs",
    type=JSON,
    multiple=True,
    metavar="JSON|@FILE|-",
    help="Argument of the workflow; repeat it for more.",
)
@click.option("--wait", is_flag=True, help="Wait for the result and print that, as `mesh result` does.")
@click.option("--conflict", type=click.Choice(CONFLICT), help="When one with this id runs.  [default: use_existing]")
@click.option(
    "--reuse", type=click.Choice(REUSE), default=REUSE[0], show_default=True, help="When one with this id has run."
)
@click.option("--run-timeout", type=DURATION, default=0.0, metavar="DURATION", help="Limit of one run.")
@click.option("--execution-timeout", type=DURATION, default=0.0, metavar="DURATION", help="Limit of all runs together.")
@click.option("--start-delay", type=DURATION, default=0.0, metavar="DURATION", help="Begin this much later.")
@click.option("--cron", default="", metavar="TEXT", help="Start it regularly: 'minute hour day month weekday' (UTC).")
@click.option("--memo", type=ATTRIBUTE, multiple=True, metavar="KEY=VALUE", help="Note to keep with it; repeatable.")
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
        async with server.client() as client:
            with server.deadline("the start"):
                handle = await client.start(
                    workflow,
                    *inputs,
                    host=await _host(client, workflow, host, server),
                    id=workflow_id,
                    conflict=conflict,
                    reuse=reuse,
                    run_timeout_s=run_timeout,
                    execution_timeout_s=execution_timeout,
                    start_delay_s=start_delay,
                    cron=cron,
                    memo=dict(memo),
                )
            if wait and not cron:
                _say_started(workflow, handle, cron, server.hint)
                await _print_result(client, handle, math.inf, as_json=as_json, hint=server.hint)
                return
        key = handle.key
        if as_json:
            print_json({"id": key.id, "queue": key.queue, "run": handle.run or None, "existing": handle.existing})
        else:
            click.echo(key.id)
        _say_started(workflow, handle, cron, server.hint)

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

    It is stored when this returns: it reaches the workflow whether a node is up at the moment or not.

    \b
      mesh signal order-1 approve '{"approved": true}'
    """  # noqa: D301 - click reads the control character

    async def main() -> None:
        async with server.client() as client:
            with server.deadline("the signal"):
                handle = await _open(client, workflow_id, queue, server, "nobody would read the signal")
                seq = await handle.signal(topic, value)
        if as_json:
            print_json({"id": workflow_id, "queue": handle.key.queue, "topic": topic, "seq": seq})
        else:
            say(f"signal {topic} for {workflow_id} is stored, sequence {seq}")

    run(main)


@click.command()
@click.argument("workflow_id", metavar="ID")
@queue_option
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print {id, queue, run, status, value, error}; error is {message, kind, ...} or null.",
)
@connection_options(timeout=None)
def result(workflow_id: str, *, queue: str | None, as_json: bool, server: Server) -> None:
    """Wait for the end of the workflow ID and print its result as JSON.

    Exit status 1 when it failed, was canceled or terminated, is suspended, or has not ended within --timeout. Without
    --timeout it waits for as long as it takes.
    """

    async def main() -> None:
        async with server.client() as client:
            with server.answer_deadline("the workflow"):
                handle = await _find(client, workflow_id, queue, server)
            await _print_result(client, handle, server.timeout_s, as_json=as_json, hint=server.hint)

    run(main)


@click.command()
@click.argument("workflow_id", metavar="ID")
@queue_option
@connection_options
def cancel(workflow_id: str, *, queue: str | None, server: Server) -> None:
    """Ask the workflow ID to stop. It may clean up first, or go on: that is for its code to decide."""

    async def main() -> None:
        async with server.client() as client:
            with server.deadline("the cancellation"):
                handle = await _open(client, workflow_id, queue, server, "there is nothing to cancel")
                await handle.cancel()
        say(f"asked {workflow_id} to stop; wait for it with: mesh result {workflow_id}{server.hint}")

    run(main)


@click.command()
@click.argument("workflow_id", metavar="ID")
@queue_option
@connection_options
def terminate(workflow_id: str, *, queue: str | None, server: Server) -> None:
    """End the workflow ID now: its code is not asked and cleans nothing up. A cron schedule of the id ends too."""

    async def main() -> None:
        from node.cli.locating import is_scheduled

        async with server.client() as client:
            with server.deadline("the termination"):
                handle = await _find(client, workflow_id, queue, server)
                if not await is_scheduled(client, handle):
                    await _ensure_open(client, handle, "there is nothing to terminate", server)
                await handle.terminate()
        say(f"{workflow_id} is told to end now; see: mesh show {workflow_id}{server.hint}")

    run(main)


async def _host(client: Client, workflow: str, host: str | None, server: Server) -> str:
    from node.cli.locating import host_of

    return await host_of(client, server.url, workflow, host)


async def _find(client: Client, workflow_id: str, queue: str | None, server: Server) -> WorkflowHandle:
    from node.cli.locating import find

    return await find(client, server.url, workflow_id, queue)


async def _open(client: Client, workflow_id: str, queue: str | None, server: Server, what: str) -> WorkflowHandle:
    """Find a workflow that runs. Raises HasEnded, NotFound."""
    handle = await _find(client, workflow_id, queue, server)
    await _ensure_open(client, handle, what, server)
    return handle


async def _ensure_open(client: Client, handle: WorkflowHandle, what: str, server: Server) -> None:
    from mesh.events import decode_end

    found = await client.history(handle.key.queue).last_run(handle.key)
    if found is None:
        raise NotFound(f"workflow {handle.id!r} has not started yet; {what}")
    if found[1] is not None:
        record = decode_end(found[1].data)
        # The next run of a chain is about to be stored.
        if not record.next_start:
            raise HasEnded(handle.id, record.status, what, server.hint)


async def _print_result(client: Client, handle: WorkflowHandle, timeout_s: float, *, as_json: bool, hint: str) -> None:
    """Wait and print. A failure goes to standard error, or into the JSON, and raises Exit(1)."""
    from mesh.client import WorkflowFailed, WorkflowSuspended
    from mesh.errors import RequestTimeout
    from mesh.failure import Failure

    status, value, failure = "completed", None, None
    try:
        value = await handle.result(timeout_s=None if math.isinf(timeout_s) else timeout_s)
    except RequestTimeout:
        raise StillRunning(handle.id, timeout_s, hint) from None
    except WorkflowFailed as failed:
        status, failure = failed.status, failed.failure
        if not as_json:
            say(f"mesh: {failed}")
            if failure.stack:
                say(failure.stack)
    except WorkflowSuspended as suspended:
        if not as_json:
            raise
        status, failure = "suspended", Failure(suspended.reason)
    if as_json:
        found = await client.history(handle.key.queue).last_run(handle.key)
        run = found[0].run if found is not None else handle.run
        error = failure.to_wire() if failure else None
        print_json(
            {"id": handle.id, "queue": handle.key.queue, "run": run, "status": status, "value": value, "error": error}
        )
    elif failure is None:
        print_json(value)
    if failure is not None:
        raise click.exceptions.Exit(1)


def _say_started(workflow: str, handle: WorkflowHandle, cron: str, hint: str) -> None:
    key = handle.key
    name = key.id if key.id.replace("-", "").replace("_", "").isalnum() else f"'{key.id}'"
    if cron:
        say(f"{workflow} is scheduled as {key.id} on queue {key.queue}: {cron}")
        say(f"next: mesh terminate {name}{hint}   ends the schedule")
        return
    verb = "was running already" if handle.existing else "is started"
    say(f"{workflow} {verb} as {key.id} on queue {key.queue}, run {handle.run}")
    say(f"next: mesh show {name}{hint}   or   mesh result {name}{hint}")
