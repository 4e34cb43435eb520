"""What is done to the mesh, and when: a plan made purely from the seed, and the one who carries it out.

An action begins at a time, does something to somebody, and after a time undoes it. Kinds:

- `kill`: SIGKILL of a node; started again after the time.
- `pause`: SIGSTOP of a node, then SIGCONT; in runs that are long enough every third one is longer than a member key
  lasts (3 s), a request waits (5 s) and a follower has patience (10 s).
- `restart`: SIGTERM of a node; started again when it has left.
- `clock`: a node's wall clock jumps, by up to an hour, in either direction; later back.
- `server-kill`: SIGKILL of a server, of the stream's leader, or of all servers at once; started again after the time.
- `server-pause`: SIGSTOP of a server for a time.
- `cut`: packets from a host to others are lost: of a node from and to the servers, of a server from and to the others;
  both ways or one way.
- `slow`: the line of a host is slow.
- `disk`: a server's disk is full for a time; a server that has turned JetStream off then is started again.

Nobody is a target twice at a time, and at most one action on servers goes on at a time, so that a cluster keeps its
majority unless all are meant.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Protocol

import anyio

from tests.chaos.fleet import Fleet, Server
from tests.chaos.hosts import Hosts

NODE_KINDS: Final = ("kill", "pause", "restart", "clock")
SERVER_KINDS: Final = ("server-kill", "server-pause")
HOST_KINDS: Final = ("cut", "slow")
DISK_KINDS: Final = ("disk",)
KINDS: Final = (*NODE_KINDS, *SERVER_KINDS, *HOST_KINDS, *DISK_KINDS)
LEADER: Final = "leader"
ALL: Final = "all"
# How long each kind lasts, in seconds. A pause and a cut also last shorter than what notices them.
LASTS_S: Final[Mapping[str, tuple[float, float]]] = {
    "kill": (0.0, 5.0),
    "pause": (0.5, 8.0),
    "restart": (0.0, 0.0),
    "clock": (2.0, 10.0),
    "server-kill": (0.2, 6.0),
    "server-pause": (0.5, 8.0),
    "cut": (0.5, 10.0),
    "slow": (2.0, 8.0),
    "disk": (2.0, 6.0),
}
# Of the pauses of a node these last longer than all that is waited for between nodes and servers.
LONG_PAUSE_S: Final = (12.0, 15.0)
LONG_PAUSE_SHARE: Final = 1 / 3
JUMPS_S: Final = (-3600.0, -60.0, -5.0, -0.5, 0.5, 5.0, 60.0, 3600.0)
FIRST_AFTER_S: Final = 1.5
PAUSE_S: Final = (0.3, 3.0)
LEAVES_AFTER_S: Final = 5.0  # what is reckoned for a node that leaves
# How long before the end the last action begins and ends, so that what it breaks is seen under load.
LAST_S: Final = 1.0
# A disk has to be emptied and a server asked; a node that leaves has its own time. Nothing takes longer than that.
UNDO_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Action:
    """Something done to a target, so many seconds after the begin, for so long. how: what it needs besides."""

    at_s: float
    kind: str
    target: str
    for_s: float
    how: str = ""

    def __str__(self) -> str:
        how = f" ({self.how})" if self.how else ""
        return f"{self.at_s:6.1f} s  {self.kind:<12} {self.target:<6} for {self.for_s:.1f} s{how}"


class ActionLog(Protocol):
    """Takes down what was done."""

    def __call__(self, what: str, action: Action, **facts: Any) -> None: ...


def impossible(kinds: Sequence[str], hosts: Hosts, *, disks: bool) -> dict[str, str]:
    """Which of these kinds cannot be done here, and why."""
    why: dict[str, str] = {}
    for kind in kinds:
        if kind in HOST_KINDS and not hosts.are_apart:
            why[kind] = f"there is no network between the hosts: {hosts.why_not}"
        elif kind == "slow" and not hosts.slowness:
            why[kind] = "the kernel has neither netem nor tbf"
        elif kind in DISK_KINDS and not disks:
            why[kind] = f"no small disk can be mounted: {hosts.why_not}"
    return why


def plan(seed: int, seconds: float, nodes: Sequence[str], servers: Sequence[str], kinds: Sequence[str]) -> list[Action]:
    """What is done in so many seconds. The same for the same arguments, always."""
    dice = random.Random(f"nemesis {seed}")
    actions: list[Action] = []
    free_at: dict[str, float] = {}
    begin = FIRST_AFTER_S
    # Every kind once, in some order, before any comes again: a short run is to have them all.
    bag: list[str] = []
    while kinds and begin < seconds - LAST_S:
        if not bag:
            bag = dice.sample(kinds, len(kinds))
        kind = bag.pop()
        action = _action(dice, kind, nodes, servers, seconds)
        concerned = servers_of(action, servers)
        whose = servers if concerned else [action.target]
        at = round(max(begin, *(free_at.get(name, 0.0) for name in whose)), 2)
        # Everything is undone before the end, too.
        lasts = round(min(action.for_s, seconds - LAST_S - at), 2)
        begin += dice.uniform(*PAUSE_S)
        if lasts < 0.0:
            continue
        actions.append(replace(action, at_s=at, for_s=lasts))
        until = at + lasts + (LEAVES_AFTER_S if kind == "restart" else PAUSE_S[0])
        free_at |= dict.fromkeys(whose, until)
    return sorted(actions, key=lambda action: action.at_s)


def servers_of(action: Action, servers: Sequence[str]) -> list[str]:
    """Which servers an action may concern; none if it is about a node."""
    if action.target in (ALL, LEADER):
        return list(servers)
    return [action.target] if action.target in servers else []


def _action(dice: random.Random, kind: str, nodes: Sequence[str], servers: Sequence[str], seconds: float) -> Action:
    """Some action of a kind; its time is found later."""
    # In a short run, too, there is time for several actions.
    lasts_max = max(seconds / 3, 4.0)
    lasts = min(dice.uniform(*LASTS_S[kind]), lasts_max)
    if kind == "pause" and lasts_max >= LONG_PAUSE_S[1] and dice.random() < LONG_PAUSE_SHARE:
        lasts = dice.uniform(*LONG_PAUSE_S)
    how = ""
    match kind:
        case "server-kill":
            targets = [*servers, LEADER, LEADER, ALL] if len(servers) > 1 else list(servers)
        case "server-pause" | "disk":
            targets = list(servers)
        case "cut":
            targets = [*nodes, *(servers if len(servers) > 1 else ())]
            how = dice.choice(("both ways", "both ways", "what it sends", "what is sent to it"))
        case "slow":
            targets = [*nodes, *servers]
        case "clock":
            targets, how = list(nodes), f"{dice.choice(JUMPS_S):+g} s"
        case _:
            targets = list(nodes)
    return Action(0.0, kind, dice.choice(targets), lasts, how)


class Nemesis:
    """Carries a plan out on a fleet."""

    def __init__(self, fleet: Fleet, log: ActionLog) -> None:
        self.fleet = fleet
        self.done: list[Action] = []
        self._log = log
        self._locks: defaultdict[str, anyio.Lock] = defaultdict(anyio.Lock)

    async def carry_out(self, actions: Sequence[Action]) -> None:
        """Do all of it; returns when everything is undone. Cancelled, it undoes what it has done."""
        begun = anyio.current_time()

        async def do(action: Action) -> None:
            await anyio.sleep(begun + action.at_s - anyio.current_time())
            await self._do(action)

        async with anyio.create_task_group() as tasks:
            for action in actions:
                tasks.start_soon(do, action)

    async def _do(self, action: Action) -> None:
        # What is undone may take longer than was reckoned: a node that leaves, a server that is slow.
        servers = servers_of(action, list(self.fleet.servers))
        async with self._locks["servers" if servers else action.target]:
            await self._do_alone(action)

    async def _do_alone(self, action: Action) -> None:
        targets = await self._targets(action)
        self._log("begin", action, targets=targets)
        undo = await self._begin(action, targets)
        try:
            await anyio.sleep(action.for_s)
        finally:
            with anyio.CancelScope(shield=True), anyio.fail_after(UNDO_TIMEOUT_S):
                facts = await undo()
            self.done.append(action)
            self._log("end", action, targets=targets, **(facts or {}))

    async def _targets(self, action: Action) -> list[str]:
        if action.target == ALL:
            return list(self.fleet.servers)
        if action.target == LEADER:
            return [await self.fleet.stream_leader() or next(iter(self.fleet.servers))]
        return [action.target]

    async def _begin(self, action: Action, targets: Sequence[str]) -> Callable[[], Awaitable[dict[str, Any] | None]]:
        fleet = self.fleet
        processes = [fleet.nodes.get(name) or fleet.servers[name] for name in targets]
        match action.kind:
            case "kill" | "server-kill":
                for process in processes:
                    process.kill()

                async def start_again() -> None:
                    for process in processes:
                        await process.start()

                return start_again
            case "pause" | "server-pause":
                for process in processes:
                    process.stop()

                async def go_on() -> None:
                    for process in processes:
                        process.cont()

                return go_on
            case "restart":

                async def restart() -> dict[str, Any]:
                    return {"left_with": await processes[0].restart()}

                return restart
            case "clock":
                node = fleet.nodes[targets[0]]
                node.set_clock(float(action.how.split()[0]))

                async def set_right() -> None:
                    node.set_clock(0.0)

                return set_right
            case "cut":
                return await self._cut(targets[0], action.how)
            case "slow":
                await fleet.hosts.slow(targets[0])

                async def quicken() -> None:
                    await fleet.hosts.quicken(targets[0])

                return quicken
            case "disk":
                return await self._fill(fleet.servers[targets[0]])
            case other:
                raise ValueError(f"no kind of action is called {other}; there are {', '.join(KINDS)}")

    async def _cut(self, target: str, how: str) -> Callable[[], Awaitable[None]]:
        hosts = self.fleet.hosts
        others = [name for name in self.fleet.servers if name != target]
        out, into = [(target, other) for other in others], [(other, target) for other in others]
        pairs = {"what it sends": out, "what is sent to it": into}.get(how, out + into)
        for pair in pairs:
            await hosts.cut(*pair)

        async def heal() -> None:
            for pair in pairs:
                await hosts.heal(*pair)

        return heal

    async def _fill(self, server: Server) -> Callable[[], Awaitable[dict[str, Any]]]:
        await anyio.to_thread.run_sync(server.fill_disk)

        async def empty() -> dict[str, Any]:
            server.empty_disk()
            trouble = await server.disk_trouble()
            if not trouble:
                return {"server": "went on by itself"}
            # As an operator would: neither goes away by itself.
            server.kill()
            await server.start()
            return {"server": f"was started again: {trouble}"}

        return empty


def record_of(what: str, action: Action, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The line of `nemesis.jsonl` for the begin or the end of an action."""
    return {"at": time.time(), "what": what, **asdict(action), **facts}
