"""Asking the mesh for lists and counts of workflows: requests to whichever node keeps a projection.

Not here: what a query may say (`mesh.listing`, `store.filters`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from mesh.asking import ApiError, NoApi, ask_api
from mesh.connection import Connection
from mesh.errors import MeshError, Undecodable
from mesh.listing import LIMIT_MAX, BadQuery, ListPage, ListQuery, read_page, read_records

BAD_REQUEST: Final = 400
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
    return read_page(await _ask(conn, "list", query.to_wire(), timeout_s))


async def ask_counts(
    conn: Connection, by: Sequence[str], *, all_runs: bool = False, timeout_s: float = TIMEOUT_S
) -> list[dict[str, Any]]:
    """How many workflows there are, [{<by>..., "workflows": n}], the largest first. Raises as `ask_page`."""
    answer = await _ask(conn, "count", {"by": list(by), "all_runs": all_runs}, timeout_s)
    return [dict(record) for record in read_records(answer, "counts")]


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


async def _ask(conn: Connection, verb: str, body: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
    try:
        answer = await ask_api(conn, verb, body, timeout_s=timeout_s)
    except NoApi:
        raise NoProjection from None
    except ApiError as error:
        if error.status == BAD_REQUEST:
            raise BadQuery(str(error)) from None
        raise ListRefused(f"workflows cannot be listed: {error}") from None
    if not isinstance(answer, dict):
        raise Undecodable(f"mesh.api.{verb}: the answer is no JSON object")
    return answer
