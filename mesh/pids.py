"""PIDs: the addresses of processes, function calls and workflows, as texts.

    {<node>@<host entry>|0x<boot><counter>}        a process of a node, or a function call (`<function>#lua.<lane>`)
    {<client entry>@<worker entry>|<workflow id>}  a workflow, wherever it runs

Programs treat them as opaque. What stands before the `@` tells the two apart: an entry id has a colon, a node id has
none. The number of a process begins with eight digits that are new each time a node's process starts, so a PID is
never used again, not even when a node is started anew under its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

BOOT_DIGITS: Final = 8
TOPOLOGY: Final = "{|topology}"  # the sender of what the runtime itself says
PIDS_KEPT: Final = 4096  # each message names two that were read before; about 1 MB
_NODE_FORBIDDEN: Final = frozenset(":@|{}")


@dataclass(frozen=True, slots=True)
class ProcessPid:
    """A process or function call. node: "" stands for the node that reads it."""

    node: str
    host: str
    unique: str

    @property
    def boot(self) -> str:
        """Which start of the node it belongs to."""
        return self.unique.removeprefix("0x")[:BOOT_DIGITS]

    def __str__(self) -> str:
        """The PID's text."""
        return f"{{{self.node}@{self.host}|{self.unique}}}" if self.node else f"{{{self.host}|{self.unique}}}"


@dataclass(frozen=True, slots=True)
class WorkflowPid:
    """A workflow, by the worker that it was started on."""

    client: str
    worker: str
    workflow_id: str

    def __str__(self) -> str:
        """The PID's text."""
        return f"{{{self.client}@{self.worker}|{self.workflow_id}}}"


Pid: TypeAlias = ProcessPid | WorkflowPid


@lru_cache(PIDS_KEPT)
def parse_pid(text: str) -> Pid | None:
    """Read a PID; None for any other text, such as a registered name."""
    if not (text.startswith("{") and text.endswith("}")):
        return None
    head, bar, unique = text[1:-1].partition("|")
    if not bar or not unique:
        return None
    where, at, host = head.partition("@")
    if not at:
        return ProcessPid("", head, unique)
    if not where or not host:
        return None
    return WorkflowPid(where, host, unique) if ":" in where else ProcessPid(where, host, unique)


def node_id_fault(node_id: str) -> str | None:
    """Say why a node cannot have this name, None if it can."""
    bad = sorted(_NODE_FORBIDDEN & set(node_id))
    if not bad:
        return None
    return f"a node's name stands in PIDs and may not contain {' '.join(bad)}: {node_id!r}"
