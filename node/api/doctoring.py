"""`mesh doctor`: looks at the server and the mesh, and says what is wrong and what to do.

Asks and changes nothing. What it found out are `Facts`; what follows from them is decided in `node.api.server_checks`
and `node.api.mesh_checks`. What cannot be asked, for want of rights or because nobody answers, is itself a finding.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mesh import codec
from mesh.buckets import Bucket
from mesh.errors import MeshError, NoResponders, NotFound, NotPermitted, RequestTimeout
from mesh.instants import timestamp_ns_of
from mesh.membership import Claim
from mesh.rendezvous import NodeId
from mesh.roster import BUCKET as ROSTER
from mesh.server_settings import sync_interval
from mesh.subjects import bucket_key_name, partition_filter, token
from mesh.version import VERSION
from node.api import directory
from node.api.findings import Facts, Finding, Last, queue_of
from node.api.key_checks import check_keys
from node.api.mesh_checks import (
    check_consumers,
    check_functions,
    check_nodes,
    check_queues,
    check_unasked,
    check_workflows,
)
from node.api.server_checks import BUCKETS, check_permissions, check_server, check_streams
from node.keys import told_keys
from store.streams import METADATA_PARTITIONS, PARTITIONS_DEFAULT

if TYPE_CHECKING:
    from mesh.client import Client

ROUND_TRIPS: Final = 5
ANSWER_S: Final = 2.0
# More partitions of all queues together are not looked at one by one.
PARTITIONS_LOOKED_AT_MAX: Final = 512
OURS: Final = ("WF_", "MQ_", "KV_mesh_")


def diagnose(facts: Facts) -> list[Finding]:
    """What there is to say about a mesh, in the order in which one would look: the server first. Pure."""
    findings = [*check_server(facts), *check_permissions(facts)]
    if facts.account is not None:
        findings += [*check_streams(facts), *check_nodes(facts), *check_queues(facts), *check_functions(facts)]
        findings += [*check_keys(facts), *check_workflows(facts), *check_consumers(facts), *check_unasked(facts)]
    return findings


async def examine(client: Client, *, stores: Sequence[Path] = ()) -> Facts:
    """Find out what there is to know. stores: where servers of ours may keep their data on this machine."""
    found: dict[str, Any] = {}
    faults: dict[str, str] = {}

    async def ask(part: str, what: Callable[[], Awaitable[Any]]) -> Any:
        try:
            found[part] = await what()
        except (MeshError, ValueError) as error:
            faults[part] = str(error)
        return found.get(part)

    conn, js = client.conn, client.js
    await ask("round_trip_s", lambda: _round_trip_s(client))
    before_ns = time.time_ns()
    said = await ask("user", lambda: _system(client, "$SYS.REQ.USER.INFO"))
    clocks = {}
    if said:
        found["user"] = said.get("data") or {}
        if (said.get("server") or {}).get("time"):
            clocks["the server's"] = _ahead_s(timestamp_ns_of(said["server"]["time"]), before_ns, time.time_ns())
    before_ns = time.time_ns()
    nodes = {}
    if await ask("account", lambda: js.api("INFO", timeout_s=ANSWER_S)) is not None:
        await ask("streams", lambda: _streams(client))
        try:
            nodes = await directory.ask_nodes(client)
        except NotFound:
            pass  # nobody has ever been up: no fault
        except MeshError as error:
            faults["nodes"] = str(error)
        after_ns = time.time_ns()
        for name, answer in nodes.items():
            if answer.get("now_ns"):
                clocks[f"node {name}'s"] = _ahead_s(int(answer["now_ns"]), before_ns, after_ns)
        if nodes:
            await ask("hosts", client.hosts.workers)
            await ask("claims", lambda: _claims(client))
            await ask("functions", lambda: directory.functions(client))
        streams = found.get("streams") or {}
        await ask("ends", lambda: _ends(client, streams.values()))
        await ask("schedules", lambda: _schedules(client, streams.values()))
        await ask("consumers", lambda: _consumers(client, streams))
    await ask("sync", lambda: sync_interval(conn, stores))
    server_ahead_s = clocks.get("the server's", 0.0)
    return Facts(
        version=VERSION,
        server=conn.server_info,
        round_trip_s=found.get("round_trip_s"),
        account=found.get("account"),
        user=found.get("user"),
        clocks_ahead_s=clocks,
        streams=found.get("streams") or {},
        nodes=nodes,
        hosts=found.get("hosts") or (),
        claims=found.get("claims") or (),
        ends=found.get("ends") or {},
        schedules=found.get("schedules") or {},
        consumers=found.get("consumers") or (),
        functions=found.get("functions") or (),
        now_ns=time.time_ns() + round(server_ahead_s * 1e9),
        sync=found.get("sync"),
        keys=told_keys(conn.codec),
        faults=faults,
    )


def _ahead_s(theirs_ns: int, before_ns: int, after_ns: int) -> float:
    """How far a clock is ahead of ours that was read between two instants of ours; 0 when it fits between them."""
    if theirs_ns > after_ns:
        return (theirs_ns - after_ns) / 1e9
    return min(0.0, (theirs_ns - before_ns) / 1e9)


async def _round_trip_s(client: Client) -> float:
    """The middle one of some pings."""
    took = []
    for _ in range(ROUND_TRIPS):
        before = time.perf_counter()
        await client.conn.flush(ANSWER_S)
        took.append(time.perf_counter() - before)
    return sorted(took)[ROUND_TRIPS // 2]


async def _system(client: Client, subject: str) -> dict[str, Any]:
    reply = await client.conn.request(subject, b"", timeout_s=ANSWER_S)
    answer = json.loads(reply.data)
    return answer if isinstance(answer, dict) else {}


async def _pages(client: Client, request: str, items: str) -> list[dict[str, Any]]:
    """All pages of a list of the JetStream API."""
    found: list[dict[str, Any]] = []
    while True:
        answer = await client.js.api(request, {"offset": len(found)}, timeout_s=ANSWER_S)
        page = answer.get(items) or []
        found += page
        if not page or len(found) >= int(answer.get("total", 0)):
            return found


async def _streams(client: Client) -> dict[str, dict[str, Any]]:
    """The streams of the mesh by name. Raises NotPermitted when none of them may be looked at."""
    try:
        infos = await _pages(client, "STREAM.LIST", "streams")
    except (NoResponders, NotPermitted, RequestTimeout) as error:
        infos = await _known_streams(client)
        if not infos:
            raise error from None
    found = {info["config"]["name"]: info for info in infos if str(info["config"]["name"]).startswith(OURS)}
    for name, info in found.items():
        with suppress(MeshError):
            info["lost_bytes"] = await client.js.lost_bytes(name)
    return found


async def _known_streams(client: Client) -> list[dict[str, Any]]:
    """Those that we know there must be, for a user who may not list what there is."""
    names = [f"KV_{bucket}" for bucket in BUCKETS]
    with suppress(MeshError):
        names += [client.history(record.queue).stream for record in await client.hosts.workers()]
    infos = []
    for name in dict.fromkeys(names):
        with suppress(MeshError):
            infos.append(dict(await client.js.api(f"STREAM.INFO.{name}", timeout_s=ANSWER_S)))
    return infos


async def _consumers(client: Client, streams: Iterable[str]) -> list[dict[str, Any]]:
    found = []
    for name in streams:
        found += await _pages(client, f"CONSUMER.LIST.{name}", "consumers")
    return found


async def _claims(client: Client) -> list[Claim]:
    claims = []
    for entry in await Bucket(client.js, ROSTER).entries("claim.>"):
        queue, _, partition = entry.key.partition(".")[2].rpartition(".")
        value = codec.decode(entry.value)
        if partition.isdecimal() and isinstance(value, dict):
            node = value.get("node")
            claims.append(
                Claim(
                    bucket_key_name(queue), int(partition), NodeId(node) if node else None,
                    str(value.get("incarnation", "")), entry.revision, int(value.get("checkpoint", 0)),
                )
            )  # fmt: skip
    return claims


async def _ends(client: Client, infos: Iterable[dict[str, Any]]) -> dict[tuple[str, int], Last]:
    """The last event of each partition."""
    ends: dict[tuple[str, int], Last] = {}
    for info in infos:
        queue = queue_of(info)
        if queue is None or len(ends) > PARTITIONS_LOOKED_AT_MAX:
            continue
        metadata = info["config"].get("metadata") or {}
        for number in range(int(metadata.get(METADATA_PARTITIONS, PARTITIONS_DEFAULT))):
            last = await client.js.get_last(info["config"]["name"], partition_filter(queue, number))
            if last is not None:
                ends[queue, number] = Last(last.seq, last.timestamp_ns)
    return ends


async def _schedules(client: Client, infos: Iterable[dict[str, Any]]) -> dict[str, int]:
    """How many schedules each queue has."""
    found = {}
    for info in infos:
        queue = queue_of(info)
        if queue is not None:
            subject = f"mesh.at.{token(queue)}.cron.>"
            found[queue] = len(await client.js.subject_counts(info["config"]["name"], subject))
    return found
