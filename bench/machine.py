"""Where and with what something was measured: a figure means nothing without it."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from mesh.server import find_binary

_PACKAGES = ("moonmesh", "nats-py", "lupa", "msgpack", "anyio")


def facts() -> dict[str, Any]:
    """The machine, the versions and the date, as JSON values."""
    return {
        "machine": {
            "cpu": _cpu(),
            "cpus": os.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
            "os": platform.platform(terse=True),
            "load_before": round(os.getloadavg()[0], 2),
        },
        "versions": {
            "python": platform.python_version(),
            "nats-server": _server_version(),
            **{name: _version(name) for name in _PACKAGES},
            "commit": _commit(),
        },
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def one_line(found: dict[str, Any]) -> str:
    """The same in a line for people."""
    machine, versions = found["machine"], found["versions"]
    return (
        f"{machine['cpus']} x {machine['cpu']}, {machine['memory_gb']:g} GB, {machine['os']}, "
        f"load {machine['load_before']:g} before; Python {versions['python']}, nats-server {versions['nats-server']}, "
        f"commit {versions['commit']}; {found['date']}"
    )


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _server_version() -> str:
    said = subprocess.run([find_binary(), "--version"], capture_output=True, text=True, check=False)
    return said.stdout.strip().rpartition("v")[2]


def _commit() -> str:
    here = Path(__file__).parent
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, check=False
        )
    except OSError:
        return "unknown"
    return said.stdout.strip() or "unknown"
