"""Naming: whom a name stands for, and how names come and go, for the units of this node.

Puts together the names of this node and those of the mesh (`node.units.names` keeps them). A mesh-wide name is held by
the node of its process, as that is who releases it; a local name of a process elsewhere goes when we hear of its end.

Invariants: a mesh-wide name goes before a local one; a name that is known here is answered at once, one that is not is
asked for; when a unit ends its names are released before anybody is told.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio.abc

from mesh import codec
from mesh.errors import TEMPORARY, MeshError
from mesh.failure import Kind
from mesh.pids import ProcessPid, WorkflowPid, parse_pid
from node.units.names import NAME_BYTES_MAX, LocalNames, MeshNames, NameTaken, Scope
from node.units.outcomes import TRUE, failed
from node.units.peers import Done
from node.units.switchboard import Switchboard
from node.units.table import UnitTable


class Naming:
    """Names as units use them. name_changed: a name of a process of this node came, or went (None)."""

    def __init__(
        self,
        units: UnitTable,
        switchboard: Switchboard,
        mesh_names: MeshNames,
        *,
        tasks: Callable[[], anyio.abc.TaskGroup],
        name_changed: Callable[[str, str | None], None],
    ) -> None:
        self.local = LocalNames()
        self._units = units
        self._switchboard = switchboard
        self._mesh_names = mesh_names
        self._tasks = tasks
        self._name_changed = name_changed

    # -- whom a name means -------------------------------------------------------------------------------------

    def known(self, name: str) -> str | None:
        """The PID that a name stands for, as far as it is known here."""
        return self._mesh_names.get(name) or self.local.get(name)

    def resolve(self, dest: str) -> ProcessPid | WorkflowPid | None:
        """Whom a destination means: a PID, or a name as far as it is known here."""
        pid = parse_pid(dest)
        if pid is None and can_be_a_name(dest):
            named = self.known(dest)
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

    def lookup(self, name: str, done: Done) -> None:
        """Find out whom a name stands for."""
        pid = self.known(name)
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

    def names_of(self, pid: str) -> list[str]:
        """The names of a process of this node, those of the mesh first."""
        return list(dict.fromkeys([*self._mesh_names.names_of(pid), *self.local.names_of(pid)]))

    # -- how names come and go -----------------------------------------------------------------------------------

    def register(self, name: str, pid: str, scope: Scope, done: Done) -> None:
        """Give a name to a process."""
        parsed = parse_pid(pid)
        if not isinstance(parsed, ProcessPid):
            done(failed(f"{pid!r} is not the PID of a process", Kind.INVALID))
            return
        local = self._units.local(parsed)
        if (local is not None and local not in self._units.by_pid) or (
            local is None and not self._units.is_alive(parsed)
        ):
            done(failed(f"process not found: {pid}", Kind.NOT_FOUND))
            return
        if scope is not Scope.LOCAL:
            if local is None:
                # Its own node holds its names, as that is who releases them.
                self._switchboard.ask(
                    parsed, "register", [name, pid, int(scope)], done, "process not found", kind=Kind.NOT_FOUND
                )
            else:
                self._tasks().start_soon(self._register_in_mesh, name, local, scope, done)
            return
        if local is None:
            # It lives elsewhere: the name must go when it does.
            self.register_alias(name, pid, done)
            return
        try:
            self.register_here(name, local)
        except NameTaken as error:
            done(failed(str(error), Kind.ALREADY_EXISTS))
            return
        done(TRUE)

    def unregister(self, name: str, pid: str, scope: Scope, done: Done) -> None:
        """Take a name away; mesh-wide ones only from the one who asks."""
        if scope is Scope.LOCAL:
            found = self.local.unregister(name)
            if found:
                self.look_again(name)
            done(codec.encode_success(found))
            return

        async def take_away() -> None:
            done(codec.encode_success(await self._mesh_names.unregister(name, pid, scope)))

        self._tasks().start_soon(take_away)

    def register_alias(self, name: str, pid: str, done: Done) -> None:
        """Give a local name to a process of another node, until that ends."""
        try:
            self.local.register(name, pid)
        except NameTaken as error:
            done(failed(str(error), Kind.ALREADY_EXISTS))
            return
        parsed = parse_pid(pid)
        watcher = self._units.new_watcher(lambda _outcome: self.local.release(pid))

        def watched(outcome: bytes) -> None:
            ok, _ = codec.decode_outcome(outcome)
            if not ok:
                watcher.post("ended", None, outcome)
            done(TRUE if ok else outcome)

        if isinstance(parsed, ProcessPid):
            self._switchboard.monitor(watcher.pid, parsed, watched)

    def register_here(self, name: str, pid: str) -> None:
        """Give a local name to a unit of this node. Raises NameTaken; the same again is fine."""
        self.local.register(name, pid)
        self.look_again(name)

    def release(self, pid: str, then: Callable[[], None]) -> None:
        """A unit of this node has ended: release its names, then go on; at once when none of them is mesh-wide."""
        for name in self.local.release(pid):
            self.look_again(name)
        if self._mesh_names.has_names(pid):
            self._tasks().start_soon(self._release_in_mesh, pid, then)
        else:
            then()

    def forget(self, pid: str) -> None:
        """A process of another node has ended: its mesh-wide names count no more, whatever is still seen of them."""
        self._mesh_names.forget(pid)

    def forget_all(self, pid: str) -> None:
        """A process has ended that we had not been told of: nothing is named by it any more."""
        self.local.release(pid)
        self._mesh_names.forget(pid)

    def look_again(self, name: str) -> None:
        """Something about a name may have changed."""
        pid = self.known(name)
        self._name_changed(name, pid if pid in self._units.by_pid else None)

    async def _release_in_mesh(self, pid: str, then: Callable[[], None]) -> None:
        await self._mesh_names.release(pid)
        then()

    async def _register_in_mesh(self, name: str, pid: str, scope: Scope, done: Done) -> None:
        try:
            await self._mesh_names.register(name, pid, scope)
        except NameTaken as error:
            done(failed(str(error), Kind.ALREADY_EXISTS))
            return
        if pid not in self._units.by_pid:
            await self._mesh_names.release(pid)  # it has ended meanwhile
        done(TRUE)


def unresolved(dest: str) -> bytes:
    """The outcome of what was asked of a name that nobody has (contract 5.2)."""
    shown = dest if can_be_a_name(dest) else f"{dest[:NAME_BYTES_MAX]}..."
    return failed(f"could not resolve '{shown}' as PID or registered name", Kind.NOT_FOUND)


def can_be_a_name(text: str) -> bool:
    """Whether a process could have been registered under a text."""
    return len(text.encode("utf-8", "surrogateescape")) <= NAME_BYTES_MAX


def _names_away(error: MeshError) -> bytes:
    return failed(f"who has a name cannot be found out at the moment: {error}", Kind.UNAVAILABLE)
