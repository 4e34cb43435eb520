"""`mesh logs`: what the nodes and their Lua code log, from all nodes in one stream."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Final

import click

from node.cli.connecting import Server, connection_options, run
from node.cli.printing import iso, no_color, say
from node.cli.values import DURATION

if TYPE_CHECKING:
    from mesh.client import Client
    from node.telemetry.log_lines import LogLine, Wanted

LEVELS: Final = ("debug", "info", "warning", "error")
LINES_DEFAULT: Final = 100
LINES_MAX: Final = 100_000
# Lines of different nodes that come in this much apart are put in order.
ORDER_S: Final = 0.05
# Of these a line says enough by its other fields.
_HIDDEN: Final = ("n", "logger", "time", "level", "event")
_NODE_COLORS: Final = ("36", "33", "35", "34", "32", "96", "93", "95")


@click.command()
@click.argument("what", metavar="[ID]", required=False)
@click.option("-f", "--follow", is_flag=True, help="Show what comes, until Ctrl-C.")
@click.option("--node", metavar="NAME", help="Only of this node.")
@click.option("--workflow", metavar="ID", help="Only what concerns this workflow; the same as the argument ID.")
@click.option("--pid", metavar="PID", help="Only what concerns this process or function call.")
@click.option("--level", type=click.Choice(LEVELS), default="debug", help="The least that is shown.")
@click.option("--grep", "text", metavar="TEXT", help="Only lines with this text in any field, whatever its case.")
@click.option("--since", type=DURATION, metavar="DURATION", help="Only lines that are not older, such as 5m.")
@click.option(
    "-n", "--lines", type=click.IntRange(0, LINES_MAX), default=LINES_DEFAULT, show_default=True, metavar="COUNT",
    help="How many of the latest lines to show at most.",
)  # fmt: skip
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print a line {time, level, event, node, logger, queue, workflow, run, pid, function, trace_id, ...} for "
    "each.",
)
@connection_options
def logs(
    *,
    what: str | None,
    follow: bool,
    node: str | None,
    workflow: str | None,
    pid: str | None,
    level: str,
    text: str | None,
    since: float | None,
    lines: int,
    as_json: bool,
    server: Server,
) -> None:
    """Show what nodes and Lua code log, the lines of all nodes in order of their times.

    ID is a workflow's: its own lines, those of the functions that it calls, and those of its owner about it. Or a PID
    in braces. Each node keeps its last 2000 lines, in memory; older ones are where the node's own output goes. A node
    logs what its --log-level lets through.

    \b
    mesh logs -f                      everything, as it comes
    mesh logs order-17                what concerns one workflow
    mesh logs --level warning --since 10m
    """  # noqa: D301 - click reads the control character
    if what is not None and what.startswith("{"):
        if pid is not None and pid != what:
            raise click.UsageError("the argument is a PID and --pid another one")
        pid = what
    elif what is not None:
        if workflow is not None and workflow != what:
            raise click.UsageError("the argument and --workflow name different workflows")
        workflow = what

    async def main() -> None:
        from node.telemetry.log_lines import Wanted

        since_text = iso(time.time_ns() - round(since * 1e9)) if since is not None else ""
        wanted = Wanted(workflow or "", pid or "", level, text or "", since_text)
        show = _show_json if as_json else _text_printer()
        async with server.client() as client:
            await _show(client, server, wanted, node, lines, follow, show)

    run(main)


async def _show(
    client: Client, server: Server, wanted: Wanted, node: str | None, lines_max: int, follow: bool,
    show: Callable[[LogLine], None],
) -> None:  # fmt: skip
    from mesh.envelopes import why_closed
    from node.telemetry.log_lines import decode_lines, identity

    coming: list[LogLine] = []
    closed: set[str] = set()
    if follow:
        from mesh.subjects import log_subject

        subject = log_subject(node) if node is not None else "mesh.logs.*"

        def on_line(subject: str, _reply: str, data: bytes, _raw_headers: bytes | None) -> None:
            opened = client.conn.opened(subject, data)
            reason = why_closed(opened)
            if reason is not None and reason not in closed:
                closed.add(reason)
                say(_why_closed(reason))
            coming.extend(decode_lines(opened))

        client.conn.subscribe_direct(subject, on_line)
    with server.deadline("the nodes' log lines"):
        await client.conn.flush()
        kept, silent, unread = await _kept_lines(client, node)
    found = sorted(filter(wanted, kept), key=lambda line: (line["time"], line.get("n") or 0))
    shown = found[max(0, len(found) - lines_max) :]
    for line in shown:
        show(line)
    if len(shown) < len(found) and not follow:
        say(f"{len(found) - len(shown)} earlier lines are not shown; -n {min(len(found), LINES_MAX)} shows them")
    if silent:
        say(f"no answer from {', '.join(silent)}")
    for reason in sorted(unread - closed):
        say(_why_closed(reason))
    closed |= unread
    if not shown and not follow and not closed:
        say(_why_nothing(kept, server))
    if follow:
        seen = {identity(line) for line in kept}
        await _until_signal(lambda: _follow(coming, wanted, seen, show))


async def _until_signal(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Work until Ctrl-C: that is how one leaves, and no failure."""
    import anyio

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                tasks.cancel_scope.cancel()


async def _follow(
    coming: list[LogLine], wanted: Wanted, seen: set[tuple[Any, ...]], show: Callable[[LogLine], None]
) -> None:
    """Show lines as they come, until cancelled; those of different nodes in order, if they come together."""
    import anyio

    from node.telemetry.log_lines import identity

    while True:
        await anyio.sleep(ORDER_S)
        taken, coming[:] = list(coming), []
        for line in sorted(taken, key=lambda line: (line["time"], line.get("n") or 0)):
            # What had been kept when we asked has been shown.
            if wanted(line) and identity(line) not in seen:
                show(line)
        if taken:
            sys.stdout.flush()


async def _kept_lines(client: Client, node: str | None) -> tuple[list[LogLine], list[str], set[str]]:
    """The lines that nodes have kept, the nodes that did not answer, and why some answers cannot be read.

    Raises UnknownNode.
    """
    import anyio

    from mesh.envelopes import why_closed
    from mesh.errors import Disconnected, NoResponders, RequestTimeout
    from mesh.subjects import node_request
    from node.api.directory import ANSWER_TIMEOUT_S, UnknownNode
    from node.telemetry.log_lines import decode_lines

    known = await _nodes(client)
    if node is not None and node not in known:
        raise UnknownNode(node, known)
    lines: list[LogLine] = []
    silent: list[str] = []
    unread: set[str] = set()

    async def ask(node_id: str) -> None:
        try:
            reply = await client.conn.request(node_request(node_id, "logs"), b"", timeout_s=ANSWER_TIMEOUT_S)
        except (Disconnected, NoResponders, RequestTimeout):
            silent.append(node_id)
        else:
            if reason := why_closed(reply.data):
                unread.add(reason)
            lines.extend(decode_lines(reply.data))

    async with anyio.create_task_group() as tasks:
        for node_id in [node] if node is not None else known:
            tasks.start_soon(ask, node_id)
    return lines, sorted(silent), unread


async def _nodes(client: Client) -> list[str]:
    """The nodes of the mesh, those that only serve functions among them."""
    from mesh.errors import NotFound
    from node.api.directory import members

    try:
        return list(await members(client))
    except NotFound:  # none has ever been up
        return []


def _why_nothing(kept: Iterable[LogLine], server: Server) -> str:
    if any(True for _ in kept):
        return f"no line fits of those since the nodes' start; what comes is shown by: mesh logs -f{server.hint}"
    return f"no node has logged anything; which are up is shown by: mesh nodes{server.hint}"


def _why_closed(reason: str) -> str:
    return f"what nodes have logged is {reason}; give the keys with --keys FILE"


def _show_json(line: LogLine) -> None:
    from mesh import codec

    click.echo(codec.to_json({name: value for name, value in line.items() if name != "n"}))


def _text_printer() -> Callable[[LogLine], None]:
    """Write lines as the nodes do on a terminal, with the node in front, each in a colour of its own."""
    from datetime import datetime

    from node.logs import TextLine

    colors = sys.stdout.isatty() and not no_color()
    write = TextLine(colors=colors)
    known: dict[str, str] = {}

    def show(line: LogLine) -> None:
        node = str(line.get("node") or "?")
        color = known.setdefault(node, _NODE_COLORS[len(known) % len(_NODE_COLORS)])
        label = f"\x1b[{color}m{node:<8}\x1b[0m" if colors else f"{node:<8}"
        event = {name: value for name, value in line.items() if name not in (*_HIDDEN, "node")}
        local = datetime.fromisoformat(line["time"]).astimezone()
        event |= {
            "timestamp": f"{local:%H:%M:%S.%f}",
            "level": line.get("level", "info"),
            "event": line.get("event", ""),
        }
        click.echo(f"{label} {write(None, '', event)}")

    return show
