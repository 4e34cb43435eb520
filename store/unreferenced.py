"""Which objects of a queue nobody needs (any more). Pure.

An object and the message that refers to it are two writes. A writer that dies in between, a start that somebody else
was faster with, attributes that were replaced, a failed attempt that was superseded: all of them leave an object behind
that no message of the workflow refers to. Such an object goes when it is older than any writer waits before it writes
the message (`ORPHAN_AGE_S`).

The arguments of a call are in no event. They are of use until the run has ended; whoever made the call removes them
long before, unless it dies.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

from mesh.errors import Undecodable
from mesh.references import ARGUMENTS, ObjectName, is_reference, reference_to
from mesh.stored_messages import StoredMessage

ORPHAN_AGE_S: Final = 3600.0


class InUse(NamedTuple):
    """What a workflow's messages say about its objects. referred: names. open_runs: those without an end."""

    referred: frozenset[str]
    open_runs: frozenset[str]


def in_use(messages: Iterable[StoredMessage]) -> InUse:
    """Read the messages of a workflow, all of them, as they are stored."""
    referred, started, ended = set(), set(), set()
    for message in messages:
        name = referred_by(message)
        if name:
            referred.add(name)
        parts = message.subject.split(".")
        if parts[5:6] == ["start"]:
            started.add(str(message.seq))
        elif parts[5:6] == ["end"] and len(parts) == 7:
            ended.add(parts[6])
    return InUse(frozenset(referred), frozenset(started - ended))


def referred_by(message: StoredMessage) -> str:
    """The object that a message as it is stored refers to, "" for none, or for one that is not of its workflow.

    Whoever may send a signal could otherwise have the objects of another workflow removed with it.
    """
    if not is_reference(message.data):
        return ""
    try:
        return reference_to(message.data, message.subject.split(".", 5)[4]).name
    except Undecodable:
        return ""


def unreferenced(stored_ns: Mapping[ObjectName, int], used: InUse, now_ns: int, age_s: float) -> list[str]:
    """The objects of a workflow that may go. stored_ns: when each was stored."""
    old = (name for name, at_ns in stored_ns.items() if now_ns - at_ns > age_s * 1e9)
    return [str(name) for name in old if not _is_needed(name, used.referred, used.open_runs)]


def _is_needed(name: ObjectName, referred: Collection[str], open_runs: Collection[str]) -> bool:
    return str(name) in referred or (name.what == ARGUMENTS and name.run in open_runs)
