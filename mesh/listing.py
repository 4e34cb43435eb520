"""Asking for lists of workflows: the question, the answer, and what one workflow looks like in it.

What two processes must agree on: who asks sends a `ListQuery` as JSON, who keeps a projection (`store.projection`)
answers with a `ListPage`. Pure; nothing here knows where the answer comes from.

A page is read from its beginning or from a cursor: the place behind the last workflow of the page before. A cursor is
good for the query it came from only, at any node, as long as anybody asks; what starts or ends meanwhile moves nothing
that was already listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from reprlib import repr as short  # as deep as anybody has nested it
from typing import Any, Final

from mesh.errors import MeshError, Undecodable

LIMIT_DEFAULT: Final = 50
LIMIT_MAX: Final = 1000
# In the order in which a workflow goes through them; the number is what the projection stores.
STATUSES: Final = (
    "running", "suspended", "completed", "failed", "canceled", "terminated", "timed-out", "continued", "retried",
    "ended",  # how, cannot be read here: it is encrypted
)  # fmt: skip
ORDERS: Final = ("started", "ended", "duration", "id")
ORDER_DEFAULT: Final = "-started"
COUNTED: Final = ("status", "type", "queue")


class BadQuery(MeshError, ValueError):
    """Raised when a query cannot be answered as it is written."""

    code = "bad-query"


@dataclass(frozen=True, slots=True)
class ListQuery:
    """Which workflows are asked for; what is empty does not restrict.

    status: any of these. id: how it begins. where: the language of `store.filters`. order: a field of ORDERS, with `-`
    or ` desc` for the largest first. all_runs: every run instead of the newest of each id.
    """

    status: tuple[str, ...] = ()
    type: str = ""
    queue: str = ""
    id: str = ""
    where: str = ""
    order: str = ORDER_DEFAULT
    limit: int = LIMIT_DEFAULT
    cursor: str = ""
    all_runs: bool = False

    @property
    def by(self) -> tuple[str, bool]:
        """The field it is ordered by, and whether the largest is first. Raises BadQuery."""
        words = self.order.strip().lower().split()
        name = words[0] if words else ""
        descending = name.startswith("-")
        name = name.lstrip("+-")
        if len(words) == 2 and words[1] in ("asc", "desc"):
            descending = words[1] == "desc"
        elif len(words) != 1:
            name = ""
        if name not in ORDERS:
            raise BadQuery(
                f"order {self.order!r}: write one of {', '.join(ORDERS)}, with - in front for the largest first"
            )
        return name, descending

    def checked(self) -> ListQuery:
        """The same query. Raises BadQuery when a field has a value that it cannot have."""
        for status in self.status:
            if status not in STATUSES:
                raise BadQuery(f"status {status!r}: write one of {', '.join(STATUSES)}")
        if not 1 <= self.limit <= LIMIT_MAX:
            raise BadQuery(f"limit {self.limit}: a page has 1 to {LIMIT_MAX} workflows")
        _ = self.by
        return self

    def to_wire(self) -> dict[str, Any]:
        """As JSON; fields that have their default are left out."""
        default = ListQuery()
        return {
            f.name: list(self.status) if f.name == "status" else getattr(self, f.name)
            for f in fields(self)
            if getattr(self, f.name) != getattr(default, f.name)
        }


def read_query(wire: object) -> ListQuery:
    """Read a query that came as JSON; `status` may be one text. Raises BadQuery."""
    if wire is None:
        return ListQuery()
    if not isinstance(wire, Mapping):
        raise BadQuery('the query is no JSON object; write for example {"status": "running"}')
    default = ListQuery()
    known: dict[str, Any] = {}
    for name, value in wire.items():
        if name not in ListQuery.__slots__:
            raise BadQuery(f"unknown field {name!r}; there are: {', '.join(ListQuery.__slots__)}")
        if value is None:
            continue
        if name == "status":
            value = (value,) if isinstance(value, str) else value
            if not isinstance(value, (list, tuple)) or not all(isinstance(one, str) for one in value):
                raise BadQuery("status is a text or a list of texts")
            known[name] = tuple(value)
        elif type(value) is not type(getattr(default, name)):
            wanted = {bool: "true or false", int: "a whole number", str: "a text"}[type(getattr(default, name))]
            raise BadQuery(f"{name} is {wanted}, not {short(value)}")
        else:
            known[name] = value
    return replace(default, **known).checked()


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a projection is behind the streams it is made of. messages: known and not taken in yet."""

    messages: int = 0
    seconds: float = 0.0

    def to_wire(self) -> dict[str, Any]:
        """As JSON."""
        return {"messages": self.messages, "seconds": round(self.seconds, 3)}


@dataclass(frozen=True, slots=True)
class ListPage:
    """One page. workflows: records as `mesh ls --json` prints them. next: cursor of the page behind it, "" for none."""

    workflows: tuple[Mapping[str, Any], ...]
    next: str = ""
    lag: Lag = field(default_factory=Lag)

    def to_wire(self) -> dict[str, Any]:
        """As JSON."""
        return {"workflows": list(self.workflows), "next": self.next or None, "lag": self.lag.to_wire()}


def read_page(wire: Mapping[str, Any]) -> ListPage:
    """Read a page that came as JSON. Raises Undecodable."""
    following = wire.get("next")
    return ListPage(
        read_records(wire, "workflows"), following if isinstance(following, str) else "", read_lag(wire.get("lag"))
    )


def read_records(wire: Mapping[str, Any], name: str) -> tuple[Mapping[str, Any], ...]:
    """The records in a list's answer. Raises Undecodable: whoever answers may be none of our nodes."""
    records = wire.get(name) or ()
    if not isinstance(records, list | tuple) or not all(isinstance(record, dict) for record in records):
        raise Undecodable(f"a list's answer has no records under {name}: {short(records)}")
    return tuple(records)


def read_lag(wire: object) -> Lag:
    """Read a lag that came as JSON."""
    if not isinstance(wire, Mapping):
        return Lag()
    messages, seconds = wire.get("messages"), wire.get("seconds")
    return Lag(
        messages if isinstance(messages, int) else 0, float(seconds) if isinstance(seconds, int | float) else 0.0
    )


@dataclass(frozen=True, slots=True)
class Count:
    """How many workflows of one status, type and queue there are."""

    status: str
    type: str
    queue: str
    workflows: int

    def to_wire(self) -> dict[str, Any]:
        """As JSON."""
        return {"status": self.status, "type": self.type, "queue": self.queue, "workflows": self.workflows}


def summed(counts: tuple[Count, ...], by: tuple[str, ...]) -> list[dict[str, Any]]:
    """Add counts up by some of COUNTED; the largest first. Raises BadQuery."""
    for name in by:
        if name not in COUNTED:
            raise BadQuery(f"by {name!r}: write one of {', '.join(COUNTED)}")
    sums: dict[tuple[str, ...], int] = {}
    for count in counts:
        key = tuple(str(getattr(count, name)) for name in by)
        sums[key] = sums.get(key, 0) + count.workflows
    ordered = sorted(sums.items(), key=lambda item: (-item[1], item[0]))
    return [{**dict(zip(by, key, strict=True)), "workflows": workflows} for key, workflows in ordered]
