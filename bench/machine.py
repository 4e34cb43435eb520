"""Where and with what something was measured, and whether anybody else used the machine meanwhile.

A figure means nothing without it. What others use is what the kernel counts as busy for the whole machine, less what
this process and its ended children have used; so a bench must have ended its processes before it asks.
"""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
import time
import timeit
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil

from mesh.server_process import find_binary

_PACKAGES: Final = ("moonmesh", "nats-py", "lupa", "msgpack", "anyio")
# Shares of all cores; the load is per core. Above them a figure says something of somebody else.
LOAD_MAX: Final = 0.25
STEAL_MAX: Final = 0.02
OTHERS_MAX: Final = 0.05
SUBJECT: Final = "mesh.log.orders.17.order-4711.ret.12.3.1"
PIECES: Final = 5_000
REPEATS: Final = 50


def facts() -> dict[str, Any]:
    """The machine, the versions and the date, as JSON values."""
    return {
        "machine": {
            "cpu": _cpu(),
            "cpus": os.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
            "os": platform.platform(terse=True),
            "load_before": round(os.getloadavg()[0], 2),
            "disk": _disk(),
            "yardstick_ns": _yardstick_ns(),
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
    yardstick = f" (yardstick {machine['yardstick_ns']:g} ns)" if "yardstick_ns" in machine else ""
    return (
        f"{machine['cpus']} x {machine['cpu']}, {machine['memory_gb']:g} GB, {machine['os']}, {machine['disk']}; "
        f"Python {versions['python']}{yardstick}, nats-server {versions['nats-server']}, lupa {versions['lupa']}, "
        f"commit {versions['commit']}; {found['date']}"
    )


class _Clocks(NamedTuple):
    """CPU seconds since the machine was started (all, busy, stolen), what we have used, and the time."""

    total_s: float
    busy_s: float
    steal_s: float
    own_s: float
    at_s: float


@dataclass(frozen=True, slots=True)
class Quiet:
    """Whether the machine was left to the bench. load: before it; steal, others: shares of all cores, meanwhile."""

    load: float
    cores: int
    steal: float = 0.0
    others: float = 0.0
    seconds: float = 0.0

    def complaints(self) -> list[str]:
        """What was not quiet; empty when all was."""
        found = []
        if self.load > LOAD_MAX * self.cores:
            found.append(f"load {self.load:.2f} on {self.cores} cores before the run (limit {LOAD_MAX * self.cores:g})")
        if self.steal > STEAL_MAX:
            found.append(f"{self.steal:.1%} of the CPU time was stolen by the host (limit {STEAL_MAX:.0%})")
        if self.others > OTHERS_MAX:
            found.append(f"{self.others:.1%} of the CPU time went to other processes (limit {OTHERS_MAX:.0%})")
        return found

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "load_before": self.load, "steal": round(self.steal, 4), "others": round(self.others, 4),
            "seconds": round(self.seconds, 1), "complaints": self.complaints(),
        }  # fmt: skip


class Watch:
    """Watches what else the machine does from now on."""

    def __init__(self) -> None:
        self._load = round(os.getloadavg()[0], 2)
        self._begun = _clocks()

    def look(self) -> Quiet:
        """How quiet it has been so far; to be asked when no process of the bench runs any more."""
        now, begun = _clocks(), self._begun
        total_s = max(now.total_s - begun.total_s, 1e-9)
        others_s = (now.busy_s - begun.busy_s) - (now.own_s - begun.own_s)
        return Quiet(
            self._load, os.cpu_count() or 1, (now.steal_s - begun.steal_s) / total_s, max(others_s, 0.0) / total_s,
            now.at_s - begun.at_s,
        )  # fmt: skip


def conditions(quiet: Mapping[str, Any]) -> str:
    """What `Quiet.to_json` says, in a line for people."""
    return (
        f"load {quiet['load_before']:g} before; {quiet['steal']:.1%} of the CPU time stolen, "
        f"{quiet['others']:.1%} used by other processes, during {quiet['seconds']:.0f} s"
    )


def _clocks() -> _Clocks:
    times = psutil.cpu_times()
    steal_s = getattr(times, "steal", 0.0)
    idle_s = times.idle + getattr(times, "iowait", 0.0)
    # Guests are within user and nice.
    total_s = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    own = os.times()
    own_s = own.user + own.system + own.children_user + own.children_system
    return _Clocks(total_s, total_s - idle_s - steal_s, steal_s, own_s, time.monotonic())


def _disk() -> str:
    """The file system that stores are made on."""
    where = Path(tempfile.gettempdir()).resolve()
    mounts = [m for m in psutil.disk_partitions(all=True) if where.is_relative_to(m.mountpoint)]
    best = max(mounts, key=lambda m: len(m.mountpoint), default=None)
    return f"{best.fstype} on {best.device}" if best else "unknown"


def _yardstick_ns() -> float:
    """What a small piece of Python takes at the least: parting a text, an object, a look-up, calls.

    Of one Python it says how quick the machine is in this hour; of two how they were built, which no version says.
    """
    known: dict[str, object] = {}

    def piece() -> None:
        parts = SUBJECT.split(".")
        found = Quiet(float(parts[3]), int(parts[6]))
        known[f"{parts[2]}/{parts[4]}"] = found
        if known.pop("orders/order-4711", None) is not found:
            raise AssertionError

    return round(min(timeit.repeat(piece, number=PIECES, repeat=REPEATS)) / PIECES * 1e9)


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
