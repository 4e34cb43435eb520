"""The nodes of the mesh as the parts of one node ask for them: who is up, who offers what, who has gone.

A view of the roster. A node that was taken for lost and is back has a new incarnation: to the others its units have
ended, and theirs to it.
"""

from __future__ import annotations

from collections.abc import Collection

from mesh.membership import Member
from mesh.roster import Roster


class Members:
    """The members of the mesh. Empty until `attach`."""

    def __init__(self, node_id: str) -> None:
        self._node_id = node_id
        self._roster: Roster | None = None
        self._boots: dict[str, str] = {}
        self._lives: dict[str, tuple[str, str]] = {}  # boot and incarnation of the others
        self._host_lives: set[tuple[str, str]] = set()
        self._incarnation = ""

    def attach(self, roster: Roster) -> None:
        """Put in the roster, which tells the others what the node has by then."""
        self._roster = roster

    def look(self) -> list[str]:
        """Take note of a change; return the nodes whose units have ended for this one."""
        if self._roster is None:
            return []
        members = self._all()
        boots = {str(m.node_id): str(self._roster.details(m.node_id).get("boot", "")) for m in members}
        # A node that was taken for lost and is back has a new incarnation. To the others its units have ended; so have
        # theirs to it, or it would wait for ends that nobody tells it.
        lives = {str(m.node_id): (boots[m.node_id], m.incarnation) for m in members if m.node_id != self._node_id}
        was_lost = self._incarnation not in ("", self._roster.me.incarnation)
        self._incarnation = self._roster.me.incarnation
        gone = [node for node, life in self._lives.items() if was_lost or lives.get(node) != life]
        self._boots, self._lives = boots, lives
        return gone

    def host_has_gone(self) -> bool:
        """Whether a function host that is no member has gone, or was started anew, since this was asked last."""
        before = self._host_lives
        self._host_lives = self._roster.host_lives() if self._roster is not None else set()
        return not before <= self._host_lives

    @property
    def is_first(self) -> bool:
        """Whether this node does what one node of the mesh has to do."""
        return self._node_id == min(self._boots, default="")

    def boot_of(self, node_id: str) -> str | None:
        """Which start of a node is up."""
        return self._boots.get(node_id)

    def nodes_with_host(self, host_id: str) -> list[str]:
        """The other nodes that run a host and are not about to leave."""
        return [node for node in self._nodes_with("hosts", [host_id]) if node != self._node_id]

    def nodes_with_service(self, service_id: str) -> list[str]:
        """The nodes that may run a service and are not about to leave."""
        return self._nodes_with("services", [service_id])

    def offering(self, function_ids: Collection[str]) -> int:
        """How many nodes offer any of these functions and are not about to leave."""
        return len(self._nodes_with("functions", function_ids)) + self._hosts_with(function_ids)

    def hosts_of(self, function_id: str) -> int:
        """How many nodes offer a function or have just stopped to, and may still run calls of it."""
        members = sum(self._has(member, "functions", [function_id]) for member in self._all())
        return members + self._hosts_with([function_id])

    def _nodes_with(self, what: str, wanted: Collection[str]) -> list[str]:
        return [str(m.node_id) for m in self._all() if not m.leaving and self._has(m, what, wanted)]

    def _hosts_with(self, function_ids: Collection[str]) -> int:
        hosts = self._roster.function_hosts() if self._roster is not None else []
        offered = [host.get("functions") for host in hosts]
        return sum(isinstance(ids, list) and any(name in ids for name in function_ids) for ids in offered)

    def _has(self, member: Member, what: str, wanted: Collection[str]) -> bool:
        offered = self._roster.details(member.node_id).get(what) if self._roster is not None else ()
        return isinstance(offered, list) and any(name in offered for name in wanted)

    def _all(self) -> list[Member]:
        return self._roster.members() if self._roster is not None else []
