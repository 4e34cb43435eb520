"""The live units of this node by PID, and what a PID says: whether it is one of ours, and whether its node is still up.

Makes the PIDs, too. Knows nothing of what units say to each other (`node.units.switchboard`) nor of who is to be told
when one ends (`node.units.farewells`).

Invariants: a PID is given out once; a unit is in the table from `add` until it has ended.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

from mesh import codec
from mesh.pids import BOOT_DIGITS, ProcessPid
from node.units.outcomes import lua_text
from node.units.unit import LiveUnit, Watcher


class UnitTable:
    """The units of one node. boot_of: which start of another node is up, None when it is not (the roster)."""

    def __init__(self, node_id: str, boot_of: Callable[[str], str | None]) -> None:
        self.node_id = node_id
        self.boot = secrets.token_hex(BOOT_DIGITS // 2)
        self._boot_of = boot_of
        self._units: dict[str, LiveUnit] = {}
        self._last_unique = 0

    @property
    def by_pid(self) -> Mapping[str, LiveUnit]:
        """The live units of this node by PID; the same mapping for ever, which shows what changes."""
        return self._units

    def get(self, pid: str) -> LiveUnit | None:
        """A live unit of this node."""
        return self._units.get(pid)

    def new_pid(self, host_id: str) -> str:
        """A PID that was never used."""
        self._last_unique += 1
        return f"{{{self.node_id}@{host_id}|0x{self.boot}{self._last_unique:05x}}}"

    def add(self, unit: LiveUnit) -> None:
        """A unit begins."""
        self._units[unit.pid] = unit

    def remove(self, pid: str) -> bool:
        """A unit is no more; whether it was there."""
        return self._units.pop(pid, None) is not None

    def new_watcher(self, told: Callable[[bytes], object]) -> Watcher:
        """A unit of ours that waits for the end of another one, and is gone once it was told."""

        def end(outcome: bytes) -> None:
            self._units.pop(watcher.pid, None)
            told(outcome)

        watcher = Watcher(self.new_pid("#"), end)
        self.add(watcher)
        return watcher

    def forget(self, watcher: Watcher) -> None:
        """A watcher of ours has nothing to watch any more."""
        watcher.ended = True
        self._units.pop(watcher.pid, None)

    def deliver(self, pid: str, topic: str, value: Any) -> None:
        """Hand a message of the runtime to a unit of this node, if it is still there."""
        unit = self._units.get(pid)
        if unit is not None:
            unit.post("message", lua_text(topic), codec.encode(value), b"")

    # -- PIDs --------------------------------------------------------------------------------------------------

    def is_mine(self, pid: str) -> bool:
        """Whether the text of a PID names this node."""
        return pid.startswith(f"{{{self.node_id}@") or "@" not in pid.partition("|")[0]

    def local(self, pid: ProcessPid) -> str | None:
        """The full text of a PID of this node, None for that of another one."""
        if pid.node and pid.node != self.node_id:
            return None
        return f"{{{self.node_id}@{pid.host}|{pid.unique}}}"

    def is_alive(self, pid: ProcessPid) -> bool:
        """Whether the node of a PID is up, in the start in which it made the PID."""
        if pid.node in ("", self.node_id):
            return pid.boot == self.boot
        return self._boot_of(pid.node) == pid.boot
