"""A PostgreSQL of our own for a run: a fresh cluster on loopback with the server's default settings, and gone after it.

The defaults flush every commit (`fsync` and `synchronous_commit` are on). PostgreSQL refuses to run as root: then it
runs as the user `postgres`, or `nobody` where there is none.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from bench.servers import BenchFailed, free_ports

READY_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running cluster. url: of its database `bench`."""

    url: str
    pid: int
    version: str


@asynccontextmanager
async def running_postgres(directory: Path) -> AsyncIterator[Postgres]:
    """Make a cluster below the directory and run it while the block runs. Raises BenchFailed where there is none."""
    programs = _programs()
    data = directory / "postgres"
    data.mkdir()
    user = _user()
    if user:
        shutil.chown(data, user)
        _let_through(directory)
    as_user = ("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups") if user else ()
    name = user or pwd.getpwuid(os.getuid()).pw_name
    (port,) = free_ports(1)
    await _run([*as_user, str(programs / "initdb"), "-D", str(data / "db"), "-A", "trust", "-U", name, "-E", "UTF8"])
    log = directory / "postgres.log"
    command = [str(programs / "postgres"), "-D", str(data / "db"), "-p", str(port), "-h", "127.0.0.1", "-k", str(data)]
    with log.open("wb") as output:
        process = subprocess.Popen([*as_user, *command], stdout=output, stderr=output, cwd="/")  # noqa: ASYNC220 - at once
    try:
        admin = ["-h", "127.0.0.1", "-p", str(port), "-U", name]
        with anyio.move_on_after(READY_S):
            while process.poll() is None:
                done = await anyio.run_process([str(programs / "pg_isready"), *admin], check=False)
                if done.returncode == 0:
                    break
                await anyio.sleep(0.1)
        await _run([str(programs / "createdb"), *admin, "bench"])
        said = await anyio.run_process([str(programs / "postgres"), "--version"])
        url = f"postgresql://{name}@127.0.0.1:{port}/bench"
        yield Postgres(url, process.pid, said.stdout.decode().split()[2])
    finally:
        with anyio.CancelScope(shield=True):
            process.send_signal(2)  # SIGINT: its "fast" end
            await anyio.to_thread.run_sync(_wait, process)


def _programs() -> Path:
    """The directory of the server's programs, which Debian keeps off the path."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if debian:
        return debian[-1].parent
    found = shutil.which("postgres")
    if found is None:
        raise BenchFailed("there is no PostgreSQL here: neither `postgres` on the path nor in /usr/lib/postgresql")
    return Path(found).resolve().parent


def _user() -> str:
    """The user it runs as when we are root, else nobody's name: as ourselves."""
    if os.getuid() != 0:
        return ""
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _let_through(directory: Path) -> None:
    """A temporary directory is ours alone; the way to the cluster in it must be open to its user."""
    directory.chmod(0o711)


async def _run(command: Sequence[str]) -> None:
    done = await anyio.run_process(command, check=False, cwd="/")
    if done.returncode != 0:
        raise BenchFailed(f"{command[-1]}: {(done.stderr or done.stdout).decode(errors='replace').strip()[-300:]}")


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
