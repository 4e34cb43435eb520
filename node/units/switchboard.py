"""The switchboard: what units of this node say to others, wherever those are, and who is told when one ends.

A PID is good everywhere. A unit of this node is found in `_units`; one of another node is asked for there
(`node.units.peers`); a workflow is not ours (`node.units.live` signals it). Requests of one unit are carried out in
the order in which it made them, without waiting in between, so messages from one sender to one receiver stay in order.

How an end goes: the names are released, then monitors get their EXIT, then linked units their LINK_DOWN, whichever
node they are on. A node that is lost ends all its units in the eyes of the others (`node_lost`).
"""

from __future__ import annotations

import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import anyio.abc

from mesh import codec
from mesh.errors import TEMPORARY, MeshError
from mesh.failure import Failure, Kind
from mesh.pids import BOOT_DIGITS, TOPOLOGY, ProcessPid, WorkflowPid, parse_pid
from mesh.rendezvous import NodeId, owner
from node.units.links import Links
from node.units.names import NAME_BYTES_MAX, LocalNames, MeshNames, NameTaken, Scope
from node.units.peers import LOST, Done, Peers
from node.units.unit import LiveUnit, Watcher

TOLD_AT_ONCE: Final = 200  # watchers of one end in one message
ONCE_KEPT: Final = 100_000  # messages of workflows that are recognised when they come again

_log = logging.getLogger(__name__)

TRUE: Final = codec.encode_success(True)


@dataclass(frozen=True, slots=True)
class SpawnRequest:
    """What is to be spawned. request: a payload [arguments, context]. messages: (topic, bodies), delivered first."""

    entry_id: str
    host_id: str
    request: bytes
    name: str = ""
    messages: tuple[tuple[str, bytes], ...] = ()
    monitor: bool = False
    link: bool = False

    def to_wire(self) -> list[Any]:
        """The arguments of a `spawn` request to another node."""
        messages = [list(message) for message in self.messages]
        return [self.entry_id, self.host_id, self.request, self.name, messages, self.monitor, self.link]

    @classmethod
    def from_wire(cls, wire: list[Any]) -> SpawnRequest:
        """Read the arguments of a `spawn` request."""
        entry_id, host_id, request, name, messages, monitor, link = wire
        first = tuple((m[0], m[1]) for m in messages)
        texts = (entry_id, host_id, name, *(topic for topic, _ in first))
        if not all(isinstance(text, str) for text in texts) or not all(isinstance(body, bytes) for _, body in first):
            raise ValueError("a spawn is [entry, host, request, name, messages, monitor, link]")
        codec.decode(request)
        return cls(entry_id, host_id, request, name, first, bool(monitor), bool(link))


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

    def name_changed(self, name: str, pid: str | None) -> None:
        """A name of a process of this node came or went."""
        ...


class Directory(Protocol):
    """What is known of the nodes of the mesh (the roster)."""

    def boot_of(self, node_id: str) -> str | None:
        """Which start of a node is up; None when it is not."""
        ...

    def nodes_with_host(self, host_id: str) -> list[str]:
        """The nodes that run a host and are not about to leave, by id."""
        ...


class Switchboard:
    """The units of this node and their ways to others."""

    def __init__(
        self, *, node_id: str, directory: Directory, tasks: Callable[[], anyio.abc.TaskGroup],
        unit_ended: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.node_id = node_id
        self.boot = secrets.token_hex(BOOT_DIGITS // 2)
        self.links = Links()
        self.names = LocalNames()
        self._directory = directory
        self._tasks = tasks
        self._unit_ended = unit_ended
        self._units: dict[str, LiveUnit] = {}
        self._last_unique = 0
        self._heard: OrderedDict[str, None] = OrderedDict()
        self._turn = 0
        # Set by `attach`: they need the connection, or us.
        self._hosts: ProcessHosts
        self._peers: Peers
        self._mesh_names: MeshNames

    def attach(self, *, hosts: ProcessHosts, peers: Peers, mesh_names: MeshNames) -> None:
        """Put in what can only be made when this is there. To be called once, before anything else."""
        self._hosts, self._peers, self._mesh_names = hosts, peers, mesh_names

    # -- units -------------------------------------------------------------------------------------------------

    def new_pid(self, host_id: str) -> str:
        """A PID that was never used."""
        self._last_unique += 1
        return f"{{{self.node_id}@{host_id}|0x{self.boot}{self._last_unique:05x}}}"

    def add(self, unit: LiveUnit) -> None:
        """A unit begins."""
        self._units[unit.pid] = unit

    def get(self, pid: str) -> LiveUnit | None:
        """A live unit of this node."""
        return self._units.get(pid)

    @property
    def units(self) -> Mapping[str, LiveUnit]:
        """The live units of this node by PID."""
        return self._units

    def ended(self, unit: LiveUnit, outcome: bytes) -> None:
        """A unit has ended: release its names, then tell whom it concerns."""
        if self._units.pop(unit.pid, None) is None:
            return
        unit.ended, unit.outcome = True, outcome
        unit.drop_pending()
        self._unit_ended(unit.pid)
        for name in self.names.release(unit.pid):
            self._name_changed(name)
        if self._mesh_names.has_names(unit.pid):
            self._tasks().start_soon(self._release_and_tell, unit.pid, outcome)
        else:
            self._say_farewell(unit.pid, outcome)

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
            unit.post("message", _lua(topic), codec.encode(value), b"")

    # -- what units ask for ------------------------------------------------------------------------------------

    def resolve(self, dest: str) -> ProcessPid | WorkflowPid | None:
        """Whom a destination means: a PID, or a name as far as it is known here."""
        pid = parse_pid(dest)
        if pid is None and can_be_a_name(dest):
            named = self._mesh_names.get(dest) or self.names.get(dest)
            pid = parse_pid(named) if named is not None else None
        return pid

    def with_target(self, dest: str, go: Callable[[ProcessPid | WorkflowPid], None], done: Done) -> None:
        """Go on with whom a destination means, at once if that is known here; a name that is not is asked for."""
        pid = self.resolve(dest)
        if pid is not None:
            go(pid)
        elif dest.startswith("{") or not can_be_a_name(dest):
            done(unresolved(dest))
        else:
            self._tasks().start_soon(self._resolve_fresh, dest, go, done)

    async def _resolve_fresh(self, dest: str, go: Callable[[ProcessPid | WorkflowPid], None], done: Done) -> None:
        try:
            named = await self._mesh_names.get_fresh(dest)
        except TEMPORARY as error:
            done(_names_away(error))
            return
        pid = parse_pid(named) if named is not None else None
        if pid is None:
            done(unresolved(dest))
        else:
            go(pid)

    def send(self, sender: str, to: ProcessPid, topic: str, body: bytes, done: Done, *, once: str = "") -> None:
        """Hand a message over. once: what tells it from others when it may be said twice."""
        pid = self._local(to)
        if pid is None:
            self._ask(to, "send", [sender, str(to), topic, body, once], done, "process not found", kind=Kind.NOT_FOUND)
            return
        unit = self._units.get(pid)
        if unit is None:
            done(failed(f"process not found: {pid}", Kind.NOT_FOUND))
            return
        if not once or self._is_news(once):
            unit.post("message", _lua(topic), body, _lua(sender))
        done(TRUE)

    def cancel(self, sender: str, to: ProcessPid, reason: str | None, done: Done) -> None:
        """Ask a unit to stop."""
        pid = self._local(to)
        if pid is None:
            self._ask(to, "cancel", [sender, str(to), reason], done, "process not found")
            return
        unit = self._units.get(pid)
        if unit is None:
            done(failed(f"process not found: {pid}", Kind.INTERNAL))
            return
        unit.post("cancel", None, _lua(reason) if reason is not None else None, _lua(sender))
        done(TRUE)

    def terminate(self, to: ProcessPid, done: Done) -> None:
        """End a unit without asking it."""
        pid = self._local(to)
        if pid is None:
            self._ask(to, "terminate", [str(to)], done, "process not found")
            return
        unit = self._units.get(pid)
        if unit is None:
            done(failed(f"process not found: {pid}", Kind.INTERNAL))
            return
        unit.kill(Failure("process terminated", Kind.INTERNAL))
        done(TRUE)

    def monitor(self, watcher: str, to: ProcessPid, done: Done) -> None:
        """Have a unit's end told to the watcher."""
        pid = self._local(to)
        target = pid or str(to)
        if pid is not None and pid not in self._units:
            done(failed(f"pid not registered: {pid}", Kind.INTERNAL))
        elif not self.links.monitor(watcher, target):
            done(failed(f"already monitoring pid {target}", Kind.INTERNAL))
        elif pid is not None:
            done(TRUE)
        else:
            # Noted before it is asked for: the end may be told before the answer is read.
            self._ask(
                to, "monitor", [watcher, target], self._or_else(done, lambda: self.links.unmonitor(watcher, target)),
                "pid not registered",
            )  # fmt: skip

    def unmonitor(self, watcher: str, to: ProcessPid, done: Done) -> None:
        """Have it not told any more."""
        pid = self._local(to)
        target = pid or str(to)
        if self.links.unmonitor(watcher, target) and pid is None:
            # What is repeated must not undo a monitor that came after it.
            self._tell(to, "unmonitor", [watcher, target], still=lambda: not self.links.is_monitored(watcher, target))
        done(TRUE)

    def link(self, unit: str, to: ProcessPid, done: Done) -> None:
        """Tie two units together: when one fails, so does the other, or it is told."""
        pid = self._local(to)
        other = pid or str(to)
        if pid is not None and pid not in self._units:
            done(failed(f"pid not registered: {pid}", Kind.INTERNAL))
        elif self.links.is_linked(unit, other):
            done(TRUE)
        else:
            self.links.link(unit, other)
            if pid is not None:
                done(TRUE)
            else:
                self._ask(
                    to, "link", [unit, other], self._or_else(done, lambda: self.links.unlink(unit, other)),
                    "pid not registered",
                )  # fmt: skip

    def unlink(self, unit: str, to: ProcessPid, done: Done) -> None:
        """Untie them."""
        pid = self._local(to)
        other = pid or str(to)
        if self.links.unlink(unit, other) and pid is None:
            self._tell(to, "unlink", [unit, other], still=lambda: not self.links.is_linked(unit, other))
        done(TRUE)

    # -- names -------------------------------------------------------------------------------------------------

    def register(self, name: str, pid: str, scope: Scope, done: Done) -> None:
        """Give a name to a process."""
        parsed = parse_pid(pid)
        if not isinstance(parsed, ProcessPid):
            done(failed(f"{pid!r} is not the PID of a process", Kind.INVALID))
            return
        local = self._local(parsed)
        if (local is not None and local not in self._units) or (local is None and not self.is_alive(parsed)):
            done(failed(f"process not found: {pid}", Kind.NOT_FOUND))
            return
        if scope is not Scope.LOCAL:
            if local is None:
                # Its own node holds its names, as that is who releases them.
                self._ask(parsed, "register", [name, pid, int(scope)], done, "process not found", kind=Kind.NOT_FOUND)
            else:
                self._tasks().start_soon(self._register_in_mesh, name, local, scope, done)
            return
        if local is None:
            # It lives elsewhere: the name must go when it does.
            self._name_remote(name, pid, done)
            return
        try:
            self.names.register(name, local)
        except NameTaken as error:
            done(failed(str(error), Kind.ALREADY_EXISTS))
            return
        self._name_changed(name)
        done(TRUE)

    def _name_remote(self, name: str, pid: str, done: Done) -> None:
        try:
            self.names.register(name, pid)
        except NameTaken as error:
            done(failed(str(error), Kind.ALREADY_EXISTS))
            return
        parsed = parse_pid(pid)
        watcher = self.new_watcher(lambda _outcome: self.names.release(pid))

        def watched(outcome: bytes) -> None:
            ok, _ = codec.decode_outcome(outcome)
            if not ok:
                watcher.post("ended", None, outcome)
            done(TRUE if ok else outcome)

        if isinstance(parsed, ProcessPid):
            self.monitor(watcher.pid, parsed, watched)

    async def _register_in_mesh(self, name: str, pid: str, scope: Scope, done: Done) -> None:
        try:
            await self._mesh_names.register(name, pid, scope)
        except NameTaken as error:
            done(failed(str(error), Kind.ALREADY_EXISTS))
            return
        if pid not in self._units:
            await self._mesh_names.release(pid)  # it has ended meanwhile
        done(TRUE)

    def lookup(self, name: str, done: Done) -> None:
        """Find out whom a name stands for."""
        pid = self._mesh_names.get(name) or self.names.get(name)
        if pid is not None:
            done(codec.encode_success(pid))
            return

        async def ask() -> None:
            try:
                found = await self._mesh_names.get_fresh(name)
            except TEMPORARY as error:
                done(_names_away(error))
                return
            done(
                codec.encode_success(found)
                if found is not None
                else failed(f"name not registered: {name}", Kind.NOT_FOUND)
            )

        self._tasks().start_soon(ask)

    def unregister(self, name: str, pid: str, scope: Scope, done: Done) -> None:
        """Take a name away; mesh-wide ones only from the one who asks."""
        if scope is Scope.LOCAL:
            found = self.names.unregister(name)
            if found:
                self._name_changed(name)
            done(codec.encode_success(found))
            return

        async def take_away() -> None:
            done(codec.encode_success(await self._mesh_names.unregister(name, pid, scope)))

        self._tasks().start_soon(take_away)

    def on_mesh_name(self, name: str) -> None:
        """Something about a mesh-wide name may have changed."""
        self._name_changed(name)

    def _name_changed(self, name: str) -> None:
        pid = self._mesh_names.get(name) or self.names.get(name)
        self._hosts.name_changed(name, pid if pid in self._units else None)

    # -- spawning ----------------------------------------------------------------------------------------------

    def offers(self, host_id: str) -> bool:
        """Whether any node runs this process host."""
        return self._hosts.runs(host_id) or bool(self._directory.nodes_with_host(host_id))

    def spawn(self, spawner: str, wish: SpawnRequest, done: Done) -> None:
        """Spawn a process on this node if it runs the host, else on another one that does. The outcome is the PID.

        A name that is taken, as far as it is known here, gives the process that has it, wherever that is.
        """
        named = self._mesh_names.get(wish.name) or self.names.get(wish.name) if wish.name else None
        holder = parse_pid(named) if named is not None else None
        if isinstance(holder, ProcessPid):
            self._deliver_to_holder(holder, spawner, wish, done)
        else:
            self._spawn(spawner, wish, done)

    def _deliver_to_holder(self, holder: ProcessPid, spawner: str, wish: SpawnRequest, done: Done) -> None:
        def delivered(outcome: bytes) -> None:
            ok, failure = codec.decode_outcome(outcome)
            if not ok and failure.kind != Kind.NOT_FOUND:
                done(outcome)  # whether it lives is not known: another one must not get its name
            elif not ok:
                # It has ended, which we have not been told yet.
                self.names.release(str(holder))
                self._mesh_names.forget(str(holder))
                self._spawn(spawner, wish, done)
            else:
                done(codec.encode_success(str(holder)))

        if self._local(holder) is None:
            messages = [list(message) for message in wish.messages]
            self._ask(holder, "deliver", [str(holder), messages], delivered, "process not found", kind=Kind.NOT_FOUND)
        else:
            self._deliver(str(holder), wish.messages, delivered)

    def _deliver(self, pid: str, messages: Iterable[tuple[str, bytes]], done: Done) -> None:
        unit = self._units.get(pid)
        if unit is None:
            done(failed(f"process not found: {pid}", Kind.NOT_FOUND))
            return
        for topic, body in messages:
            unit.post("message", _lua(topic), body, b"")
        done(TRUE)

    def _spawn(self, spawner: str, wish: SpawnRequest, done: Done) -> None:
        if self._hosts.runs(wish.host_id):
            done(self.spawn_here(spawner, wish))
            return
        nodes = self._directory.nodes_with_host(wish.host_id)
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
                    self.links.monitor(spawner, pid)
                if wish.link:
                    self.links.link(spawner, pid)
            if wish.name and self.names.get(wish.name) is None:
                # The name is that node's; here it is an alias, so that the spawner finds it, too.
                self._name_remote(wish.name, pid, lambda _outcome: done(codec.encode_success(pid)))
            else:
                done(codec.encode_success(pid))

        self._peers.ask(node, "spawn", [spawner, *wish.to_wire()], spawned)

    def spawn_here(self, spawner: str, wish: SpawnRequest) -> bytes:
        """Spawn a process on this node; the outcome is its PID."""
        outcome, _, begin = self._spawn_here(spawner, wish)
        begin()
        return outcome

    def _spawn_here(self, spawner: str, wish: SpawnRequest) -> tuple[bytes, bool, Callable[[], None]]:
        """Make a process: the outcome, whether it was there already, and what lets it run.

        Whoever spawns from another node must have been told the PID before it can hear of the end.
        """
        if wish.name:
            holder = self.names.get(wish.name)
            existing = self._units.get(holder) if holder is not None else None
            if existing is not None:
                return (
                    codec.encode_success(existing.pid),
                    True,
                    lambda: self._deliver(existing.pid, wish.messages, _nobody),
                )
        unit = self._hosts.create(wish.entry_id, wish.host_id, wish.request)
        if isinstance(unit, Failure):
            return codec.encode_failure(unit), False, lambda: None
        self.add(unit)
        if wish.name:
            self.names.register(wish.name, unit.pid)
            self._name_changed(wish.name)
        if wish.monitor:
            self.links.monitor(spawner, unit.pid)
        if wish.link:
            self.links.link(spawner, unit.pid)

        def begin() -> None:
            # The messages first: they have to be there before anything that the process says to itself.
            self._deliver(unit.pid, wish.messages, _nobody)
            self._hosts.begin(unit)

        return codec.encode_success(unit.pid), False, begin

    # -- other nodes -------------------------------------------------------------------------------------------

    def answer(self, verb: str, args: list[Any], done: Done) -> None:
        """Answer what another node asks."""
        match verb:
            case "send":
                sender, pid, topic, body, once = args
                if not (isinstance(sender, str) and isinstance(topic, str) and topic and isinstance(body, bytes)):
                    raise ValueError("a message is [sender, PID, topic, bytes, mark]")
                self.send(sender, self._parsed(pid), topic, body, done, once=once)
            case "deliver":
                pid, messages = args
                if not all(isinstance(topic, str) and topic and isinstance(body, bytes) for topic, body in messages):
                    raise ValueError("first messages are [topic, bytes]")
                self._deliver(pid, messages, done)
            case "spawn":
                wish = SpawnRequest.from_wire(args[1:])
                if not self._hosts.runs(wish.host_id):
                    done(failed(f"host not found: node {self.node_id} does not run {wish.host_id}", Kind.NOT_FOUND))
                    return
                outcome, existed, begin = self._spawn_here(args[0], wish)
                ok, value = codec.decode_outcome(outcome)
                done(codec.encode_success([value, existed]) if ok else outcome)
                begin()
            case "ended":
                pid, outcome, watchers = args
                codec.decode_outcome(outcome)
                self._heard_of_end(pid, outcome, watchers)
                done(TRUE)
            case "register":
                name, pid, scope = args
                self.register(name, pid, Scope(scope), done)
            case "monitor":
                watcher, pid = args
                if pid in self._units:
                    self.links.monitor(watcher, pid)
                    done(TRUE)
                else:
                    done(failed(f"pid not registered: {pid}", Kind.INTERNAL))
            case "unmonitor":
                self.links.unmonitor(args[0], args[1])
                done(TRUE)
            case "link":
                unit, pid = args
                if pid in self._units:
                    self.links.link(unit, pid)
                    done(TRUE)
                else:
                    done(failed(f"pid not registered: {pid}", Kind.INTERNAL))
            case "unlink":
                self.links.unlink(args[0], args[1])
                done(TRUE)
            case "cancel":
                sender, pid, reason = args
                self.cancel(sender, self._parsed(pid), reason, done)
            case "terminate":
                self.terminate(self._parsed(args[0]), done)
            case _:
                done(failed(f"node {self.node_id} knows no request {verb!r}", Kind.INVALID))

    def is_alive(self, pid: ProcessPid) -> bool:
        """Whether the node of a PID is up, in the start in which it made the PID."""
        if pid.node in ("", self.node_id):
            return pid.boot == self.boot
        return self._directory.boot_of(pid.node) == pid.boot

    def nodes_changed(self, gone: Collection[str] = ()) -> None:
        """The roster has changed: units of nodes that are gone have ended, also if those nodes are back meanwhile."""
        for pid, farewell in self.links.lost(lambda pid: self._is_lost(pid, gone)).items():
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
        if not isinstance(parsed, ProcessPid) or self._is_mine(pid):
            return False
        return parsed.node in gone or not self.is_alive(parsed)

    async def _release_and_tell(self, pid: str, outcome: bytes) -> None:
        await self._mesh_names.release(pid)
        self._say_farewell(pid, outcome)

    def _say_farewell(self, pid: str, outcome: bytes) -> None:
        farewell = self.links.ended(pid)
        here: list[tuple[str, bool]] = []
        there: dict[str, list[list[Any]]] = {}
        failure = outcome[:3] == codec.FAILURE_PREFIX
        for watcher, is_link in (*((w, False) for w in farewell.monitors), *((u, True) for u in farewell.linked)):
            parsed = parse_pid(watcher)
            if not isinstance(parsed, ProcessPid) or self._is_mine(watcher):
                if failure or not is_link:
                    here.append((watcher, is_link))
            elif parsed.node:
                there.setdefault(parsed.node, []).append([watcher, is_link])
        self._tell_locals(pid, outcome, here)
        for node, watchers in there.items():
            self._tell_node(node, pid, outcome, watchers)
        for target in farewell.watched:
            parsed = parse_pid(target)
            if isinstance(parsed, ProcessPid) and not self._is_mine(target):
                self._tell(parsed, "unmonitor", [pid, target])

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
        from_ = _lua(pid)
        for watcher, is_link in watchers:
            unit = self._units.get(watcher)
            if unit is not None:
                unit.post("link_down" if is_link else "ended", None, outcome, from_)

    def _heard_of_end(self, pid: str, outcome: bytes, watchers: list[Any]) -> None:
        self._mesh_names.forget(pid)
        failure = outcome[:3] == codec.FAILURE_PREFIX
        told: list[tuple[str, bool]] = []
        for watcher, is_link in watchers:
            known = self.links.unlink(watcher, pid) if is_link else self.links.unmonitor(watcher, pid)
            if known and (failure or not is_link):
                told.append((watcher, bool(is_link)))
        # Watchers of the runtime itself first: they release names.
        told.sort(key=lambda item: not isinstance(self._units.get(item[0]), Watcher))
        self._tell_locals(pid, outcome, told)

    # -- small ones --------------------------------------------------------------------------------------------

    def _is_mine(self, pid: str) -> bool:
        return pid.startswith(f"{{{self.node_id}@") or "@" not in pid.partition("|")[0]

    def _local(self, pid: ProcessPid) -> str | None:
        """The full text of a PID of this node, None for that of another one."""
        if pid.node and pid.node != self.node_id:
            return None
        return f"{{{self.node_id}@{pid.host}|{pid.unique}}}"

    def _parsed(self, pid: str) -> ProcessPid:
        parsed = parse_pid(pid)
        if not isinstance(parsed, ProcessPid):
            raise ValueError(f"{pid!r} is not the PID of a process")
        return parsed

    def _ask(
        self, to: ProcessPid, verb: str, args: list[Any], done: Done, gone: str, *, kind: str = Kind.INTERNAL
    ) -> None:
        """Ask the node of a PID; gone: what to say when that node is no more."""
        if not self.is_alive(to):
            done(failed(f"{gone}: {to}", kind))
            return

        def answered(outcome: bytes) -> None:
            if outcome[:3] == codec.FAILURE_PREFIX:
                _, failure = codec.decode_outcome(outcome)
                if failure.kind == LOST:
                    outcome = failed(f"{gone}: {to} ({failure.message})", kind)
                elif kind == Kind.INTERNAL:
                    outcome = failed(failure.message, kind)
            done(outcome)

        self._peers.ask(to.node, verb, args, answered)

    def _tell(self, to: ProcessPid, verb: str, args: list[Any], still: Callable[[], bool] = lambda: True) -> None:
        if self.is_alive(to):
            self._peers.tell(to.node, verb, args, still=still)

    def _is_news(self, once: str) -> bool:
        if once in self._heard:
            return False
        self._heard[once] = None
        if len(self._heard) > ONCE_KEPT:
            self._heard.popitem(last=False)
        return True

    @staticmethod
    def _or_else(done: Done, undo: Callable[[], object]) -> Done:
        def answered(outcome: bytes) -> None:
            if outcome[:3] == codec.FAILURE_PREFIX:
                undo()
            done(outcome)

        return answered


def failed(message: str, kind: str, *, retryable: bool | None = False) -> bytes:
    """An outcome that is a failure."""
    return codec.encode_failure(Failure(message, kind, retryable))


def unresolved(dest: str) -> bytes:
    """The outcome of what was asked of a name that nobody has (contract 5.2)."""
    shown = dest if can_be_a_name(dest) else f"{dest[:NAME_BYTES_MAX]}..."
    return failed(f"could not resolve '{shown}' as PID or registered name", Kind.NOT_FOUND)


def can_be_a_name(text: str) -> bool:
    """Whether a process could have been registered under a text."""
    return len(text.encode("utf-8", "surrogateescape")) <= NAME_BYTES_MAX


def _names_away(error: MeshError) -> bytes:
    return failed(f"who has a name cannot be found out at the moment: {error}", Kind.UNAVAILABLE)


def _nobody(_outcome: bytes) -> None:
    """What comes of it interests nobody."""


def _lua(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


__all__ = ["TOPOLOGY", "Directory", "ProcessHosts", "SpawnRequest", "Switchboard", "failed", "unresolved"]
