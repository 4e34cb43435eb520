"""The processes of the demo: three nodes and a shipping service. They end with the block, however it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.abc

from examples.orders.backoffice import ledger

APP = Path(__file__).resolve().parent
ROOT = APP.parent.parent
NODES = ("alice", "bob", "carol")
STOP_S = 5.0
LAST_LINES = 8


class ChildEnded(Exception):
    """Raised when a process has ended by itself."""


@dataclass
class Children:
    """The processes by name. Each writes its log into a file of its own."""

    directory: Path
    environment: Mapping[str, str]
    running: dict[str, anyio.abc.Process] = field(default_factory=dict)

    @property
    def ledger(self) -> Path:
        """The file in which the functions keep their books."""
        return Path(self.environment[ledger.ENVIRONMENT])

    def pid(self, name: str) -> int:
        """Return the process id of one that runs."""
        return self.running[name].pid

    async def start(self, name: str, command: list[str]) -> None:
        """Start one. In a session of its own, so that Ctrl-C reaches us alone and we end them in order."""
        with self._log(name).open("wb") as log:
            self.running[name] = await anyio.open_process(
                command, cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def check(self) -> None:
        """Raise ChildEnded when one has ended by itself."""
        for name, process in self.running.items():
            if process.returncode is not None:
                raise ChildEnded(f"{name} ended by itself with exit code {process.returncode}")

    def kill(self, name: str) -> int:
        """Send SIGKILL to one; return when that was, as Unix time in ns."""
        at_ns = time.time_ns()
        self.running[name].kill()
        return at_ns

    async def ended(self, name: str) -> int:
        """Wait until one that was killed has ended; return how, a signal as its negative number."""
        return await self.running.pop(name).wait()

    async def stop(self) -> None:
        """End all of them, by force if need be."""
        for process in self.running.values():
            with suppress(ProcessLookupError):
                process.terminate()
        for process in self.running.values():
            with anyio.move_on_after(STOP_S):
                await process.wait()
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def last_words(self) -> str:
        """Return the end of every log."""
        return "\n".join(
            f"{file.stem}: {line}"
            for file in sorted(self.directory.glob("*.log"))
            for line in file.read_text(errors="replace").splitlines()[-LAST_LINES:]
        )

    def _log(self, name: str) -> Path:
        return self.directory / f"{name}.log"


def node_command(url: str, name: str) -> list[str]:
    """Return the command that runs a node."""
    return [sys.executable, "-m", "node", "node", str(APP), "--nats", url, "--no-context", "--id", name]


@asynccontextmanager
async def running_children(directory: Path, url: str) -> AsyncIterator[Children]:
    """Start the nodes and the shipping service; end them however the block ends."""
    # The demo has its own mesh, whatever the shell says of another.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("NATS_", "MESH_"))}
    environment |= {"NATS_URL": url, ledger.ENVIRONMENT: str(directory / "ledger.jsonl")}
    children = Children(directory, environment)
    try:
        await children.start("shipping", [sys.executable, str(APP / "shipping_service.py")])
        for name in NODES:
            await children.start(name, node_command(url, name))
        yield children
    finally:
        with anyio.CancelScope(shield=True):
            await children.stop()
