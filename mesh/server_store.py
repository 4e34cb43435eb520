"""The directory of an embedded server: who has it, and what the server says of itself there.

In it are `jetstream/` (the data), `server.conf`, `server.log` (unless told otherwise), `server.lock`, `starter.lock`,
and while a server is ready `server.json`, the record of it.

Not here: starting and ending servers (`mesh.server_process`), asking whether a recorded one lives (`mesh.server`).

Invariant: never two servers on one store. An flock on `server.lock` is inherited by the server itself, so it lasts
exactly as long as the server process, whatever becomes of us. We hold it too, which covers the moment between the death
of a server and its successor. (flock on a network file system may not be inherited: keep stores on local disks.)
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from mesh.errors import ServerFailed, StoreInUse
from mesh.stores import STORE_VARIABLE, STORES

# How long a server whose starter was killed may take to go before its store counts as in use.
ORPHAN_TIMEOUT_S = 10.0
# There is no notice for "lock released"; it is looked at this often.
LOCK_INTERVAL_S = 0.01
LOG_TAIL_BYTES_MAX = 16 * 1024


@dataclass(frozen=True, slots=True)
class Running:
    """The record in `server.json`: which server serves the store. Believed only after asking the server itself."""

    url: str
    host: str
    port: int
    pid: int
    server_id: str
    started_by: int


def stores_here() -> list[Path]:
    """Where the server of whoever started this process keeps its data, and those of meshes of this directory."""
    found = [Path(told)] if (told := os.environ.get(STORE_VARIABLE)) else []
    with suppress(OSError), os.scandir(STORES) as entries:
        found += sorted(Path(entry.path) for entry in entries if entry.is_dir())
    return found


async def sync_of(server_id: str, stores: Sequence[Path]) -> str | None:
    """The `sync_interval` of the embedded server with this id, if it serves one of these stores; None when it does not.

    By the id that the server says of itself: it has more than one address, `localhost` for one.
    """
    for store_dir in stores:
        running = await anyio.to_thread.run_sync(read_running, store_dir)
        if running is not None and running.server_id == server_id:
            with suppress(OSError, UnicodeDecodeError):
                text = await anyio.Path(store_dir / "server.conf").read_text(encoding="utf-8")
                found = re.search(r'^\s*sync_interval: "(\S+)"$', text, re.MULTILINE)
                return found[1] if found else None
    return None


def make_directory(store_dir: Path) -> Path:
    """Make a store directory where there is none; return it as an absolute path. Raises ServerFailed."""
    try:
        store_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ServerFailed(f"cannot use {store_dir} as a store: {error}") from error
    return store_dir.resolve()


@dataclass(frozen=True, slots=True)
class StoreLock:
    """Two locks: `server.lock` says that the store has a server, `starter.lock` that whoever started it lives.

    The second one is ours alone. Asking for the life of a process by its id would take a zombie, or another program
    that has got the same id since, for the starter.
    """

    server_fd: int
    starter_fd: int

    def close(self) -> None:
        """Let others have the store."""
        os.close(self.starter_fd)
        os.close(self.server_fd)


async def lock_store(store_dir: Path) -> StoreLock:
    """Take the store. A server that is about to end because its starter was killed is waited for."""
    deadline = anyio.current_time() + ORPHAN_TIMEOUT_S
    while True:
        lock = await anyio.to_thread.run_sync(_lock_nowait, store_dir)
        if lock is not None:
            return lock
        is_orphan = sys.platform == "linux" and await anyio.to_thread.run_sync(_has_no_starter, store_dir)
        if not is_orphan or anyio.current_time() > deadline:
            running = await anyio.to_thread.run_sync(read_running, store_dir)
            who = (
                f"nats-server pid {running.pid} at {running.url}, started by process {running.started_by}"
                if running
                else "a server that is just starting or stopping"
            )
            raise StoreInUse(f"{store_dir} is in use by {who}; connect to that one, stop it, or use another directory")
        await anyio.sleep(LOCK_INTERVAL_S)


def _lock_nowait(store_dir: Path) -> StoreLock | None:
    try:
        server_fd = _flock(store_dir / "server.lock", fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            # Not for long, if at all: others hold it just to see whether they can.
            starter_fd = _flock(store_dir / "starter.lock", fcntl.LOCK_EX)
        except BaseException:
            os.close(server_fd)
            raise
    except BlockingIOError:
        return None
    except OSError as error:
        raise ServerFailed(f"cannot lock {store_dir}: {error}") from error
    return StoreLock(server_fd, starter_fd)


def _has_no_starter(store_dir: Path) -> bool:
    """Tell whether nobody has `starter.lock`. So it is for a moment in a start, too: ask again."""
    try:
        os.close(_flock(store_dir / "starter.lock", fcntl.LOCK_SH | fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def _flock(path: Path, how: int) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(fd, how)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_running(store_dir: Path) -> Running | None:
    """The record of who serves the store; None where there is none that can be read."""
    try:
        return Running(**json.loads((store_dir / "server.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        # None there, or not one of ours: both mean that we do not know of a server.
        return None


def write_running(store_dir: Path, running: Running) -> None:
    """Write down who serves the store."""
    # Readers see the old record or the new one, never half of one.
    draft = store_dir / "server.json.new"
    draft.write_text(json.dumps(asdict(running)) + "\n", encoding="utf-8")
    draft.replace(store_dir / "server.json")


def clear_records(store_dir: Path) -> None:
    """Remove what a server that is gone has said of itself. A server that was killed leaves its ports file."""
    for path in (store_dir / "server.json", *store_dir.glob("*.ports")):
        path.unlink(missing_ok=True)


def read_port(store_dir: Path, pid: int) -> int | None:
    """Return the port from the server's ports file, None when it is not there or not complete yet."""
    for path in store_dir.glob(f"*_{pid}.ports"):
        with suppress(OSError, ValueError, LookupError):
            return int(json.loads(path.read_bytes())["nats"][0].rpartition(":")[2])
    return None


def last_words(log_file: Path, log_at: int) -> str:
    """Return why the server ended: its fatal line or errors, else the last thing it said."""
    try:
        with log_file.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(log_at if log_at <= end else 0, end - LOG_TAIL_BYTES_MAX))
            lines = log.read().decode("utf-8", "replace").splitlines()
    except OSError as error:
        return f"no log: {error}"
    lines = [line.strip() for line in lines if line.strip()]
    grave = [line.partition(mark)[2] for mark in ("[FTL] ", "[ERR] ") for line in lines if mark in line]
    return (grave or lines[-1:] or ["it said nothing"])[0]


def server_name(store_dir: Path) -> str:
    """Return a name that tells stores apart and stays the same over restarts."""
    return f"mesh-{hashlib.blake2b(os.fsencode(store_dir), digest_size=4).hexdigest()}"
