"""What an event does to the list of runs. Pure.

The rules are those of the owner and of `mesh.history`, applied in stream order: a start opens a run when none of its
id is open, the first end that names the open run closes it, and all other starts and ends are ignored. What the code
says about itself (`attrs`) replaces what the start said.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mesh import codec
from mesh.errors import Undecodable
from mesh.events import Event, StartSpec, decode_attrs, decode_end, decode_start
from mesh.imported import import_of
from mesh.listing import STATUSES
from mesh.subjects import untoken

NOT_ENDED: Final = -1
# Of one run; more, and longer texts, are shown but not found.
SEARCHED_VALUES_MAX: Final = 100
SEARCHED_CHARACTERS_MAX: Final = 512
# Longer is none: the name is in every answer, and whoever may start a workflow may write what he likes.
TYPE_CHARACTERS_MAX: Final = 512
UNKNOWN_TYPE: Final = "?"

# How text that was no UTF-8 is marked when it is read (see `mesh.codec`).
_SURROGATE: Final = re.compile("[\ud800-\udfff]")

Searched = str | int | float | bool


@dataclass(slots=True)
class Run:
    """One run as it is listed. n: its row, 0 when it has none yet. newest: no later run of its id is known.

    changed: it differs from its row. revalued: so do memo or attributes.
    """

    id: str
    run: int
    type: str
    started_ns: int
    status: str = "running"
    ended_ns: int = NOT_ENDED
    attempt: int = 1
    parent: str | None = None
    memo: Mapping[str, Any] = field(default_factory=dict)
    attrs: Mapping[str, Any] = field(default_factory=dict)
    newest: bool = True
    imported: bool = False
    n: int = 0
    changed: bool = True
    revalued: bool = True

    @property
    def is_open(self) -> bool:
        """Whether it has not ended."""
        return self.ended_ns == NOT_ENDED


def take_in(newest: Run | None, event: Event) -> Run | None:
    """Apply an event to the newest run of its id; return the run that it opened or changed, None when it is ignored.

    Attributes are those of the run that they name, though a newer one has begun: then `newest` is that older run.
    """
    if event.kind == "start":
        if newest is not None and event.seq <= newest.run:
            return None
        if newest is not None and newest.is_open:
            # Anybody may write the header; a run that began here is closed by its end alone.
            if not newest.imported or import_of(event.raw_headers) is None:
                return None
            # An import begins only where nothing runs: that one was an import which broke off, and has been removed.
            newest.status, newest.ended_ns = "terminated", newest.started_ns
        if newest is not None:
            newest.newest = False
            newest.changed = True
        return _opened(event)
    if newest is None or event.run != newest.run:
        return None
    if event.kind == "end" and newest.is_open:
        status = decode_end(event.data).status
        newest.status = status if status in STATUSES else "failed"
        newest.ended_ns = max(event.at_ns, newest.started_ns)
        newest.changed = True
        return newest
    if event.kind == "attrs":
        try:
            values = decode_attrs(event.data)
        except Undecodable:
            return None
        # Not compared with those before: 1 is equal to true here, and what was too long for a row was not kept.
        newest.attrs, newest.memo = values
        newest.changed = newest.revalued = True
        return newest
    return None


def searched(values: Mapping[str, Any]) -> Iterator[tuple[str, Searched]]:
    """The values of attributes or a memo that can be looked for; those in a list one by one."""
    found: set[tuple[str, str, Searched]] = set()
    for name, value in values.items():
        if not 0 < len(str(name)) <= SEARCHED_CHARACTERS_MAX:
            continue
        for one in value if isinstance(value, list) else (value,):
            scalar = _scalar(one)
            if scalar is None or (key := (str(name), type(scalar).__name__, scalar)) in found:
                continue
            found.add(key)
            yield text_of(str(name)), scalar
            if len(found) == SEARCHED_VALUES_MAX:
                return


def text_of(text: str) -> str:
    """A text as a database can keep it: bytes that are no UTF-8, which are surrogates here, are written as escapes."""
    return text if text.isascii() else _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def json_of(values: Mapping[str, Any]) -> str:
    """Values as JSON that any program can read, with texts as `text_of` has them."""
    return _SURROGATE.sub(lambda found: f"\\\\u{ord(found[0]):04x}", codec.to_json(dict(values)))


def _scalar(value: Any) -> Searched | None:
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str) and len(value) <= SEARCHED_CHARACTERS_MAX:
        return text_of(value)
    return None


def _opened(event: Event) -> Run:
    try:
        spec = decode_start(event.data, event.headers)
    except Undecodable:
        spec = StartSpec(workflow=UNKNOWN_TYPE)
    return Run(
        id=text_of(untoken(event.id_token)),
        run=event.seq,
        type=text_of(spec.workflow[:TYPE_CHARACTERS_MAX]),
        started_ns=event.at_ns,
        attempt=min(spec.attempt, 2**63 - 1),
        parent=text_of(spec.parent.id[:SEARCHED_CHARACTERS_MAX]) if spec.parent is not None else None,
        memo=spec.memo,
        attrs=spec.attrs,
        imported=import_of(event.raw_headers) is not None,
    )
