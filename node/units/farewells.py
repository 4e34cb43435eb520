"""Farewells: what follows when a unit ends, here or elsewhere, or when a whole node is lost.

How an end goes: the names are released (`node.units.naming`), then monitors get their EXIT, then linked units their
LINK_DOWN, whichever node they are on. A node that is lost ends all its units in the eyes of the others. Who is
concerned is known to `node.units.links`.

Invariants: an end is told once to each whom it concerns: what is heard twice concerns nobody any more. Links hear of
failures only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final

from mesh import codec
from mesh.failure import Kind
from mesh.pids import ProcessPid, parse_pid
from node.units.naming import Naming
from node.units.outcomes import failed, lua_text
from node.units.peers import Peers
from node.units.switchboard import Switchboard
from node.units.table import UnitTable
from node.units.unit import LiveUnit, Watcher

TOLD_AT_ONCE: Final = 200  # watchers of one end in one message


class Farewells:
    """Tells whom it concerns that a unit has ended. unit_ended: told first, here, of each unit of this node."""

    def __init__(
        self,
        units: UnitTable,
        switchboard: Switchboard,
        naming: Naming,
        peers: Peers,
        *,
        unit_ended: Callable[[str], None],
    ) -> None:
        self._units = units
        self._switchboard = switchboard
        self._links = switchboard.links
        self._naming = naming
        self._peers = peers
        self._unit_ended = unit_ended

    def ended(self, unit: LiveUnit, outcome: bytes) -> None:
        """A unit of this node has ended: release its names, then tell whom it concerns."""
        if not self._units.remove(unit.pid):
            return
        unit.ended, unit.outcome = True, outcome
        unit.drop_pending()
        self._unit_ended(unit.pid)
        self._naming.release(unit.pid, lambda: self._say_farewell(unit.pid, outcome))

    def heard(self, pid: str, outcome: bytes, watchers: list[Any]) -> None:
        """A unit of another node has ended. watchers: [PID of a unit of ours, whether it is a link], each."""
        self._naming.forget(pid)
        failure = outcome[:3] == codec.FAILURE_PREFIX
        told: list[tuple[str, bool]] = []
        for watcher, is_link in watchers:
            known = self._links.unlink(watcher, pid) if is_link else self._links.unmonitor(watcher, pid)
            if known and (failure or not is_link):
                told.append((watcher, bool(is_link)))
        # Watchers of the runtime itself first: they release names.
        told.sort(key=lambda item: not isinstance(self._units.get(item[0]), Watcher))
        self._tell_locals(pid, outcome, told)

    def nodes_changed(self, gone: Collection[str] = ()) -> None:
        """The roster has changed: units of nodes that are gone have ended, also if those nodes are back meanwhile."""
        for pid, farewell in self._links.lost(lambda pid: self._is_lost(pid, gone)).items():
            parsed = parse_pid(pid)
            node = parsed.node if isinstance(parsed, ProcessPid) else "?"
            outcome = failed(f"node {node} is gone, and with it {pid}", Kind.UNAVAILABLE)
            self._tell_locals(
                pid, outcome, [*((w, False) for w in farewell.monitors), *((u, True) for u in farewell.linked)]
            )

    def node_lost(self, node_id: str) -> None:
        """A node is gone: what it was asked is answered."""
        self._peers.node_lost(node_id)

    def _is_lost(self, pid: str, gone: Collection[str]) -> bool:
        parsed = parse_pid(pid)
        if not isinstance(parsed, ProcessPid) or self._units.is_mine(pid):
            return False
        return parsed.node in gone or not self._units.is_alive(parsed)

    def _say_farewell(self, pid: str, outcome: bytes) -> None:
        farewell = self._links.ended(pid)
        here: list[tuple[str, bool]] = []
        there: dict[str, list[list[Any]]] = {}
        failure = outcome[:3] == codec.FAILURE_PREFIX
        for watcher, is_link in (*((w, False) for w in farewell.monitors), *((u, True) for u in farewell.linked)):
            parsed = parse_pid(watcher)
            if not isinstance(parsed, ProcessPid) or self._units.is_mine(watcher):
                if failure or not is_link:
                    here.append((watcher, is_link))
            elif parsed.node:
                there.setdefault(parsed.node, []).append([watcher, is_link])
        self._tell_locals(pid, outcome, here)
        for node, watchers in there.items():
            self._tell_node(node, pid, outcome, watchers)
        for target in farewell.watched:
            parsed = parse_pid(target)
            if isinstance(parsed, ProcessPid) and not self._units.is_mine(target):
                self._switchboard.tell(parsed, "unmonitor", [pid, target])

    def _tell_node(self, node: str, pid: str, outcome: bytes, watchers: list[list[Any]]) -> None:
        """Tell another node of an end; whom it concerns there in portions, and what is too large to be sent not."""
        for_links = outcome
        most = self._peers.outcome_bytes_max
        if len(outcome) > most:
            text = (
                f"what {pid} ended with takes {len(outcome)} bytes, at most {most} can be sent to another node; "
                "return a reference"
            )
            too_large = failed(text, Kind.INVALID)
            for_links = too_large if outcome[:3] == codec.FAILURE_PREFIX else codec.NIL_OUTCOME
            outcome = too_large
        for is_link in (False, True):
            found = [watcher for watcher in watchers if watcher[1] == is_link]
            for i in range(0, len(found), TOLD_AT_ONCE):
                told = for_links if is_link else outcome
                self._peers.tell(node, "ended", [pid, told, found[i : i + TOLD_AT_ONCE]])

    def _tell_locals(self, pid: str, outcome: bytes, watchers: list[tuple[str, bool]]) -> None:
        from_ = lua_text(pid)
        for watcher, is_link in watchers:
            unit = self._units.get(watcher)
            if unit is not None:
                unit.post("link_down" if is_link else "ended", None, outcome, from_)
