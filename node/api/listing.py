"""Lists and counts of workflows as requests: `mesh.api.list` and `mesh.api.count`, JSON in and out.

Answered by one of the nodes that keep a projection (a queue group). An error is in the headers `Nats-Service-Error` and
`Nats-Service-Error-Code`, as ADR-32 of NATS has it, and in the body `{"error": {"code", "message"}}`.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import anyio
import anyio.abc

from mesh.connection import Connection
from mesh.errors import Disconnected, MeshError
from mesh.listing import COUNTED, BadQuery, read_query, summed
from mesh.subjects import API_COUNT, API_LIST
from store.projecting import Projecting

QUEUE_GROUP: Final = "mesh"
BAD_REQUEST: Final = 400
FAILED: Final = 500


async def list_workflows(projecting: Projecting, request: Any) -> dict[str, Any]:
    """Answer `mesh.api.list`: a `ListQuery` in, a `ListPage` out. Raises BadQuery."""
    return (await projecting.list(read_query(request))).to_wire()


async def count_workflows(projecting: Projecting, request: Any) -> dict[str, Any]:
    """Answer `mesh.api.count`: {by: fields, all_runs} in, {counts: [{status, type, workflows}], lag} out."""
    by, all_runs = read_count(request)
    counts = await projecting.counts(all_runs=all_runs)
    return {"counts": summed(counts, by), "lag": projecting.lag().to_wire()}


def read_count(request: Any) -> tuple[tuple[str, ...], bool]:
    """What is counted by, and whether every run is. Raises BadQuery."""
    wish = {} if request is None else request
    if not isinstance(wish, Mapping) or not wish.keys() <= {"by", "all_runs"}:
        raise BadQuery('the request is no JSON object of by and all_runs; write for example {"by": ["queue"]}')
    by = wish.get("by") or ("status", "type")
    by = (by,) if isinstance(by, str) else by
    if not isinstance(by, (list, tuple)) or not all(name in COUNTED for name in by):
        raise BadQuery(f"by is one or several of {', '.join(COUNTED)}")
    return tuple(dict.fromkeys(by)), bool(wish.get("all_runs", False))


Verb = Callable[[Projecting, Any], Awaitable[dict[str, Any]]]


async def serve_listing(
    conn: Connection, projecting: Projecting, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> None:
    """Answer until cancelled. Ready when requests are taken."""
    async with anyio.create_task_group() as tasks:

        def taker(verb: Verb) -> Callable[[str, str, bytes, bytes | None], None]:
            def on_request(_subject: str, reply: str, data: bytes, _raw_headers: bytes | None) -> None:
                if reply:
                    tasks.start_soon(_answer, conn, projecting, verb, reply, data)

            return on_request

        subscriptions = [
            conn.subscribe_direct(subject, taker(verb), queue=QUEUE_GROUP)
            for subject, verb in ((API_LIST, list_workflows), (API_COUNT, count_workflows))
        ]
        task_status.started()
        try:
            await anyio.sleep_forever()
        finally:
            for subscription in subscriptions:
                subscription.unsubscribe()


async def _answer(conn: Connection, projecting: Projecting, verb: Verb, reply: str, data: bytes) -> None:
    headers: dict[str, str] | None = None
    try:
        body = await verb(projecting, json.loads(data) if data.strip() else None)
    except MeshError as error:
        headers, body = _refused(BAD_REQUEST if isinstance(error, BadQuery) else FAILED, error.code, str(error))
    except (ValueError, RecursionError):
        headers, body = _refused(BAD_REQUEST, "bad-request", "the request is no JSON")
    try:
        conn.publish_nowait(reply, json.dumps(body, ensure_ascii=False).encode("utf-8", "replace"), headers=headers)
    except (Disconnected, MeshError):
        return


def _refused(status: int, code: str, message: str) -> tuple[dict[str, str], dict[str, Any]]:
    line = " ".join(message.split())[:500].encode("ascii", "replace").decode()
    headers = {"Nats-Service-Error": line, "Nats-Service-Error-Code": str(status)}
    return headers, {"error": {"code": code, "message": message}}
