"""An environment for each engine, in a cache directory: made once, with the versions that are named here.

Not in the project's own environment: engines disagree on versions, and nobody who uses the project needs them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CACHE_VARIABLE: Final = "MESH_BENCH_CACHE"
INSTALL_S: Final = 300.0
_STAMP: Final = "installed.json"


class NotInstalled(Exception):
    """Raised when the packages of an engine cannot be had; the message is what the installer said."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What an engine needs. python, node: requirements as pip and npm take them."""

    name: str
    python: Sequence[str]
    node: Sequence[str] = ()

    def versions(self) -> str:
        """The packages that the engine is, for people."""
        return ", ".join([*self.python, *self.node])


@dataclass(frozen=True, slots=True)
class Installed:
    """Where an environment is."""

    directory: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.directory / "bin" / "python"

    def program(self, name: str) -> Path:
        """A program that one of its packages brings."""
        beside = self.directory / "bin" / name
        return beside if beside.exists() else self.directory / "node_modules" / ".bin" / name


def cache_directory() -> Path:
    """Where environments are kept."""
    if CACHE_VARIABLE in os.environ:
        return Path(os.environ[CACHE_VARIABLE])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "moonmesh-bench"


def ensure(wanted: Environment, progress: Callable[[str], None]) -> Installed:
    """Make an environment, or take the one that is there with the same packages. Raises NotInstalled."""
    directory = cache_directory() / wanted.name
    stamp = directory / _STAMP
    packages = json.dumps([*wanted.python, *wanted.node])
    if stamp.exists() and stamp.read_text("utf-8") == packages:
        return Installed(directory)
    progress(f"installing {wanted.versions()} into {directory}")
    shutil.rmtree(directory, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(directory)])
    _run([str(directory / "bin" / "python"), "-m", "pip", "install", "--quiet", *wanted.python])
    if wanted.node:
        _run(["npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix", str(directory), *wanted.node])
    stamp.write_text(packages, "utf-8")
    return Installed(directory)


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalled(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise NotInstalled(f"{' '.join(command[:4])} ...: exit {done.returncode}: {' / '.join(said)}")
