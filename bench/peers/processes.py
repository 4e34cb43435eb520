"""Processes of other engines: started with what they need, and ended whatever happens."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

import anyio
import anyio.to_thread
import psutil

from bench.processes import ROOT

END_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Program:
    """A command, what is added to its environment, and the sockets it inherits."""

    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    sockets: Sequence[int] = ()

    def with_arguments(self, *arguments: str) -> Program:
        """The same with more arguments."""
        return Program([*self.command, *arguments], self.environment, self.sockets)


@asynccontextmanager
async def running(
    program: Program, log: Path, *, effects: Path | None = None, output: int | None = None
) -> AsyncIterator[subprocess.Popen[bytes]]:
    """Run a program while the block runs. effects: where its steps log. output: subprocess.PIPE to read its output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("NATS_", "MESH_", "PG"))}
    environment |= program.environment
    if effects is not None:
        environment["BENCH_EFFECTS"] = str(effects)
    with log.open("ab") as errors:
        process = subprocess.Popen(  # noqa: ASYNC220 - returns at once
            program.command,
            stdin=subprocess.PIPE,
            stdout=errors if output is None else output,
            stderr=errors,
            cwd=ROOT,
            env=environment,
            pass_fds=program.sockets,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(_end, process)


def cpu_s(pid: int) -> float:
    """CPU time of a process and its children, those that have ended included."""
    try:
        process = psutil.Process(pid)
        every = [process, *process.children(recursive=True)]
        return float(sum(sum(p.cpu_times()[:4]) for p in every))
    except psutil.NoSuchProcess:
        return 0.0


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    pipes: list[IO[bytes] | None] = [process.stdin, process.stdout]
    for pipe in pipes:
        if pipe is not None:
            pipe.close()
