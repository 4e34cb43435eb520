"""Histories that were recorded elsewhere and written into this mesh: how they are told from its own.

An import keeps what happened and when. The stream gives every message a sequence and a time of its own, so an imported
event says in a header when it was stored first, and the start says which workflow and run it was: the code of an
imported run is given the same identity, the same random values and the same clock as then.

    Mesh-Imported: <import> <time in ns>       on every event; <import> is random, the same on all of one history
    Mesh-Origin: <queue> <id> <run> <seed>     on the start; seed: the run from which the random values come

Times are taken from the header of an event only if it names the import of its run's start: whoever may only send
signals cannot know that, and cannot move a workflow's clock. A run with such a start runs nowhere, unless a mark says
that it goes on here (`is_held`).

Pure. Who writes imports: `mesh.importing`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mesh.subjects import token, untoken

if TYPE_CHECKING:
    from mesh.events import Event

HEADER_IMPORTED: Final = "Mesh-Imported"
HEADER_ORIGIN: Final = "Mesh-Origin"
HEADER_EVENTS: Final = "Mesh-Events"
# What the owner of an imported run that goes on waits for, as the name of a mark.
RESUME_MARK: Final = "resume"

_IMPORTED: Final = re.compile(rb"\r\nMesh-Imported: (\S+) (\d{1,19})\r\n")
# Anybody may write a header: a number that is no run and no time (64 bits) makes it one of somebody else's.
_NUMBER: Final = re.compile(r"\d{1,19}", re.ASCII)
_NS_MAX: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Origin:
    """What an imported run was where it was recorded. seed: the run from which its random values come."""

    queue: str
    id: str
    run: int
    seed: int

    def header(self) -> str:
        """As the value of the header."""
        return f"{token(self.queue)} {token(self.id)} {self.run} {self.seed}"


def read_origin(headers: Mapping[str, str]) -> Origin | None:
    """The origin in the headers of a start; None when it was not imported, or when nobody can read it."""
    parts = headers.get(HEADER_ORIGIN, "").split(" ")
    if len(parts) != 4 or not all(parts) or not (_NUMBER.fullmatch(parts[2]) and _NUMBER.fullmatch(parts[3])):
        return None
    return Origin(untoken(parts[0]), untoken(parts[1]), int(parts[2]), int(parts[3]))


def import_of(raw_headers: bytes | None) -> tuple[bytes, int] | None:
    """Which import a message is of, and when it was stored first; None when it is of none."""
    found = _IMPORTED.search(raw_headers) if raw_headers else None
    if found is None or (at_ns := int(found[2])) > _NS_MAX:
        return None
    return found[1], at_ns


def original_ns(raw_headers: bytes | None, at_ns: int) -> int:
    """When a message says that it was stored first, by default when it was. Good for lists, not for clocks."""
    found = import_of(raw_headers)
    return found[1] if found is not None else at_ns


def restored(events: Sequence[Event]) -> list[Event]:
    """The events of a workflow with the times that those had which were imported."""
    imports = {
        found[0] for event in events if event.kind == "start" and (found := import_of(event.raw_headers)) is not None
    }
    if not imports:
        return list(events)
    back = []
    for event in events:
        found = import_of(event.raw_headers)
        back.append(event._replace(at_ns=found[1]) if found is not None and found[0] in imports else event)
    return back


def is_held(run: int, events: Sequence[Event]) -> bool:
    """Whether an open run was imported and does not go on here: nobody has said so, or its history is not whole yet.

    One that was terminated here is not: it is run as far as its end.
    """
    start = next((event for event in events if event.kind == "start" and event.seq == run), None)
    found = import_of(start.raw_headers) if start is not None else None
    if found is None:
        return False
    return not any(
        (is_resumption(event) and event.run == run and event.data == found[0])
        or (event.kind == "kill" and import_of(event.raw_headers) is None)
        for event in events
    )


def is_resumption(event: Event) -> bool:
    """Whether an event says that an imported run goes on here."""
    return event.kind == "mark" and event.args[1] == RESUME_MARK
