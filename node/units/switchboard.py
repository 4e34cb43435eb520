"""The switchboard: what units of this node say to others, wherever those are, and who watches whom.

A PID is good everywhere. A unit of this node is found in the table (`node.units.table`); one of another node is asked
for there (`node.units.peers`); a workflow is not ours (`node.units.live` signals it). Who is meant by a name is known
before (`node.units.naming`), and what follows from an end is told elsewhere (`node.units.farewells`).

Invariants: requests of one unit are carried out in the order in which it made them, without waiting in between, so
messages from one sender to one receiver stay in order. Every `done` is called once, now or later. Both nodes know of
every monitor and link between them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from mesh import codec
from mesh.failure import Failure, Kind
from mesh.pids import ProcessPid
from node.units.links import Links
from node.units.outcomes import TRUE, failed, lua_text, mailbox_full
from node.units.peers import LOST, Done, Peers
from node.units.table import UnitTable

ONCE_KEPT: Final = 100_000  # messages of workflows that are recognised when they come again


class Switchboard:
    """The ways of the units of this node to others."""

    def __init__(self, units: UnitTable, peers: Peers) -> None:
        self.links = Links()
        self._units = units.by_pid
        self._local = units.local
        self._is_alive = units.is_alive
        self._peers = peers
        self._heard: OrderedDict[str, None] = OrderedDict()

    def send(self, sender: str, to: ProcessPid, topic: str, body: bytes, done: Done, *, once: str = "") -> None:
        """Hand a message over. once: what tells it from others when it may be said twice."""
        pid = self._local(to)
        if pid is None:
            self.ask(to, "send", [sender, str(to), topic, body, once], done, "process not found", kind=Kind.NOT_FOUND)
            return
        if once and once in self._heard:
            done(TRUE)  # also when the receiver has ended since
            return
        unit = self._units.get(pid)
        if unit is None:
            done(failed(f"process not found: {pid}", Kind.NOT_FOUND))
            return
        if unit.is_full():
            done(mailbox_full(pid, unit.unread_max))
            return
        if once:
            self._note_heard(once)
        unit.post("message", lua_text(topic), body, lua_text(sender))
        done(TRUE)

    def cancel(self, sender: str, to: ProcessPid, reason: str | None, done: Done) -> None:
        """Ask a unit to stop."""
        pid = self._local(to)
        if pid is None:
            self.ask(to, "cancel", [sender, str(to), reason], done, "process not found")
            return
        unit = self._units.get(pid)
        if unit is None:
            done(failed(f"process not found: {pid}", Kind.INTERNAL))
            return
        unit.post("cancel", None, lua_text(reason) if reason is not None else None, lua_text(sender))
        done(TRUE)

    def terminate(self, to: ProcessPid, done: Done) -> None:
        """End a unit without asking it."""
        pid = self._local(to)
        if pid is None:
            self.ask(to, "terminate", [str(to)], done, "process not found")
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
            self.ask(
                to, "monitor", [watcher, target], self._or_else(done, lambda: self.links.unmonitor(watcher, target)),
                "pid not registered",
            )  # fmt: skip

    def unmonitor(self, watcher: str, to: ProcessPid, done: Done) -> None:
        """Have it not told any more."""
        pid = self._local(to)
        target = pid or str(to)
        if self.links.unmonitor(watcher, target) and pid is None:
            # What is repeated must not undo a monitor that came after it.
            self.tell(to, "unmonitor", [watcher, target], still=lambda: not self.links.is_monitored(watcher, target))
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
                self.ask(
                    to, "link", [unit, other], self._or_else(done, lambda: self.links.unlink(unit, other)),
                    "pid not registered",
                )  # fmt: skip

    def unlink(self, unit: str, to: ProcessPid, done: Done) -> None:
        """Untie them."""
        pid = self._local(to)
        other = pid or str(to)
        if self.links.unlink(unit, other) and pid is None:
            self.tell(to, "unlink", [unit, other], still=lambda: not self.links.is_linked(unit, other))
        done(TRUE)

    # -- the nodes of others ------------------------------------------------------------------------------------

    def ask(
        self, to: ProcessPid, verb: str, args: list[Any], done: Done, gone: str, *, kind: str = Kind.INTERNAL
    ) -> None:
        """Ask the node of a PID; gone: what to say when that node is no more."""
        if not self._is_alive(to):
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

    def tell(self, to: ProcessPid, verb: str, args: list[Any], still: Callable[[], bool] = lambda: True) -> None:
        """Say something to the node of a PID until it was heard, as long as it still holds."""
        if self._is_alive(to):
            self._peers.tell(to.node, verb, args, still=still)

    def _note_heard(self, once: str) -> None:
        self._heard[once] = None
        if len(self._heard) > ONCE_KEPT:
            self._heard.popitem(last=False)

    @staticmethod
    def _or_else(done: Done, undo: Callable[[], object]) -> Done:
        def answered(outcome: bytes) -> None:
            if outcome[:3] == codec.FAILURE_PREFIX:
                undo()
            done(outcome)

        return answered
