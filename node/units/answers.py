"""Answers: what other nodes ask of the units of this one (`node.units.peers` brings it), checked and carried out.

Whatever the types of what arrives, it does no harm: a request that does not fit raises ValueError, TypeError or another
error of reading, and is refused as one that cannot be read. Nodes repeat what must arrive, so to hear it twice is fine.
"""

from __future__ import annotations

from typing import Any

from mesh import codec
from mesh.failure import Kind
from mesh.pids import ProcessPid, parse_pid
from node.units.farewells import Farewells
from node.units.names import Scope
from node.units.naming import Naming
from node.units.outcomes import TRUE, failed
from node.units.peers import Done
from node.units.spawn_request import SpawnRequest
from node.units.spawning import Spawning
from node.units.switchboard import Switchboard
from node.units.table import UnitTable


class Answers:
    """Answers other nodes."""

    def __init__(
        self, units: UnitTable, switchboard: Switchboard, naming: Naming, farewells: Farewells, spawning: Spawning
    ) -> None:
        self._units = units
        self._switchboard = switchboard
        self._links = switchboard.links
        self._naming = naming
        self._farewells = farewells
        self._spawning = spawning

    def answer(self, verb: str, args: list[Any], done: Done) -> None:
        """Answer what another node asks."""
        match verb:
            case "send":
                sender, pid, topic, body, once = args
                if not (isinstance(sender, str) and isinstance(topic, str) and topic and isinstance(body, bytes)):
                    raise ValueError("a message is [sender, PID, topic, bytes, mark]")
                self._switchboard.send(sender, _process(pid), topic, body, done, once=once)
            case "deliver":
                pid, messages = args
                if not all(isinstance(topic, str) and topic and isinstance(body, bytes) for topic, body in messages):
                    raise ValueError("first messages are [topic, bytes]")
                self._spawning.deliver_first(pid, messages, done)
            case "spawn":
                wish = SpawnRequest.from_wire(args[1:])
                if not self._spawning.runs_here(wish.host_id):
                    done(
                        failed(
                            f"host not found: node {self._units.node_id} does not run {wish.host_id}", Kind.NOT_FOUND
                        )
                    )
                    return
                outcome, existed, begin = self._spawning.make_here(args[0], wish)
                ok, value = codec.decode_outcome(outcome)
                done(codec.encode_success([value, existed]) if ok else outcome)
                begin()
            case "ended":
                pid, outcome, watchers = args
                codec.decode_outcome(outcome)
                self._farewells.heard(pid, outcome, watchers)
                done(TRUE)
            case "register":
                name, pid, scope = args
                self._naming.register(name, pid, Scope(scope), done)
            case "monitor":
                watcher, pid = args
                if pid in self._units.by_pid:
                    self._links.monitor(watcher, pid)
                    done(TRUE)
                else:
                    done(failed(f"pid not registered: {pid}", Kind.INTERNAL))
            case "unmonitor":
                self._links.unmonitor(args[0], args[1])
                done(TRUE)
            case "link":
                unit, pid = args
                if pid in self._units.by_pid:
                    self._links.link(unit, pid)
                    done(TRUE)
                else:
                    done(failed(f"pid not registered: {pid}", Kind.INTERNAL))
            case "unlink":
                self._links.unlink(args[0], args[1])
                done(TRUE)
            case "cancel":
                sender, pid, reason = args
                self._switchboard.cancel(sender, _process(pid), reason, done)
            case "terminate":
                self._switchboard.terminate(_process(args[0]), done)
            case _:
                done(failed(f"node {self._units.node_id} knows no request {verb!r}", Kind.INVALID))


def _process(pid: str) -> ProcessPid:
    parsed = parse_pid(pid)
    if not isinstance(parsed, ProcessPid):
        raise ValueError(f"{pid!r} is not the PID of a process")
    return parsed
