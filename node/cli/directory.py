"""What there is on the mesh: `mesh functions`, `mesh services`, `mesh ps`. The records are `node.api.directory`'s."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from node.cli.connecting import Server, connection_options, run
from node.cli.live import ListView, show_list, watch_option
from node.cli.printing import say, span

if TYPE_CHECKING:
    from mesh.client import Client

Record = Mapping[str, Any]

LIMIT_DEFAULT: Final = 200
LIMIT_MAX: Final = 10_000
# As `node.inventory` has them.
ORDERS: Final = ("started", "newest", "mailbox")


@click.command()
@watch_option
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print a line {function, kind, nodes, instances, calls, errors, average_s, in_flight, waiting, last_error, "
    "subject, service} for each.",
)
@connection_options
def functions(*, watch: bool, every: float, as_json: bool, server: Server) -> None:
    """List the functions of the mesh: who offers them, and what they have done since those nodes started.

    Kinds: lua, python, process (a process that can be called) and nats: a service outside of the mesh, by what it says
    of itself ($SRV.STATS). A function with no node is in somebody's app and offered by nobody.
    """
    empty = f"no node offers a function; start one with: mesh node APP{server.hint}"
    list_all(server, "functions", _functions_view, empty=empty, as_json=as_json, watch=watch, every_s=every)


@click.command()
@watch_option
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print a line {service, node, state, starts, since, last_error, pid, restart_in_s, waits_for} for each.",
)
@connection_options
def services(*, watch: bool, every: float, as_json: bool, server: Server) -> None:
    """List the services of the mesh: on which node each is and how it does there.

    A service with `placement: one` runs on one node and is UNKNOWN or STOPPED on the others that might run it.
    """
    empty = "no node has a service; they are entries of the kind process.service"
    list_all(server, "services", _services_view, empty=empty, as_json=as_json, watch=watch, every_s=every)


@click.command()
@click.option("--node", metavar="NAME", help="Only those of this node.")
@click.option("--entry", metavar="PATTERN", help="Only those of entries that fit, such as 'shop:*'.")
@click.option(
    "--order", type=click.Choice(ORDERS), default=ORDERS[0], show_default=True,
    help="started: the oldest first; mailbox: processes that have most to read.",
)  # fmt: skip
@click.option(
    "-n", "--limit", type=click.IntRange(1, LIMIT_MAX), default=LIMIT_DEFAULT, show_default=True, metavar="COUNT",
    help="How many to show at most; a node answers a thousand at most.",
)  # fmt: skip
@watch_option
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print a line {pid, kind, entry, node, state, started, age_s, parent, workflow, service, names, mailbox, ...} "
    "for each.",
)
@connection_options
def ps(
    *,
    node: str | None,
    entry: str | None,
    order: str,
    limit: int,
    watch: bool,
    every: float,
    as_json: bool,
    server: Server,
) -> None:
    """List processes and the function calls that are under way. Workflows are in `mesh ls`.

    For each: since when it runs, who has started it (a process, or the operation of a workflow), how many messages it
    has not read, its registered names, how many monitor it and how many it is linked to.
    """

    async def main() -> None:
        from node.api import directory

        async with server.client() as client:
            notes: list[str] = []

            async def page(client: Client) -> list[dict[str, Any]]:
                found = await directory.process_page(client, node=node, entry=entry, order=order, limit=limit)
                notes.clear()
                if len(found.records) < found.total:
                    notes.append(f"{len(found.records)} of {found.total} are shown; --limit shows more")
                if found.silent:
                    notes.append(f"no answer from {', '.join(found.silent)}")
                return found.records

            async def fetch() -> list[dict[str, Any]]:
                with server.deadline("the processes"):
                    wish = {"node": node, "entry": entry, "order": order, "limit": limit}
                    given = {name: value for name, value in wish.items() if value is not None}
                    return await asked(client, server, "processes", page, given)

            await show_list(
                fetch, lambda records: _processes_view(records, notes),
                empty="no process and no function call is under way", as_json=as_json, watch=watch, every_s=every,
            )  # fmt: skip
            if as_json and not watch:
                for note in notes:
                    say(note)

    run(main)


def list_all(
    server: Server,
    what: Literal["functions", "nodes", "services"],
    view: Callable[[Sequence[Record]], ListView],
    *,
    empty: str,
    as_json: bool,
    watch: bool,
    every_s: float,
) -> None:
    """List all that there is of something; the parameters are those of `show_list`."""

    async def main() -> None:
        from node.api import directory

        ask = {"functions": directory.functions, "nodes": directory.nodes, "services": directory.services}[what]
        async with server.client() as client:

            async def fetch() -> list[dict[str, Any]]:
                with server.deadline(f"the {what}"):
                    return await asked(client, server, what, ask)

            await show_list(fetch, view, empty=empty, as_json=as_json, watch=watch, every_s=every_s)

    run(main)


async def asked(
    client: Client,
    server: Server,
    verb: str,
    ask: Callable[[Client], Awaitable[list[dict[str, Any]]]],
    wish: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """The records: of the nodes, or of the control API for a user who may not ask those.

    Raises EmptyMesh, NoResponders when the server has no JetStream, NotPermitted.
    """
    from mesh.errors import NotFound, NotPermitted
    from node.api.directory import UnknownNode
    from node.api.locating import ensure_mesh

    try:
        return await ask(client)
    except UnknownNode:
        raise
    except NotPermitted as refused:
        found = await _from_api(client, verb, wish or {}, server.timeout_s)
        if found is None:
            raise refused from None
        return found
    except NotFound:
        await ensure_mesh(client, server.url)
        raise


async def _from_api(
    client: Client, verb: str, wish: Mapping[str, Any], timeout_s: float
) -> list[dict[str, Any]] | None:
    """The records as `mesh.api.<verb>` has them; None when that is of no use either."""
    import json

    from mesh.errors import MeshError

    try:
        reply = await client.conn.request(f"mesh.api.{verb}", json.dumps(wish).encode(), timeout_s=timeout_s)
        answer = json.loads(reply.data or b"null")
    except (MeshError, ValueError):
        return None
    found = answer.get(verb) if isinstance(answer, dict) else None
    return found if isinstance(found, list) else None


# -- tables ----------------------------------------------------------------------------------------------------------


def _functions_view(records: Sequence[Record]) -> ListView:
    columns = ("function", "kind", "nodes", "calls", "errors", "average", "in flight", "waiting", "last error")
    rows = [
        (
            record["function"],
            record["kind"],
            ", ".join(record["nodes"]) or (f"service {record['service']}" if record["service"] else "-"),
            str(record["calls"]),
            str(record["errors"]),
            span(record["average_s"]) if record["average_s"] is not None else "-",
            str(record["in_flight"]),
            str(record["waiting"]),
            record["last_error"] or "-",
        )
        for record in records
    ]
    spare = ["kind", "last error", "waiting", "in flight", "average", "nodes"]
    if not any(record["last_error"] for record in records):
        spare = ["last error", *(name for name in spare if name != "last error")]
    return ListView(columns, rows, spare=spare)


def _services_view(records: Sequence[Record]) -> ListView:
    columns = ("service", "node", "state", "starts", "since", "last error")
    rows = [
        (
            record["service"],
            record["node"],
            record["state"],
            str(record["starts"]),
            _ago(record["since"]),
            _why(record),
        )
        for record in records
    ]
    return ListView(columns, rows, status_column=2, spare=["starts", "since", "last error"])


def _why(record: Record) -> str:
    parts = [record["last_error"] or ""]
    if record["waits_for"]:
        parts.append(f"waits for {record['waits_for']}")
    if record["restart_in_s"] is not None:
        parts.append(f"again in {span(record['restart_in_s'])}")
    return "; ".join(part for part in parts if part) or "-"


def _processes_view(records: Sequence[Record], notes: Sequence[str]) -> ListView:
    columns = ("pid", "entry", "node", "age", "mailbox", "pending", "monitored", "links", "names", "parent")
    rows = [
        (
            record["pid"] or "-",
            record["entry"],
            record["node"],
            span(record["age_s"]) if record["state"] == "running" else "waits",
            str(record["mailbox"]) if record["mailbox"] is not None else "-",
            str(record["pending"]),
            str(record["monitored_by"]),
            str(record["links"]),
            ", ".join(record["names"]) or "-",
            _parent(record),
        )
        for record in records
    ]
    # The node stands in the PID.
    spare = ["node", "links", "monitored", "pending", "parent", "names", "age"]
    return ListView(columns, rows, spare=spare, notes=list(notes))


def _parent(record: Record) -> str:
    if record["workflow"]:
        caller = record["workflow"]
        attempt = f" attempt {caller['attempt']}" if caller["attempt"] > 1 else ""
        return f"workflow {caller['id']} op {caller['op']}{attempt}"
    return record["parent"] or (f"service {record['service']}" if record["service"] else "-")


def _ago(time_text: str | None) -> str:
    import time
    from datetime import datetime

    if time_text is None:
        return "-"
    return f"{span(max(0.0, time.time() - datetime.fromisoformat(time_text[:26] + '+00:00').timestamp()))} ago"
