"""`mesh watch`: one workflow live until it ends, or what happens on the mesh.

One line an event: a terminal scrolls, and what was seen stays.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from node.api.verbs import StillRunning
from node.cli.connecting import Server, connection_options, run
from node.cli.live import until_enough
from node.cli.printing import say, shortened
from node.cli.workflows import queue_option

if TYPE_CHECKING:
    from mesh.client import Client
    from node.cli.feed import Happening

# Nothing may be heard of a run that a node without news has suspended or taken over: looked at again all the same.
LOOK_EVERY_S: Final = 5.0
EVENTS_FIRST: Final = 20  # of the history that is there already


@click.command()
@click.argument("workflow_id", metavar="[ID]", required=False)
@queue_option
@click.option("--type", "type_name", metavar="NAME", help="Without an ID: only workflows of this type.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one object a line: with an ID each event, {n, seq, time, since_s, kind, ...}, then its end, "
    "{id, queue, run, status, value, error}; without one {time, what, id, queue, run, type, status, error}.",
)
@connection_options(timeout=None)
def watch(workflow_id: str | None, *, queue: str | None, type_name: str | None, as_json: bool, server: Server) -> None:
    """Follow the workflow ID live: its state, and each event as it comes, until it ends.

    The exit status is that of `mesh result`: 1 when it failed, was canceled or terminated, or has not ended within
    --timeout.

    Without an ID: what starts, ends, fails or is suspended on the mesh from now on, until Ctrl-C.
    """
    if workflow_id is not None and type_name is not None:
        raise click.UsageError("--type is for watching the mesh; an ID names one workflow already")

    async def main() -> None:
        async with server.client() as client:
            if workflow_id is not None:
                await _watch_one(client, workflow_id, queue, server, as_json=as_json)
            else:
                await _watch_all(client, queue, type_name, server, as_json=as_json)

    run(main)


# -- one workflow ----------------------------------------------------------------------------------------------------


async def _watch_one(client: Client, workflow_id: str, queue: str | None, server: Server, *, as_json: bool) -> None:
    import anyio

    from mesh.groups import unwrapped
    from node.api.describing import describe
    from node.api.locating import find
    from node.cli.news import News

    with server.answer_deadline("the workflow"):
        handle = await find(client, server.url, workflow_id, queue, flags=server.hint)
    news = await News.of(client, handle)
    told = _Told(as_json=as_json, hint=server.hint)

    async def look(run: int = 0) -> dict[str, Any]:
        with server.answer_deadline("the workflow"):
            return await describe(client, handle.key, run=run)

    async def follow() -> None:
        over = False
        while not over:
            record = await news.look(look)
            if told.run not in (0, record["run"]):
                told.tell(await look(told.run))  # how it went over to the next run
            over = told.tell(record)
            if not over:
                await news.wait(LOOK_EVERY_S)

    with unwrapped():
        async with anyio.create_task_group() as tasks:
            await tasks.start(news.run)
            with anyio.move_on_after(None if math.isinf(server.timeout_s) else server.timeout_s) as limit:
                await follow()
            tasks.cancel_scope.cancel()
    if limit.cancelled_caught:
        raise StillRunning({"id": workflow_id}, server.timeout_s, server.hint)
    if told.status != "completed":
        raise click.exceptions.Exit(1)


class _Told:
    """What was said of a workflow so far. run: the one it was said of. status: how it has ended."""

    def __init__(self, *, as_json: bool, hint: str) -> None:
        self.status = ""
        self._as_json = as_json
        self._hint = hint
        self.run = 0
        self._events = 0
        self._state: Any = None
        self._node = ""

    def tell(self, record: Mapping[str, Any]) -> bool:
        """Say what is new; whether it has ended."""
        from node.cli.show import is_over

        if record["run"] != self.run:
            self._begin(record)
        self._tell_events(record)
        over = is_over(record)
        if over:
            self.status = record["status"]
            self._tell_end(record)
        else:
            self._tell_state(record)
        sys.stdout.flush()
        return over

    def _begin(self, record: Mapping[str, Any]) -> None:
        from node.cli.show import print_lines
        from node.cli.state_view import head_lines

        first = not self.run
        self.run, self._events, self._state = record["run"], 0, None
        if self._as_json:
            return
        if first:
            print_lines(head_lines(record, hint=self._hint))
            hidden = record["events_total"] - EVENTS_FIRST
            if hidden > 0:
                self._events = hidden
                say(f"{hidden} earlier events: mesh show {record['id']} --last 0{self._hint}")
        else:
            click.echo(f"run {record['run']}")

    def _tell_events(self, record: Mapping[str, Any]) -> None:
        from node.cli.show import print_lines
        from node.cli.timeline import EVENT_INDENT, event_line

        ops = {op["n"]: op for op in record["ops"]}
        for event in record["events"][self._events :]:
            if self._as_json:
                print_json_line(event)
            else:
                print_lines([event_line(event, ops)], hang=EVENT_INDENT)
        self._events = len(record["events"])

    def _tell_state(self, record: Mapping[str, Any]) -> None:
        """Say what it waits for, when that is something else than before."""
        from node.cli.show import print_lines
        from node.cli.state_view import line, outcome_lines, waits_text

        if record["node"] and record["node"] != self._node:
            if self._node and not self._as_json:
                print_lines([line((f"    ... now on node {record['node']}", "yellow"))])
            self._node = record["node"]
        tasks = [waits_text(task["waits"]) for task in record["tasks"] if not task["runtimes"]]
        state = (record["status"], record["reason"], tasks)
        if state == self._state or self._as_json:
            return
        self._state = state
        if record["status"] == "suspended":
            print_lines(outcome_lines(record, hint=self._hint))
        elif record["reason"]:
            print_lines([line((f"    ... {record['reason']}", "dim"))])
        elif tasks:
            print_lines([line((f"    ... {shortened('; '.join(tasks), 200)}", "dim"))])

    def _tell_end(self, record: Mapping[str, Any]) -> None:
        from node.cli.show import print_lines
        from node.cli.state_view import outcome_lines

        if self._as_json:
            print_json_line({name: record[name] for name in ("id", "queue", "run", "status", "value", "error")})
        else:
            print_lines(outcome_lines(record, hint=self._hint))


def print_json_line(record: Mapping[str, Any]) -> None:
    """Print an object on one line and hand it over at once."""
    from mesh import codec

    click.echo(codec.to_json(record))
    sys.stdout.flush()


# -- the mesh --------------------------------------------------------------------------------------------------------


async def _watch_all(
    client: Client, queue: str | None, type_name: str | None, server: Server, *, as_json: bool
) -> None:
    import anyio

    from mesh.groups import unwrapped
    from node.api.locating import workers
    from node.cli.feed import Feed

    async def known() -> set[str]:
        return {record.queue for record in await workers(client, server.url)}

    with server.answer_deadline("the queues"):
        queues = sorted(await known())
    if queue is not None and queue not in queues:
        raise click.UsageError(f"no queue {queue!r}; there are: {', '.join(queues) or 'none'}")
    feed = Feed(client, [queue] if queue is not None else queues, type_name)

    async def show() -> None:
        with anyio.move_on_after(None if math.isinf(server.timeout_s) else server.timeout_s):
            async for happening in feed.happenings():
                _tell_happening(happening, as_json=as_json)

    about = f"queue {queue}" if queue is not None else f"queues {', '.join(queues)}" if queues else "no queue yet"
    with unwrapped():
        async with anyio.create_task_group() as tasks:
            await feed.start(tasks)
            if queue is None:
                tasks.start_soon(feed.find_new, tasks, known)
            say(f"watching {about}{f', type {type_name}' if type_name else ''}; Ctrl-C ends")
            if feed.ends_alone:
                say("this user may not follow the streams: only ends and suspensions are shown")
            await until_enough(show)
            tasks.cancel_scope.cancel()


def _tell_happening(happening: Happening, *, as_json: bool) -> None:
    from node.cli.show import print_lines
    from node.cli.state_view import STATUS_STYLES, line
    from node.cli.timeline import clock_of

    record = happening.to_record()
    if as_json:
        print_json_line(record)
        return
    error = record["error"]
    why = f"  {shortened(str(error), 160)}" if error else ""
    print_lines(
        [
            line(
                f"{clock_of(record['time'])}  ", (f"{record['what']:<10}", STATUS_STYLES.get(record["status"], "")),
                "  ", (str(record["id"]), "bold"), f"  {record['type'] or '?'}  {record['queue']}{why}",
            )
        ]
    )  # fmt: skip
    sys.stdout.flush()
