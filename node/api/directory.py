"""What there is on the mesh: nodes, functions, services, processes, as records (docs/api.md describes them).

Every member is asked at once and answers or does not; what came is put together by pure functions. Asks and changes
nothing. Raises NotFound where no node has ever been up.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from mesh import codec
from mesh.buckets import Bucket
from mesh.errors import Disconnected, MeshError, NoResponders, NotFound, NotPermitted, RequestTimeout, Undecodable
from mesh.groups import unwrapped
from mesh.instants import iso
from mesh.roster import BUCKET
from mesh.spelling import proposal
from mesh.subjects import bucket_key_name, node_request

if TYPE_CHECKING:
    from mesh.client import Client

ANSWER_TIMEOUT_S: Final = 1.0
# How long services outside of the mesh may take to answer; nobody says how many there are.
FOREIGN_S: Final = 0.25
PROCESSES_DEFAULT: Final = 200
# The micro services that are the mesh itself: functions of nodes (`node.micro`) and the control API.
OWN_SERVICES: Final = frozenset({"moonmesh", "mesh"})

Record = dict[str, Any]


class UnknownNode(NotFound):
    """Raised when a node is named that is not up."""

    code = "unknown-node"

    def __init__(self, node_id: str, known: Iterable[str]) -> None:
        super().__init__(f"no node {node_id!r} is up; {proposal(node_id, sorted(known))}")


class UnknownFunction(NotFound):
    """Raised when a function is called that nobody offers."""

    def __init__(self, function: str, known: Iterable[str], flags: str = "") -> None:
        hint = proposal(function, sorted(known), f"see what there is with: mesh functions{flags}")
        super().__init__(f"no node offers a function {function!r}; {hint}")


@dataclass(frozen=True, slots=True)
class ProcessPage:
    """Some of the processes and calls of the mesh. total: how many there are. silent: nodes that did not answer."""

    records: list[Record]
    total: int
    silent: list[str] = field(default_factory=list)


# -- what is asked ---------------------------------------------------------------------------------------------------


async def nodes(client: Client) -> list[Record]:
    """The nodes of the mesh, by id."""
    return [node_record(node_id, answer) for node_id, answer in (await ask_nodes(client)).items()]


async def functions(client: Client) -> list[Record]:
    """The functions of the mesh, by id: those of nodes, and those of other NATS services."""
    import anyio

    present = await members(client)
    answers: dict[str, dict[str, Any]] = {}
    foreign: list[Mapping[str, Any]] = []

    async def ask_services() -> None:
        foreign.extend(await micro_services(client))

    with unwrapped():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask_services)
            answers = await ask_each(client, present, "functions")
    return function_records({node: answer.get("functions") or () for node, answer in answers.items()}, foreign)


async def services(client: Client) -> list[Record]:
    """The services of the mesh, one record for each node that may run it."""
    records = []
    for node_id, answer in (await ask_nodes(client)).items():
        records += [service_record(node_id, item) for item in answer.get("services") or () if isinstance(item, dict)]
    return sorted(records, key=lambda record: (record["service"], record["node"]))


async def processes(
    client: Client,
    *,
    node: str | None = None,
    entry: str | None = None,
    pid: str | None = None,
    order: str = "started",
    limit: int = PROCESSES_DEFAULT,
) -> list[Record]:
    """Processes and function calls under way; the parameters are those of `process_page`."""
    return (await process_page(client, node=node, entry=entry, pid=pid, order=order, limit=limit)).records


async def process_page(
    client: Client,
    *,
    node: str | None = None,
    entry: str | None = None,
    pid: str | None = None,
    order: str = "started",
    limit: int = PROCESSES_DEFAULT,
) -> ProcessPage:
    """Processes and function calls under way, of all nodes or one. Raises UnknownNode.

    entry: a pattern for their entries. order: started (the oldest first), newest, or mailbox (processes with most to
    read). A node answers at most a thousand.
    """
    present = await members(client)
    if node is not None and node not in present:
        raise UnknownNode(node, present)
    asked = [node] if node is not None else list(present)
    wish = {"limit": limit, "order": order, "entry": entry, "pid": pid}
    answers = await ask_each(client, asked, "processes", wish)
    records = [process_record(name, item) for name, answer in answers.items() for item in answer.get("shown") or ()]
    if order == "mailbox":
        records.sort(key=lambda record: -(record["mailbox"] or 0))
    else:
        records.sort(key=lambda record: str(record["started"]), reverse=order == "newest")
    total = sum(int(answer.get("total", 0)) for answer in answers.values())
    return ProcessPage(records[:limit], total, [name for name in asked if name not in answers])


async def ask_nodes(client: Client) -> dict[str, dict[str, Any]]:
    """What every member answers to "how are you?", by node, with its member key as `member`; only that when silent."""
    present = await members(client)
    answers = await ask_each(client, present, "status")
    return {node_id: {**answers.get(node_id, {}), "member": member} for node_id, member in present.items()}


async def ask_each(
    client: Client, node_ids: Iterable[str], verb: str, wish: Any = None, *, timeout_s: float = ANSWER_TIMEOUT_S
) -> dict[str, dict[str, Any]]:
    """Ask nodes the same thing at the same time; those that do not answer with a map are left out.

    Raises NotPermitted.
    """
    import anyio

    answers: dict[str, dict[str, Any]] = {}
    refused: list[NotPermitted] = []
    asked = list(node_ids)

    async def ask(node_id: str) -> None:
        try:
            body = codec.encode(wish) if wish is not None else b""
            reply = await client.conn.request(
                node_request(node_id, verb), body, timeout_s=timeout_s, opens=client.opens
            )
            answer = codec.decode(reply.data)
        except NotPermitted as error:
            refused.append(error)
            return
        except (Disconnected, NoResponders, RequestTimeout, Undecodable):
            return
        if isinstance(answer, dict):
            answers[node_id] = answer

    async with anyio.create_task_group() as tasks:
        for node_id in asked:
            tasks.start_soon(ask, node_id)
    if refused:
        raise refused[0]
    return {node_id: answers[node_id] for node_id in asked if node_id in answers}


async def members(client: Client) -> dict[str, dict[str, Any]]:
    """The member keys as they stand, by node. Raises NotFound when no node has ever been up."""
    found = {}
    roster = Bucket(client.js, BUCKET)
    entries = [*await roster.entries("member.>"), *await roster.entries("host.>")]
    for entry in entries:
        try:
            member = json.loads(entry.value)
        except ValueError:
            continue
        if isinstance(member, dict):
            found[bucket_key_name(entry.key.partition(".")[2])] = member
    return dict(sorted(found.items()))


async def offered(client: Client) -> set[str]:
    """The functions that nodes offer; none where that may not be read."""
    try:
        found = await members(client)
    except MeshError:
        return set()
    return {str(name) for member in found.values() for name in member.get("functions") or ()}


async def micro_services(client: Client) -> list[Mapping[str, Any]]:
    """What all NATS micro services that are not the mesh's say of themselves (`$SRV.STATS`, ADR-32)."""
    try:
        replies = await client.conn.request_many("$SRV.STATS", timeout_s=FOREIGN_S)
    except MeshError:
        return []  # not allowed, or the connection has just broken
    found: list[Mapping[str, Any]] = []
    for reply in replies:
        try:
            said = json.loads(reply.data)
        except ValueError:
            continue
        if isinstance(said, dict) and said.get("name") not in OWN_SERVICES:
            found.append(said)
    return found


# -- records: pure ---------------------------------------------------------------------------------------------------


def node_record(node_id: str, answer: Mapping[str, Any]) -> Record:
    """A node, from what it has answered and its member key."""
    member = answer["member"]
    queues = {
        name: statistics for name, statistics in (answer.get("queues") or {}).items() if isinstance(statistics, dict)
    }
    began_ns, now_ns = answer.get("began_ns"), answer.get("now_ns")
    return {
        "node": node_id,
        "state": "silent" if "pid" not in answer else "leaving" if member.get("leaving") else "up",
        "functions_only": "incarnation" not in member,
        "machine": answer.get("machine"),
        "pid": answer.get("pid") or member.get("pid"),
        "version": answer.get("version"),
        "registry": answer.get("registry"),
        "started": iso(began_ns) if began_ns else None,
        "uptime_s": (now_ns - began_ns) / 1e9 if began_ns and now_ns else None,
        "memory_bytes": answer.get("memory_bytes"),
        "queues": {name: statistics.get("partitions", 0) for name, statistics in queues.items()},
        "runs": sum(int(statistics.get("resident", 0)) for statistics in queues.values()),
        "suspended": sum(int(statistics.get("suspended", 0)) for statistics in queues.values()),
        "calls": answer.get("calls", 0),
        "functions": len(answer.get("functions") or ()),
        "processes": answer.get("processes", 0),
        "services": [service for service in answer.get("services") or () if isinstance(service, dict)],
        "projection": answer.get("projection"),
        "metrics": answer.get("metrics"),
    }


def function_records(
    answers: Mapping[str, Iterable[Mapping[str, Any]]], foreign: Iterable[Mapping[str, Any]]
) -> list[Record]:
    """The functions of the mesh: what each node says of its own, and what other services say of their endpoints."""
    found: dict[str, Record] = {}
    busy_s: dict[str, float] = {}
    for node_id, items in answers.items():
        for item in items:
            name = str(item.get("id"))
            record = found.setdefault(name, _no_function(name, str(item.get("kind"))))
            if item.get("offered"):
                record["nodes"].append(node_id)
                record["instances"] += 1
                _add(record, item)
                busy_s[name] = busy_s.get(name, 0.0) + float(item.get("busy_s", 0.0))
            if item.get("subject"):
                record["subject"] = item["subject"]
    by_subject = {record["subject"]: record for record in found.values() if record["subject"]}
    for service in foreign:
        for endpoint in service.get("endpoints") or ():
            subject, name = endpoint.get("subject"), f"{service.get('name')}:{endpoint.get('name')}"
            record = by_subject.get(subject) or found.setdefault(name, _no_function(name, "nats"))
            by_subject[subject] = record
            record["subject"], record["service"] = subject, service.get("name")
            record["instances"] += 1
            calls = int(endpoint.get("num_requests", 0))
            said = {
                "calls": calls,
                "errors": int(endpoint.get("num_errors", 0)),
                "last_error": endpoint.get("last_error"),
            }
            _add(record, said)
            took_s = int(endpoint.get("processing_time", 0)) / 1e9
            busy_s[record["function"]] = busy_s.get(record["function"], 0.0) + took_s
    for name, record in found.items():
        if record["calls"]:
            record["average_s"] = busy_s.get(name, 0.0) / record["calls"]
    return [found[name] for name in sorted(found)]


def _no_function(name: str, kind: str) -> Record:
    return {
        "function": name, "kind": kind, "nodes": [], "instances": 0, "calls": 0, "errors": 0, "average_s": None,
        "in_flight": 0, "waiting": 0, "last_error": None, "subject": None, "service": None,
    }  # fmt: skip


def _add(record: Record, item: Mapping[str, Any]) -> None:
    for name in ("calls", "errors", "in_flight", "waiting"):
        record[name] += int(item.get(name, 0))
    record["last_error"] = item.get("last_error") or record["last_error"]


def service_record(node_id: str, item: Mapping[str, Any]) -> Record:
    """A service as one node has it."""
    since_s = item.get("since_unix_s")
    return {
        "service": str(item.get("id")),
        "node": node_id,
        "state": str(item.get("state")),
        "starts": item.get("starts", 0),
        "since": iso(round(since_s * 1e9)) if isinstance(since_s, (int, float)) else None,
        "last_error": item.get("last_error"),
        "pid": item.get("pid"),
        "restart_in_s": item.get("restart_in_s"),
        "waits_for": item.get("waits_for"),
    }


def process_record(node_id: str, item: Mapping[str, Any]) -> Record:
    """A process, or a call of a function that is under way."""
    began_ns = int(item.get("began_ns", 0))
    rest = ("age_s", "entry", "host", "state", "parent", "workflow", "service", "names", "mailbox", "pending",
            "monitored_by", "monitors", "links")  # fmt: skip
    return {
        "pid": item.get("pid"),
        "kind": item.get("kind"),
        "node": node_id,
        "started": iso(began_ns),
        **{name: item.get(name) for name in rest},
    }
