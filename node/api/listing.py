"""Lists and counts of workflows: what `mesh.api.list` and `mesh.api.count` answer where a node keeps a projection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mesh.listing import COUNTED, BadQuery, read_query, summed

if TYPE_CHECKING:
    from store.projecting import Projecting


async def list_workflows(projecting: Projecting, **request: Any) -> dict[str, Any]:
    """Answer `mesh.api.list`: a `ListQuery` in, a `ListPage` out. Raises BadQuery."""
    return (await projecting.list(read_query(request))).to_wire()


async def count_workflows(projecting: Projecting, **request: Any) -> dict[str, Any]:
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
