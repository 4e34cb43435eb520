"""Spawning: on which node a process comes to be, who has its name already, and what it finds when it begins.

A process is made on this node if it runs the host, else on another one that does, in turn. Under a name all who use it
must meet: a name that is taken gives the process that has it, one that is free the node that rendezvous hashing picks.
Workflows are started elsewhere (`node.units.live`), and what services run is decided by `node.services`.

Invariants: a process has its first messages before anything that it says to itself; whoever spawns from another node
is told the PID before it can hear of the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from mesh import codec
from mesh.failure import Failure, Kind
from mesh.pids import ProcessPid, parse_pid
from mesh.rendezvous import NodeId, owner
from node.units.naming import Naming
from node.units.outcomes import TRUE, failed, lua_text, mailbox_full
from node.units.peers import LOST, Done, Peers
from node.units.spawn_request import SpawnRequest
from node.units.switchboard import Switchboard
from node.units.table import UnitTable
from node.units.unit import LiveUnit


class ProcessHosts(Protocol):
    """What makes processes on this node (`node.units.processes`)."""

    def runs(self, host_id: str) -> bool:
        """Whether this node runs a host."""
        ...

    def create(self, entry_id: str, host_id: str, request: bytes) -> LiveUnit | Failure:
        """Make a process and load its code; it does not run before `begin`."""
        ...

    def begin(self, unit: LiveUnit) -> None:
        """Let it run."""
        ...


class Spawning:
    """Spawns processes on behalf of units. nodes_with_host: the other nodes that run a host and stay, by id."""

    def __init__(
        self,
        units: UnitTable,
        switchboard: Switchboard,
        naming: Naming,
        peers: Peers,
        *,
        hosts: Callable[[], ProcessHosts],
        nodes_with_host: Callable[[str], list[str]],
    ) -> None:
        self._units = units
        self._switchboard = switchboard
        self._links = switchboard.links
        self._naming = naming
        self._peers = peers
        self._hosts = hosts
        self._nodes_with_host = nodes_with_host
        self._turn = 0

    def offers(self, host_id: str) -> bool:
        """Whether any node runs this process host."""
        return self.runs_here(host_id) or bool(self._nodes_with_host(host_id))

    def spawn(self, spawner: str, wish: SpawnRequest, done: Done) -> None:
        """Spawn a process on this node if it runs the host, else on another one that does. The outcome is the PID.

        A name that is taken, as far as it is known here, gives the process that has it, wherever that is.
        """
        named = self._naming.known(wish.name) if wish.name else None
        holder = parse_pid(named) if named is not None else None
        if isinstance(holder, ProcessPid):
            self._deliver_to_holder(holder, spawner, wish, done)
        else:
            self._spawn_anywhere(spawner, wish, done)

    def runs_here(self, host_id: str) -> bool:
        """Whether this node runs a process host."""
        return self._hosts().runs(host_id)

    def spawn_here(self, spawner: str, wish: SpawnRequest) -> bytes:
        """Spawn a process on this node; the outcome is its PID."""
        outcome, _, begin = self.make_here(spawner, wish)
        begin()
        return outcome

    def make_here(self, spawner: str, wish: SpawnRequest) -> tuple[bytes, bool, Callable[[], None]]:
        """Make a process: the outcome, whether it was there already, and what lets it run.

        Whoever spawns from another node must have been told the PID before it can hear of the end.
        """
        if wish.name:
            holder = self._naming.local.get(wish.name)
            existing = self._units.get(holder) if holder is not None else None
            if existing is not None:
                return (
                    codec.encode_success(existing.pid),
                    True,
                    lambda: self.deliver_first(existing.pid, wish.messages, _nobody),
                )
        unit = self._hosts().create(wish.entry_id, wish.host_id, wish.request)
        if isinstance(unit, Failure):
            return codec.encode_failure(unit), False, lambda: None
        unit.parent = spawner
        unit.trace = wish.trace
        self._units.add(unit)
        if wish.name:
            self._naming.register_here(wish.name, unit.pid)
        if wish.monitor:
            self._links.monitor(spawner, unit.pid)
        if wish.link:
            self._links.link(spawner, unit.pid)

        def begin() -> None:
            # The messages first: they have to be there before anything that the process says to itself.
            self.deliver_first(unit.pid, wish.messages, _nobody)
            self._hosts().begin(unit)

        return codec.encode_success(unit.pid), False, begin

    def deliver_first(self, pid: str, messages: Iterable[tuple[str, bytes]], done: Done) -> None:
        """Hand first messages to a process of this node."""
        unit = self._units.get(pid)
        if unit is None:
            done(failed(f"process not found: {pid}", Kind.NOT_FOUND))
            return
        if unit.is_full():
            done(mailbox_full(pid, unit.unread_max))
            return
        for topic, body in messages:
            unit.post("message", lua_text(topic), body, b"")
        done(TRUE)

    def _deliver_to_holder(self, holder: ProcessPid, spawner: str, wish: SpawnRequest, done: Done) -> None:
        def delivered(outcome: bytes) -> None:
            ok, failure = codec.decode_outcome(outcome)
            if not ok and failure.kind != Kind.NOT_FOUND:
                done(outcome)  # whether it lives is not known: another one must not get its name
            elif not ok:
                # It has ended, which we have not been told yet.
                self._naming.forget_all(str(holder))
                self._spawn_anywhere(spawner, wish, done)
            else:
                done(codec.encode_success(str(holder)))

        if self._units.local(holder) is None:
            messages = [list(message) for message in wish.messages]
            self._switchboard.ask(
                holder, "deliver", [str(holder), messages], delivered, "process not found", kind=Kind.NOT_FOUND
            )
        else:
            self.deliver_first(str(holder), wish.messages, delivered)

    def _spawn_anywhere(self, spawner: str, wish: SpawnRequest, done: Done) -> None:
        if self.runs_here(wish.host_id):
            done(self.spawn_here(spawner, wish))
            return
        nodes = self._nodes_with_host(wish.host_id)
        if wish.name:
            # All who use the name must come to the same node.
            nodes = [owner(wish.name, [NodeId(node) for node in nodes])] if nodes else []
        elif nodes:
            self._turn += 1
            first = self._turn % len(nodes)
            nodes = nodes[first:] + nodes[:first]
        self._spawn_on(nodes, spawner, wish, done)

    def _spawn_on(self, nodes: list[str], spawner: str, wish: SpawnRequest, done: Done) -> None:
        if not nodes:
            done(failed(f"host not found: no node runs {wish.host_id}", Kind.NOT_FOUND))
            return
        node, parent = nodes[0], self._units.get(spawner)

        def spawned(outcome: bytes) -> None:
            ok, value = codec.decode_outcome(outcome)
            if not ok:
                if value.kind == LOST:
                    self._spawn_on(nodes[1:], spawner, wish, done)
                else:
                    done(outcome)
                return
            pid, existed = value
            if not existed and parent is not None and parent.ended:
                # It has ended meanwhile, and nobody there knows that.
                self._peers.tell(node, "unmonitor", [spawner, pid])
                if wish.link:
                    self._peers.tell(node, "ended", [spawner, parent.outcome or codec.NIL_OUTCOME, [[pid, True]]])
            elif not existed:
                if wish.monitor:
                    self._links.monitor(spawner, pid)
                if wish.link:
                    self._links.link(spawner, pid)
            if wish.name and self._naming.local.get(wish.name) is None:
                # The name is that node's; here it is an alias, so that the spawner finds it, too.
                self._naming.register_alias(wish.name, pid, lambda _outcome: done(codec.encode_success(pid)))
            else:
                done(codec.encode_success(pid))

        self._peers.ask(node, "spawn", [spawner, *wish.to_wire()], spawned)


def _nobody(_outcome: bytes) -> None:
    """What comes of it interests nobody."""
