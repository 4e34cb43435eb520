"""The embedded nats-server: one child process on one store directory, kept alive as long as we want it.

    async with embedded_server(Path("data"), port=0) as server:
        connect(server.url)

Also a program of its own, `python -m mesh.server STORE_DIR`, which prints the URL once the server is ready and ends
on SIGTERM or SIGINT.

Not here: clusters, accounts, TLS (run your own servers for those). The process is `mesh.server_process`, whose the
directory is and what is in it `mesh.server_store`.

Invariants: the URL stays the same over restarts, and whoever has the URL of a ready server can use JetStream at once.
Where a server outlives whoever started it (not on Linux), `find_running` finds it, and a second start raises
StoreInUse.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import anyio
import anyio.to_thread

from mesh.errors import MeshError, ServerFailed
from mesh.groups import unwrapped
from mesh.server_probe import ready_server_at
from mesh.server_process import ServerProcess, ending
from mesh.server_store import lock_store, make_directory, read_running
from mesh.sync import ALWAYS, SYNCS, Sync

DEFAULT_PORT = 4222

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


class EmbeddedServer:
    """A server that is ready, as `embedded_server` yields it."""

    def __init__(self, child: ServerProcess, restarts: RestartPolicy) -> None:
        self._child = child
        self._policy = restarts
        self._deaths: list[float] = []

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

    async def _supervise(self) -> NoReturn:
        while True:
            code = await self._child.wait()
            problem = f"nats-server pid {self.pid} on {self._child.store_dir} {ending(code)}"
            while True:
                now = anyio.current_time()
                self._deaths.append(now)
                delay_s = self._policy.delay_s(self._deaths, now)
                if delay_s is None:
                    raise ServerFailed(
                        f"{problem}; gave up after {len(self._deaths)} deaths, too many within "
                        f"{self._policy.period_s:g} s; see {self._child.log_file}"
                    )
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
    sync: Sync = ALWAYS,
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
    store_dir = await anyio.to_thread.run_sync(make_directory, store_dir)
    lock = await lock_store(store_dir)
    child = ServerProcess(store_dir, lock.server_fd, host, port, sync, log_file or store_dir / "server.log")
    server = EmbeddedServer(child, restarts)
    try:
        await child.start()
        _log.info("nats-server is ready at %s as pid %d on %s", server.url, server.pid, store_dir)
        with unwrapped():
            async with anyio.create_task_group() as tg:
                tg.start_soon(server._supervise)
                try:
                    yield server
                finally:
                    tg.cancel_scope.cancel()
    finally:
        await child.stop()
        # Last of all: now the store is free for others.
        lock.close()


async def find_running(store_dir: Path) -> str | None:
    """Return the URL of the server that serves this store now, None when there is none or it does not answer.

    The record in the store may be left from a server that was killed, so the server itself is asked for its id.
    """
    running = await anyio.to_thread.run_sync(read_running, store_dir)
    if running is None:
        return None
    return running.url if await ready_server_at(running.host, running.port) == running.server_id else None


async def _serve(arguments: argparse.Namespace) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals, unwrapped():
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
    parser.add_argument("--sync", choices=SYNCS, default=ALWAYS, help="default: %(default)s")
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
