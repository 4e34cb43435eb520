"""Shell completion of values: ids of workflows, queues, types, hosts, nodes, schedules, NATS contexts.

Which values a parameter takes follows from its name, so that every command has them, also one that knows nothing of
this. Somebody waits with a finger on the Tab key: what does not come in time does not come, nothing is said, and no
error is one.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from mesh.client import Client

ANSWER_S: Final = 1.0
CONNECT_S: Final = 0.25
SHOWN_MAX: Final = 500
RECENT_EVENTS: Final = 5000  # of a queue with more workflows than are told at once

# Values with a line of help each, or none.
Values: TypeAlias = "Iterable[tuple[str, str]]"
Ask: TypeAlias = "Callable[[Client, click.Context], Awaitable[Values]]"


def attach(command: click.Command) -> click.Command:
    """Have the parameters of a command, and of the commands below it, complete their values."""
    if isinstance(command, click.Group):
        for below in command.commands.values():
            attach(below)
    for parameter in command.params:
        ask = _ask_for(command, parameter)
        takes_files = "FILE" in (parameter.metavar or "")
        if (ask is not None or takes_files) and isinstance(parameter.type, click.types.StringParamType):
            # A method of this one parameter: click takes a function only when a parameter is made.
            complete = _completer(ask, parameter, takes_files=takes_files)
            setattr(parameter, "shell_complete", complete)  # noqa: B010 - mypy knows the method
    return command


def _ask_for(command: click.Command, parameter: click.Parameter) -> Ask | None:
    name, metavar = parameter.name or "", parameter.metavar or ""
    if name == "workflow_id" and isinstance(parameter, click.Option):
        return None  # that of one that is about to be made
    if name == "schedule_id":
        return None if command.name == "add" else schedules
    if name == "host" and metavar != "NAME":
        return None  # an address
    if name == "entry" and command.name != "ps":
        return None  # of an app that lies here
    if name == "workflow" and metavar == "ID":
        return workflows
    return _ASKS.get(name)


def _completer(
    ask: Ask | None, parameter: click.Parameter, *, takes_files: bool
) -> Callable[[click.Context, str], list[CompletionItem]]:
    def complete(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        if ask is None or (takes_files and "/" in incomplete):
            return [CompletionItem(incomplete, type="file")] if takes_files else []
        given = ctx.params.get(parameter.name or "")
        taken = {str(value) for value in given} if isinstance(given, (list, tuple)) else set()
        found = [(value, text) for value, text in _asked(ask, ctx) if value.startswith(incomplete)]
        found = [(value, text) for value, text in found if value not in taken]
        return [CompletionItem(value, help=text or None) for value, text in found[:SHOWN_MAX]]

    return complete


def _asked(ask: Ask, ctx: click.Context) -> list[tuple[str, str]]:
    """What the mesh of a command line that is being typed has; nothing when it cannot be asked."""
    if ask is contexts:
        return _context_names()
    if ask is commands:
        return _command_names()
    if ask is orders:
        return _order_names()
    import logging

    import anyio

    found: list[tuple[str, str]] = []

    async def main() -> None:
        from dataclasses import replace

        import mesh.client
        from node.cli.connecting import server_of_line

        with anyio.move_on_after(ANSWER_S):
            server = server_of_line(ctx.params)
            options = replace(server.options(), connect_timeout_s=CONNECT_S)
            async with mesh.client.connect(server.url, name="mesh completion", options=options) as client:
                found.extend(sorted(set(await ask(client, ctx))))

    logging.disable()
    try:
        anyio.run(main)
    except Exception:  # whatever it is: the shell shows a prompt, not our errors
        return []
    finally:
        logging.disable(logging.NOTSET)
    return found


# -- what there is -----------------------------------------------------------------------------------------------------


async def workflows(client: Client, ctx: click.Context) -> Values:
    """Ids of workflows; of very many only those that something has happened to lately."""
    from mesh.errors import MeshError, ServerRefused
    from mesh.subjects import parse_stored, token

    found = []
    wanted = ctx.params.get("queue")
    for queue in [wanted] if wanted else await _queue_names(client):
        stream = client.history(queue).stream
        starts = f"mesh.log.{token(queue)}.*.*.start"
        try:
            messages = await client.js.multi_last(stream, [starts], timeout_s=ANSWER_S)
        except ServerRefused:
            last = (await client.js.stream_info(stream)).last_seq
            messages = await client.js.batch_get(
                stream, subject_filter=starts, from_seq=last - RECENT_EVENTS, messages_max=SHOWN_MAX
            )
        except MeshError:
            continue
        found += [(parsed.id, f"queue {queue}") for message in messages if (parsed := parse_stored(message.subject))]
    return found


async def schedules(client: Client, ctx: click.Context) -> Values:
    """Ids of schedules."""
    from mesh.schedules import list_schedules

    wanted = ctx.params.get("queue")
    return [
        (schedule.key.id, f"queue {queue}{', paused' if schedule.paused else ''}")
        for queue in ([wanted] if wanted else await _queue_names(client))
        for schedule in await list_schedules(client.js, queue)
    ]


async def queues(client: Client, _ctx: click.Context) -> Values:
    """Names of queues."""
    return [(name, "") for name in await _queue_names(client)]


async def hosts(client: Client, _ctx: click.Context) -> Values:
    """Workers and task queues: what a workflow can be started on."""
    records = await client.hosts.workers()
    return [(record.worker, f"queue {record.queue}") for record in records] + [(r.queue, "queue") for r in records]


async def types(client: Client, _ctx: click.Context) -> Values:
    """Names of the workflows that can be started."""
    return [(name, record.worker) for record in await client.hosts.workers() for name in record.workflows]


async def nodes(client: Client, _ctx: click.Context) -> Values:
    """Nodes that are up."""
    from node.api.directory import members

    return [(name, "leaving" if member.get("leaving") else "") for name, member in (await members(client)).items()]


async def functions(client: Client, _ctx: click.Context) -> Values:
    """Functions that nodes offer."""
    from node.api.directory import offered

    return [(name, "") for name in await offered(client)]


async def pids(client: Client, _ctx: click.Context) -> Values:
    """PIDs of processes and calls."""
    from node.api.directory import processes

    return [(str(r["pid"]), str(r["entry"])) for r in await processes(client, limit=SHOWN_MAX) if r["pid"]]


async def commands(_client: Client, _ctx: click.Context) -> Values:
    """The commands of mesh; no server is asked."""
    return _command_names()


def _command_names() -> list[tuple[str, str]]:
    from node.cli import COMMANDS

    return [(name, text) for name, (_, text) in COMMANDS.items()]


async def orders(_client: Client, _ctx: click.Context) -> Values:
    """What a list of workflows can be ordered by; no server is asked."""
    return _order_names()


def _order_names() -> list[tuple[str, str]]:
    from mesh.listing import ORDERS

    return [
        (sign + name, text)
        for sign, text in (("", "the smallest first"), ("-", "the largest first"))
        for name in ORDERS
    ]


async def contexts(_client: Client, _ctx: click.Context) -> Values:
    """NATS contexts; they are files, and no server is asked."""
    return _context_names()


def _context_names() -> list[tuple[str, str]]:
    from mesh.context import context_names, selected_context

    try:
        selected = selected_context(os.environ)
        return [(name, "selected" if name == selected else "") for name in context_names(os.environ)]
    except OSError:
        return []


async def _queue_names(client: Client) -> list[str]:
    return sorted({record.queue for record in await client.hosts.workers()})


# By the name of a parameter, the same in all commands.
_ASKS: Final[dict[str, Any]] = {
    "workflow_id": workflows,
    "ids": workflows,
    "what": workflows,
    "id_": workflows,
    "queue": queues,
    "host": hosts,
    "workflow": types,
    "type_": types,
    "type_name": types,
    "node": nodes,
    "pid": pids,
    "entry": functions,
    "commands": commands,
    "context": contexts,
    "order": orders,
}
