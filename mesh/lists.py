"""Asking the mesh for lists and counts of workflows: requests to whichever node keeps a projection.

Not here: what a query may say (`mesh.listing`, `store.filters`).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from mesh.connection import Connection
from mesh.errors import MeshError, NoResponders, Undecodable
from mesh.listing import LIMIT_MAX, BadQuery, ListPage, ListQuery, read_page
from mesh.subjects import API_COUNT, API_LIST
from mesh.wire import parse_headers

TIMEOUT_S: Final = 15.0  # longer than the longest query is allowed to take


class NoProjection(MeshError):
    """Raised when no node keeps a list of workflows."""

    code = "no-projection"

    def __init__(self) -> None:
        super().__init__(
            "no node keeps a list of workflows; start one that does with `mesh node APP --projection FILE` "
            "(`mesh up` has one), or use `mesh ls`, which can do without"
        )


class ListRefused(MeshError):
    """Raised when the node that keeps the list could not answer."""

    code = "list-refused"


async def ask_page(conn: Connection, query: ListQuery, *, timeout_s: float = TIMEOUT_S) -> ListPage:
    """One page. Raises BadQuery, NoProjection, RequestTimeout, Disconnected."""
    return read_page(await _ask(conn, API_LIST, query.to_wire(), timeout_s))


async def ask_counts(
    conn: Connection, by: Sequence[str], *, all_runs: bool = False, timeout_s: float = TIMEOUT_S
) -> list[dict[str, Any]]:
    """How many workflows there are, [{<by>..., "workflows": n}], the largest first. Raises as `ask_page`."""
    answer = await _ask(conn, API_COUNT, {"by": list(by), "all_runs": all_runs}, timeout_s)
    return list(answer.get("counts") or ())


async def every_workflow(conn: Connection, query: ListQuery, *, most: int = 0) -> AsyncIterator[Mapping[str, Any]]:
    """All workflows that fit, page by page; at most so many, 0 = all."""
    left = most
    while True:
        asked = replace(query, limit=min(left, LIMIT_MAX) if most else query.limit)
        page = await ask_page(conn, asked)
        for record in page.workflows:
            yield record
        left -= len(page.workflows)
        if not page.next or (most and left <= 0):
            return
        query = replace(query, cursor=page.next)


async def _ask(conn: Connection, subject: str, body: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
    try:
        reply = await conn.request(subject, json.dumps(body).encode(), timeout_s=timeout_s)
    except NoResponders:
        raise NoProjection from None
    try:
        answer = json.loads(reply.data)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise Undecodable(f"{subject}: the answer is no JSON object: {reply.data[:80]!r}")
    headers = parse_headers(reply.raw_headers) if reply.raw_headers else {}
    if "Nats-Service-Error" in headers:
        said = answer.get("error")
        message = str(said.get("message")) if isinstance(said, dict) else headers["Nats-Service-Error"]
        if headers.get("Nats-Service-Error-Code") == "400":
            raise BadQuery(message)
        raise ListRefused(f"workflows cannot be listed: {message}")
    return answer
