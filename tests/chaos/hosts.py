"""Hosts for the processes of a chaos run: network namespaces with a router between them, or just the loopback.

    if hosts.may_be_private():
        hosts.become_private()             # once, first thing in the program: it starts anew in namespaces of its own
    async with hosts.some_hosts(["n1", "s1"]) as found:
        command = found.on("n1", ["python", "-m", "node", ...])
        await found.cut("n1", "s1")        # n1's packets to s1 are lost from now on
        await found.heal("n1", "s1")

The program itself sits on the router and reaches every host. A cut is a rule of the router for one direction: packets
vanish, nobody is told, connections stay open until somebody's patience ends, as with a pulled cable.

Nothing has a name on the machine: the router is a network namespace that lives as long as our process, a host one that
is held by a process tied to ours, mounts are in a mount namespace of our own. So nothing is left behind, however we end.
Without the rights or the tools for that, all hosts are the loopback and what needs a network says so.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

import anyio

from tests.servers import tied_to_us
from tests.waiting import wait_until

TOOLS: Final = ("unshare", "nsenter", "ip", "tc", "mount", "umount")
LOOPBACK: Final = "127.0.0.1"
# Holds the name of the network namespace that the program was in before it got its own.
BEFORE: Final = "MESH_CHAOS_BEFORE"
# As root; else as root of a user namespace, where the system allows that.
WAYS: Final = (("unshare", "--net", "--mount"), ("unshare", "--user", "--map-root-user", "--net", "--mount"))
# What a slow line is like, where the kernel can do it (netem): packets are late, unevenly so, and some are lost.
NETEM: Final = ("netem", "delay", "80ms", "40ms", "loss", "1%")
# Where it cannot: a narrow line, whose packets queue for up to half a second and are dropped beyond that.
NARROW: Final = ("tbf", "rate", "400kbit", "burst", "4kb", "latency", "500ms")


def network_namespace() -> str:
    """The name of the network namespace that we are in."""
    try:
        return os.readlink("/proc/self/ns/net")
    except OSError:
        return ""


def is_private() -> bool:
    """Whether we are in namespaces of our own."""
    before = os.environ.get(BEFORE)
    return bool(before) and before != network_namespace()


@functools.cache
def _way() -> tuple[str, ...] | None:
    if any(shutil.which(tool) is None for tool in TOOLS):
        return None
    for way in WAYS:
        # All that is needed later, in short: a pair of interfaces, a rule, a mount.
        trial = (
            "ip link set lo up && ip link add t0 type veth peer name t1 && ip rule add from 10.0.0.1 blackhole"
            " && mount -t tmpfs none /mnt && echo 1 > /proc/sys/net/ipv4/ip_forward"
        )
        if subprocess.run([*way, "sh", "-c", trial], capture_output=True, check=False).returncode == 0:
            return way
    return None


def may_be_private() -> bool:
    """Whether we could go into namespaces of our own: the tools are there and the system lets us."""
    return _way() is not None


def become_private() -> NoReturn:
    """Start this program anew, with its arguments and under its process id, in a network and a mount namespace of its own."""
    way = _way()
    if way is None:
        raise RuntimeError("no namespaces can be made here; ask may_be_private() before")
    command = [*way, sys.executable, *_own_arguments()]
    os.execvpe(command[0], command, os.environ | {BEFORE: network_namespace()})


def _own_arguments() -> list[str]:
    # `python -m tests.chaos --seed 1` is in sys.argv as the path of __main__.py; the original has the module.
    return sys.orig_argv[1:]


@dataclass(slots=True)
class Hosts:
    """The hosts of a run, by name. This one is the loopback: everything is on one host, and nothing can be cut.

    why_not: why there is no network between the hosts, "" when there is one. slowness: how a line is made slow, "" if
    it cannot be.
    """

    names: tuple[str, ...]
    why_not: str = ""
    slowness: str = ""

    @property
    def are_apart(self) -> bool:
        """Whether there is a network between the hosts."""
        return False

    def address(self, name: str) -> str:
        """The address of a host, as the others and we reach it."""
        self._check(name)
        return LOOPBACK

    def on(self, name: str, command: Sequence[str]) -> list[str]:
        """The command that runs a command on a host, tied to us."""
        self._check(name)
        return tied_to_us(*command)

    async def cut(self, source: str, target: str) -> None:
        """From now on what source sends to target is lost."""
        raise NotImplementedError(self.why_not)

    async def heal(self, source: str, target: str) -> None:
        """Undo a cut."""
        raise NotImplementedError(self.why_not)

    async def slow(self, name: str) -> None:
        """From now on the line of a host is slow, in both directions."""
        raise NotImplementedError(self.why_not)

    async def quicken(self, name: str) -> None:
        """Undo a slow line."""
        raise NotImplementedError(self.why_not)

    def _check(self, name: str) -> None:
        if name not in self.names:
            raise KeyError(f"no host {name}; there are {', '.join(self.names)}")


@dataclass(slots=True)
class PrivateHosts(Hosts):
    """Hosts that are network namespaces, each with a line to the router, in whose namespace we are."""

    pids: dict[str, int] = field(default_factory=dict)

    @property
    def are_apart(self) -> bool:
        return True

    def address(self, name: str) -> str:
        return f"10.77.{self._number(name)}.2"

    def on(self, name: str, command: Sequence[str]) -> list[str]:
        return [*self._entering(name), *tied_to_us(*command)]

    async def cut(self, source: str, target: str) -> None:
        await _run("ip", "rule", "add", *self._rule(source, target))

    async def heal(self, source: str, target: str) -> None:
        await _run("ip", "rule", "del", *self._rule(source, target))

    async def slow(self, name: str) -> None:
        shape = NETEM if self.slowness == "netem" else NARROW
        await _run("tc", "qdisc", "replace", "dev", self._line(name), "root", *shape)
        await _run(*self._entering(name), "tc", "qdisc", "replace", "dev", "eth0", "root", *shape)

    async def quicken(self, name: str) -> None:
        await _run("tc", "qdisc", "del", "dev", self._line(name), "root")
        await _run(*self._entering(name), "tc", "qdisc", "del", "dev", "eth0", "root")

    async def lay_lines(self) -> None:
        """Join every host to the router."""
        await _run("ip", "link", "set", "lo", "up")
        await _run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        for name, pid in self.pids.items():
            line, inside = self._line(name), self._entering(name)
            router = f"10.77.{self._number(name)}.1"
            await _run("ip", "link", "add", line, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
            await _run("ip", "address", "add", f"{router}/30", "dev", line)
            await _run("ip", "link", "set", line, "up")
            await _run(*inside, "ip", "address", "add", f"{self.address(name)}/30", "dev", "eth0")
            await _run(*inside, "ip", "link", "set", "eth0", "up")
            await _run(*inside, "ip", "link", "set", "lo", "up")
            await _run(*inside, "ip", "route", "add", "default", "via", router)

    async def find_slowness(self) -> None:
        """Find out what this kernel can do to make a line slow."""
        for kind, shape in (("netem", NETEM), ("tbf", NARROW)):
            if await _succeeds("tc", "qdisc", "add", "dev", "lo", "root", *shape):
                await _run("tc", "qdisc", "del", "dev", "lo", "root")
                self.slowness = kind
                return

    def _number(self, name: str) -> int:
        self._check(name)
        return 1 + self.names.index(name)

    def _line(self, name: str) -> str:
        return f"to-{name}"

    def _entering(self, name: str) -> list[str]:
        self._check(name)
        return ["nsenter", f"--net=/proc/{self.pids[name]}/ns/net"]

    def _rule(self, source: str, target: str) -> list[str]:
        pair = f"{self._number(source) * 100 + self._number(target)}"
        return ["priority", pair, "from", self.address(source), "to", self.address(target), "blackhole"]


@asynccontextmanager
async def some_hosts(names: Sequence[str]) -> AsyncIterator[Hosts]:
    """Hosts of these names while the block runs: apart if `become_private` was called, else all of them the loopback."""
    if not is_private():
        missing = ", ".join(tool for tool in TOOLS if shutil.which(tool) is None)
        why_not = f"{missing} missing" if missing else "no network namespace may be made here"
        yield Hosts(tuple(names), "it was not asked for" if may_be_private() else why_not)
        return
    hosts = PrivateHosts(tuple(names))
    holders = [_holder() for _ in names]
    try:
        hosts.pids |= {name: holder.pid for name, holder in zip(names, holders, strict=True)}
        ours = network_namespace()
        await wait_until(lambda: all(_is_elsewhere(pid, ours) for pid in hosts.pids.values()))
        await hosts.lay_lines()
        await hosts.find_slowness()
        yield hosts
    finally:
        for holder in holders:
            holder.kill()
            holder.wait()


def _holder() -> subprocess.Popen[bytes]:
    """Somebody in a network namespace of his own: it is there as long as somebody is in it."""
    return subprocess.Popen(tied_to_us("unshare", "--net", "sleep", "infinity"), start_new_session=True)


def _is_elsewhere(pid: int, ours: str) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/ns/net") != ours
    except OSError:
        return False


async def mount_small_disk(directory: Path, megabytes: int) -> None:
    """A disk of that size at a directory, in our mount namespace: gone with us. Only when `is_private()`."""
    await _run("mkdir", "-p", str(directory))
    await _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "chaos", str(directory))


async def unmount(directory: Path) -> None:
    """Take a disk away, however busy it is."""
    await _run("umount", "--lazy", str(directory))


async def _run(*command: str, environ: Mapping[str, str] | None = None) -> None:
    done = await anyio.run_process(command, check=False, env=environ)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.decode().strip()} (status {done.returncode})")


async def _succeeds(*command: str) -> bool:
    return (await anyio.run_process(command, check=False)).returncode == 0
