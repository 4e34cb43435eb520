"""Which services are this node's: those whose host it runs, and of `placement: one` those that it has claimed.

A claim is a consistent mesh-wide name (`node.units.names`), so it counts as long as its node lives. When nobody holds
it, the node that comes first for it by rendezvous hashing takes it; the holder keeps it when other nodes come. A node
that is cut off for longer than its lease stops what it runs alone on the mesh before anybody else may start it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Final

import anyio
import anyio.abc

from mesh.errors import TEMPORARY
from mesh.rendezvous import NodeId, owner
from node.registry import EntryId, Placement, ServiceEntry
from node.units.names import MeshNames, NameTaken, Scope

LOOK_EVERY_S: Final = 0.5

_log = logging.getLogger(__name__)


def claimant(service_id: str, nodes: Collection[str]) -> str | None:
    """Which node takes a service that nobody has; None when no node offers it. Pure."""
    return owner(f"service/{service_id}", [NodeId(node) for node in nodes]) if nodes else None


class ServicePlacing:
    """This node's part in who runs what.

    claim_pid: a PID that stands for this node, as the holder of its claims.
    nodes_with(service_id): the nodes that offer a service and are not about to leave, this one included.
    """

    def __init__(
        self,
        services: Mapping[EntryId, ServiceEntry],
        names: MeshNames,
        *,
        node_id: str,
        claim_pid: str,
        offers: Callable[[str], bool],
        may_act: Callable[[], bool],
        nodes_with: Callable[[str], list[str]],
    ) -> None:
        self._offered = {entry_id: view for entry_id, view in services.items() if offers(str(entry_id))}
        self._single = [entry_id for entry_id, view in self._offered.items() if view.placement is Placement.ONE]
        self._names = names
        self._node_id = node_id
        self.claim_pid = claim_pid
        self._may_act = may_act
        self._nodes_with = nodes_with
        self._mine: set[EntryId] = set()
        self._changed: Callable[[], None] = lambda: None
        self._look = anyio.Event()
        self._leaving = False

    @property
    def single(self) -> list[str]:
        """The services that this node offers to run alone on the mesh."""
        return [str(entry_id) for entry_id in self._single]

    def may_run(self, service_id: EntryId) -> bool:
        """Whether this node runs the service now."""
        view = self._offered.get(service_id)
        return view is not None and (view.placement is Placement.EACH or service_id in self._mine)

    def on_change(self, changed: Callable[[], None]) -> None:
        """Have `changed` called whenever an answer of `may_run` may be another one."""
        self._changed = changed

    def look(self) -> None:
        """Something may have changed: nodes, or who holds a claim."""
        self._look.set()

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Claim what nobody has, and notice what was lost, until cancelled. Ready when the first look is over."""
        await self._settle()
        task_status.started()
        if not self._single:
            return
        while True:
            with anyio.move_on_after(LOOK_EVERY_S):
                await self._look.wait()
            self._look = anyio.Event()
            await self._settle()

    async def give_up(self) -> None:
        """Let others have the claims; the services are stopped."""
        self._leaving = True
        for service_id in list(self._mine):
            self._mine.discard(service_id)
            await self._names.unregister(_name(service_id), self.claim_pid, Scope.STRONG)

    async def _settle(self) -> None:
        before = set(self._mine)
        for service_id in self._single:
            if self._leaving:
                return
            if await self._is_mine(service_id):
                self._mine.add(service_id)
            else:
                self._mine.discard(service_id)
        if self._mine != before:
            self._changed()

    async def _is_mine(self, service_id: EntryId) -> bool:
        if not self._may_act():
            return False
        holder = self._names.holder(_name(service_id), Scope.STRONG)
        if holder is None and claimant(service_id, self._nodes_with(service_id)) == self._node_id:
            try:
                await self._names.register(_name(service_id), self.claim_pid, Scope.STRONG)
            except (NameTaken, *TEMPORARY):
                return False
            _log.info("service %s runs on this node", service_id)
            return True
        return holder == self.claim_pid


def _name(service_id: str) -> str:
    return f"@service/{service_id}"
