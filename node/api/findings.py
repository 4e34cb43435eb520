"""What `mesh doctor` knows and what it says: facts in, findings out. Values only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from mesh.hosts import HostRecord
from mesh.membership import Claim


class State(StrEnum):
    """How something is. A problem is one now; a warning will be one, or may be."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. subject: what it is about, where a check looks at several. fix: the way out."""

    check: str
    state: State
    text: str
    fix: str = ""
    subject: str = ""

    def record(self) -> dict[str, Any]:
        """The finding as JSON shows it."""
        return {
            "check": self.check, "subject": self.subject or None, "state": str(self.state), "text": self.text,
            "fix": self.fix or None,
        }  # fmt: skip


class Last(NamedTuple):
    """The last event of a partition."""

    seq: int
    at_ns: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found out about a mesh. Nothing that could not be asked is here; why not is in `faults`, by part.

    server: what it says of itself when one connects. account, user: `$JS.API.INFO` and `$SYS.REQ.USER.INFO`.
    streams: by name, the answers to STREAM.INFO. clocks_ahead_s: how far other clocks are ahead of ours, by whose.
    ends: the last event of each partition. now_ns: by the server's clock. sync: of an embedded server of ours.
    keys: of whoever asks, as nodes say it of theirs (`node.keys.told_keys`).
    """

    version: str = ""
    server: Mapping[str, Any] = field(default_factory=dict)
    round_trip_s: float | None = None
    account: Mapping[str, Any] | None = None
    user: Mapping[str, Any] | None = None
    clocks_ahead_s: Mapping[str, float] = field(default_factory=dict)
    streams: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    nodes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    hosts: Sequence[HostRecord] = ()
    claims: Sequence[Claim] = ()
    ends: Mapping[tuple[str, int], Last] = field(default_factory=dict)
    schedules: Mapping[str, int] = field(default_factory=dict)
    consumers: Sequence[Mapping[str, Any]] = ()
    functions: Sequence[Mapping[str, Any]] = ()
    now_ns: int = 0
    sync: str | None = None
    keys: Mapping[str, Any] | None = None
    faults: Mapping[str, str] = field(default_factory=dict)

    @property
    def queues(self) -> list[str]:
        """The queues there are: those that have a stream, and those of a worker."""
        names = {str(name) for info in self.streams.values() if (name := queue_of(info))}
        return sorted(names | {record.queue for record in self.hosts})

    @property
    def is_cluster(self) -> bool:
        """Whether the server is one of several."""
        return bool(self.server.get("cluster"))


def queue_of(info: Mapping[str, Any]) -> str | None:
    """The queue whose stream an answer to STREAM.INFO is about, None for any other stream."""
    name = (info.get("config", {}).get("metadata") or {}).get("moonmesh.queue")
    return str(name) if name else None


def ok(check: str, text: str, subject: str = "") -> Finding:
    """All is well."""
    return Finding(check, State.OK, text, subject=subject)


def warning(check: str, text: str, fix: str, subject: str = "") -> Finding:
    """It may become a problem."""
    return Finding(check, State.WARNING, text, fix, subject)


def problem(check: str, text: str, fix: str, subject: str = "") -> Finding:
    """It is one."""
    return Finding(check, State.PROBLEM, text, fix, subject)


def some(names: Sequence[str], most: int = 5) -> str:
    """The first of some names, and how many there are more."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
