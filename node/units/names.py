"""Registered names: of this node (LOCAL) and of the whole mesh (EVENTUAL, CONSISTENT, STRONG; contract 5.2).

Mesh-wide names are keys of the KV bucket `mesh_names`, written by compare-and-set and seen by every node through one
ordered consumer, so looking one up costs nothing. A name counts as long as the node of its process lives: which nodes
do, and since which start, is the roster's knowledge. CONSISTENT and STRONG are one: both are decided by the server.

    s.<name>   consistent and strong        e.<name>   eventual        value: {"pid": ...}

Invariant: a name of a process is released before anybody is told that the process has ended.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from enum import IntEnum
from typing import Any, Final

import anyio
import anyio.abc

from mesh.buckets import Bucket
from mesh.connection import Connection
from mesh.errors import TEMPORARY, Conflict, MeshError
from mesh.follower import Delivered, Follower
from mesh.jetstream import JetStream
from mesh.pids import ProcessPid, parse_pid
from mesh.stored_messages import is_marker
from mesh.subjects import bucket_key, bucket_key_name

BUCKET: Final = "mesh_names"
NAME_BYTES_MAX: Final = 250  # a name is part of a subject, and a byte takes up to three characters there
AGAIN_S: Final = 0.1
READY_S: Final = 10.0

_log = logging.getLogger(__name__)


class Scope(IntEnum):
    """How far a name reaches."""

    LOCAL = 0
    EVENTUAL = 1
    CONSISTENT = 2
    STRONG = 3


class NameTaken(MeshError):
    """Raised when a name belongs to another process."""

    code = "name-taken"

    def __init__(self, name: str, pid: str) -> None:
        self.name = name
        self.pid = pid
        super().__init__(f"name already registered: {name} stands for {pid}")


class LocalNames:
    """The names of one node. Pure."""

    def __init__(self) -> None:
        self._pids: dict[str, str] = {}
        self._names: dict[str, dict[str, None]] = {}

    def get(self, name: str) -> str | None:
        """The PID behind a name."""
        return self._pids.get(name)

    def names_of(self, pid: str) -> tuple[str, ...]:
        """The names of a process."""
        return tuple(self._names.get(pid, ()))

    def register(self, name: str, pid: str) -> None:
        """Give a name. Raises NameTaken; the same again is fine."""
        holder = self._pids.get(name)
        if holder is not None and holder != pid:
            raise NameTaken(name, holder)
        self._pids[name] = pid
        self._names.setdefault(pid, {})[name] = None

    def unregister(self, name: str) -> bool:
        """Take a name away from whoever has it; whether anybody had."""
        pid = self._pids.pop(name, None)
        if pid is None:
            return False
        names = self._names[pid]
        del names[name]
        if not names:
            del self._names[pid]
        return True

    def release(self, pid: str) -> tuple[str, ...]:
        """Take all names away from a process; returns them."""
        names = tuple(self._names.pop(pid, ()))
        for name in names:
            del self._pids[name]
        return names


class MeshNames:
    """The names of the mesh, as this node sees them.

    is_alive(pid): whether the node of a PID lives. is_here(pid): whether a unit of this node is still there.
    on_change(name): something about it may have changed.
    """

    def __init__(
        self,
        conn: Connection,
        js: JetStream,
        node_id: str,
        *,
        is_alive: Callable[[ProcessPid], bool],
        is_here: Callable[[str], bool] = lambda _pid: True,
        on_change: Callable[[str], None],
        replicas: int = 1,
    ) -> None:
        self._conn = conn
        self._js = js
        self._bucket = Bucket(js, BUCKET)
        self._node_id = node_id
        self._is_alive = is_alive
        self._is_here = is_here
        self._on_change = on_change
        self._replicas = replicas
        self._seen: dict[str, tuple[str, int]] = {}  # key -> PID ("" = deleted) and revision
        self._mine: dict[str, dict[str, None]] = {}  # PID of this node -> keys
        self._dead: set[str] = set()  # PIDs that are known to have ended, though their keys may be seen a while longer
        self._taken_away: list[tuple[str, str]] = []  # PID and key
        self._uncertain: set[str] = set()  # keys that were written or are seen otherwise than expected
        self._wake = anyio.Event()

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Follow the bucket until cancelled. Ready once all names there are have been seen."""
        await self._bucket.ensure(description="Registered names of processes", replicas=self._replicas)
        follower = Follower(
            self._conn, self._js, self._bucket.stream, [f"{self._bucket.prefix}>"], 1, self._see,
            consumer_prefix=f"names-{self._node_id}",
        )  # fmt: skip
        async with anyio.create_task_group() as tasks:
            await tasks.start(follower.run)
            await follower.catch_up(READY_S)
            tasks.start_soon(self._take_back_for_ever)
            task_status.started()

    def get(self, name: str) -> str | None:
        """The PID behind a name, consistent names first; None when there is none whose node lives."""
        return self._holder(f"s.{bucket_key(name)}") or self._holder(f"e.{bucket_key(name)}")

    def holder(self, name: str, scope: Scope) -> str | None:
        """The PID behind a name of one scope."""
        return self._holder(_key(name, scope))

    async def get_fresh(self, name: str) -> str | None:
        """The same, asking the server first. Raises one of TEMPORARY when it does not answer."""
        for prefix in "se":
            key = f"{prefix}.{bucket_key(name)}"
            await self._refresh(key)
        return self.get(name)

    async def register(self, name: str, pid: str, scope: Scope) -> None:
        """Give a name to a process; waits for the server while it is away. Raises NameTaken."""
        key = _key(name, scope)
        value = json.dumps({"pid": pid}).encode()
        while True:
            await self._look_again(key)
            _, revision = self._seen.get(key, ("", 0))
            holder = self._holder(key)
            if holder == pid:
                break
            if holder is not None:
                raise NameTaken(name, holder)
            try:
                written = await self._bucket.update(key, value, revision)
            except (Conflict, *TEMPORARY):
                # Perhaps it was written all the same: then the next look shows it as ours.
                self._uncertain.add(key)
                continue
            self._note(key, pid, written)
            break
        self._mine.setdefault(pid, {})[key] = None

    async def unregister(self, name: str, pid: str, scope: Scope) -> bool:
        """Take a name away from its process, which must be `pid`; whether it had it."""
        key = _key(name, scope)
        if self._holder(key) != pid:
            self._uncertain.add(key)
            await self._look_again(key)
        if self._holder(key) != pid:
            return False
        _discard(self._mine, pid, key)
        await self._delete(key, pid)
        return True

    def has_names(self, pid: str) -> bool:
        """Whether a process of this node holds names."""
        return pid in self._mine

    def names_of(self, pid: str) -> tuple[str, ...]:
        """The mesh-wide names of a process of this node."""
        return tuple(_name(key) for key in self._mine.get(pid, ()))

    async def release(self, pid: str) -> None:
        """Take all names away from a process of this node; returns when they are free."""
        for key in list(self._mine.pop(pid, ())):
            await self._delete(key, pid)

    def forget(self, pid: str) -> None:
        """A process has ended: its names count no more, whatever is still seen of them."""
        held = [key for key, (holder, _) in self._seen.items() if holder == pid] if self._seen else ()
        if held:
            self._dead.add(pid)
            for key in held:
                self._on_change(_name(key))

    async def purge(self) -> None:
        """Delete the names of nodes that are gone. For one node of the mesh at a time; twice does no harm."""
        for key, (pid, revision) in list(self._seen.items()):
            if pid and self._holder(key) is None:
                try:
                    await self._bucket.delete(key, revision=revision)
                except (Conflict, *TEMPORARY):
                    continue

    def _holder(self, key: str) -> str | None:
        pid, _ = self._seen.get(key, ("", 0))
        if not pid or pid in self._dead:
            return None
        parsed = parse_pid(pid)
        if isinstance(parsed, ProcessPid) and not self._is_alive(parsed):
            return None
        return pid

    async def _delete(self, key: str, pid: str) -> None:
        while True:
            await self._look_again(key)
            holder, revision = self._seen.get(key, ("", 0))
            if holder != pid:
                return
            try:
                self._note(key, "", await self._bucket.delete(key, revision=revision))
            except (Conflict, *TEMPORARY):
                self._uncertain.add(key)

    async def _look_again(self, key: str) -> None:
        """If it is not certain who has a key, ask the server until it answers."""
        while key in self._uncertain:
            try:
                await self._refresh(key)
            except TEMPORARY:
                await anyio.sleep(AGAIN_S)
                await self._conn.wait_connected()
            else:
                self._uncertain.discard(key)

    async def _refresh(self, key: str) -> None:
        message = await self._js.get_last(self._bucket.stream, self._bucket.prefix + key, from_leader=True)
        if message is None:
            self._seen.pop(key, None)  # its marker is gone too
        else:
            self._note(key, "" if is_marker(message.raw_headers) else _pid_of(message.data), message.seq)

    def _see(self, message: Delivered) -> None:
        key = message.subject.removeprefix(self._bucket.prefix)
        self._note(key, "" if is_marker(message.raw_headers) else _pid_of(message.data), message.seq)

    def _note(self, key: str, pid: str, revision: int) -> None:
        before, seen = self._seen.get(key, ("", 0))
        if revision <= seen:
            return
        self._seen[key] = (pid, revision)
        if before != pid:
            self._dead.discard(before)
            if key in self._mine.get(before, ()):
                # Somebody else took it away: this node was taken for gone.
                _discard(self._mine, before, key)
                self._taken_away.append((before, key))
                self._wake.set()
        self._on_change(_name(key))

    async def _take_back_for_ever(self) -> None:
        """Register anew what others took away while this node was cut off, unless somebody has it now."""
        while True:
            await self._wake.wait()
            self._wake = anyio.Event()
            while self._taken_away:
                pid, key = self._taken_away.pop()
                if not self._is_here(pid):
                    continue
                try:
                    await self.register(_name(key), pid, Scope.EVENTUAL if key[0] == "e" else Scope.STRONG)
                except NameTaken as error:
                    _log.warning("%s has lost its name while its node was cut off: %s", pid, error)
                if not self._is_here(pid):
                    await self.release(pid)  # it has ended meanwhile


def _key(name: str, scope: Scope) -> str:
    return f"{'e' if scope is Scope.EVENTUAL else 's'}.{bucket_key(name)}"


def _name(key: str) -> str:
    return bucket_key_name(key.partition(".")[2])


def _pid_of(data: bytes) -> str:
    try:
        value: Any = json.loads(data)
    except ValueError:
        return ""
    pid = value.get("pid") if isinstance(value, dict) else None
    return pid if isinstance(pid, str) else ""


def _discard(held: dict[str, dict[str, None]], pid: str, key: str) -> None:
    keys = held.get(pid)
    if keys is not None:
        keys.pop(key, None)
        if not keys:
            del held[pid]
