"""Answers: what other nodes ask of the units of this one (`node.units.peers` brings it), checked and carried out.

Whatever the types of what arrives, it does no harm: a request that does not fit raises ValueError, TypeError or another
error of reading, and is refused as one that cannot be read. Nodes repeat what must arrive, so to hear it twice is fine.
"""

from __future__ import annotations

from typing import Any, Final

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

# What is asked, and with what.
VERBS: Final = {
    "send": "[sender, PID, topic, bytes, mark]", "deliver": "[PID, [[topic, bytes], ...]]",
    "spawn": "[spawner, entry, host, request, name, messages, monitor, link] and maybe its trace",
    "ended": "[PID, outcome, [[PID, whether it is a link], ...]]", "register": "[name, PID, scope]",
    "monitor": "[PID, PID]", "unmonitor": "[PID, PID]", "link": "[PID, PID]", "unlink": "[PID, PID]",
    "cancel": "[sender, PID, reason or nil]", "terminate": "[PID]",
}  # fmt: skip


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
        match verb, args:
            case "send", [str(sender), str(pid), str(topic), bytes(body), str(once)] if topic:
                self._switchboard.send(sender, _process(pid), topic, body, done, once=once)
            case "deliver", [str(pid), list(messages)] if all(map(_is_first_message, messages)):
                self._spawning.deliver_first(pid, [(topic, body) for topic, body in messages], done)
            case "spawn", [str(spawner), *wire]:
                self._spawn(spawner, SpawnRequest.from_wire(wire), done)
            case "ended", [str(pid), bytes(outcome), list(watchers)] if all(map(_is_watcher, watchers)):
                codec.decode_outcome(outcome)
                self._farewells.heard(pid, outcome, watchers)
                done(TRUE)
            case "register", [str(name), str(pid), scope]:
                self._naming.register(name, pid, Scope(scope), done)
            case "monitor", [str(watcher), str(pid)]:
                if pid in self._units.by_pid:
                    self._links.monitor(watcher, pid)
                    done(TRUE)
                else:
                    done(failed(f"pid not registered: {pid}", Kind.INTERNAL))
            case "unmonitor", [str(watcher), str(pid)]:
                self._links.unmonitor(watcher, pid)
                done(TRUE)
            case "link", [str(unit), str(pid)]:
                if pid in self._units.by_pid:
                    self._links.link(unit, pid)
                    done(TRUE)
                else:
                    done(failed(f"pid not registered: {pid}", Kind.INTERNAL))
            case "unlink", [str(unit), str(pid)]:
                self._links.unlink(unit, pid)
                done(TRUE)
            case "cancel", [str(sender), str(pid), str() | None as reason]:
                self._switchboard.cancel(sender, _process(pid), reason, done)
            case "terminate", [str(pid)]:
                self._switchboard.terminate(_process(pid), done)
            case _ if verb in VERBS:
                raise ValueError(f"{verb} is {VERBS[verb]}")
            case _:
                done(failed(f"node {self._units.node_id} knows no request {verb!r}", Kind.INVALID))

    def _spawn(self, spawner: str, wish: SpawnRequest, done: Done) -> None:
        if not self._spawning.runs_here(wish.host_id):
            done(failed(f"host not found: node {self._units.node_id} does not run {wish.host_id}", Kind.NOT_FOUND))
            return
        outcome, existed, begin = self._spawning.make_here(spawner, wish)
        ok, value = codec.decode_outcome(outcome)
        done(codec.encode_success([value, existed]) if ok else outcome)
        begin()


def _is_first_message(message: object) -> bool:
    match message:
        case [str(topic), bytes()]:
            return bool(topic)
    return False


def _is_watcher(watcher: object) -> bool:
    match watcher:
        case [str(), bool()]:
            return True
    return False


def _process(pid: str) -> ProcessPid:
    parsed = parse_pid(pid)
    if not isinstance(parsed, ProcessPid):
        raise ValueError(f"{pid!r} is not the PID of a process")
    return parsed
