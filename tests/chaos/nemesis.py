"""What is done to the mesh, and when: a plan made purely from the seed, and the one who carries it out.

An action begins at a time, does something to somebody, and after a time undoes it. Kinds:

- `kill`: SIGKILL of a node; started again after the time.
- `pause`: SIGSTOP of a node, then SIGCONT; in runs that are long enough every third one is longer than a member key
  lasts (3 s), a request waits (5 s) and a follower has patience (10 s).
- `restart`: SIGTERM of a node; started again when it has left.
- `clock`: a node's wall clock jumps, by up to an hour, in either direction; later back.
- `stutter`: a node is stopped and goes on again and again, as on a machine that has too much to do.
- `handover`: two nodes, one after the other: whoever takes over from the first dies with that half done.
- `server-kill`: SIGKILL of a server, of the stream's leader, or of all servers at once; started again after the time.
- `server-pause`: SIGSTOP of a server for a time.
- `server-stutter`: the same as of a node; towards the mesh this is a slow disk, too.
- `roll`: all nodes, or all servers, are restarted one after the other, each when the one before is well again.
- `store-loss`: a server of a cluster comes back with an empty disk, and has all from the others.
- `step-down`: who leads a stream, or the cluster, is told to let another one lead.
- `consumers`: all consumers are deleted on the servers, those that nodes follow streams by and those of message queues.
- `cut`: packets from a host to others are lost: of a node from and to the servers, of a server from and to the others;
  both ways or one way.
- `slow`: the line of a host is slow.
- `disk`: a server's disk is full for a time; a server that has turned JetStream off then is started again.

Nobody is a target twice at a time, and at most one action on servers goes on at a time, so that a cluster keeps its
majority unless all are meant. A store is lost only when the others are known to have all that it had, and they elect a
leader among themselves before it is back: a cluster promises nothing beyond that.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Protocol

import anyio

from mesh.errors import MeshError, NotFound
from mesh.jetstream import JetStream
from tests.chaos.fleet import Fleet, Process, Server
from tests.chaos.hosts import Hosts
from tests.waiting import wait_until_async

NODE_KINDS: Final = ("kill", "pause", "restart", "clock", "stutter", "handover")
SERVER_KINDS: Final = ("server-kill", "server-pause", "server-stutter", "consumers")
BOTH_KINDS: Final = ("roll",)
CLUSTER_KINDS: Final = ("store-loss", "step-down")
HOST_KINDS: Final = ("cut", "slow")
DISK_KINDS: Final = ("disk",)
KINDS: Final = (*NODE_KINDS, *SERVER_KINDS, *BOTH_KINDS, *CLUSTER_KINDS, *HOST_KINDS, *DISK_KINDS)
LEADER: Final = "leader"
ALL: Final = "all"
ALL_NODES: Final = "nodes"
# Between the two nodes of a handover.
AND: Final = "+"
# How long each kind lasts, in seconds. A pause and a cut also last shorter than what notices them.
LASTS_S: Final[Mapping[str, tuple[float, float]]] = {
    "kill": (0.0, 5.0),
    "pause": (0.5, 8.0),
    "restart": (0.0, 0.0),
    "clock": (2.0, 10.0),
    "stutter": (3.0, 12.0),
    "handover": (0.0, 3.0),
    "server-kill": (0.2, 6.0),
    "server-pause": (0.5, 8.0),
    "server-stutter": (2.0, 8.0),
    "roll": (0.0, 0.0),
    "store-loss": (1.0, 4.0),
    "step-down": (0.0, 0.0),
    "consumers": (0.0, 0.0),
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
# What stutters stands still for so long, and then runs for so long: below and above how long a ping waits (0.2 s), how
# often a node renews its member key (0.8 s), and how long that lasts (3 s).
STUTTER_STOPS_S: Final = (0.1, 0.5, 1.2, 2.9, 3.3)
STUTTER_RUNS_S: Final = (0.01, 0.05, 0.3, 1.0)
# How long after the first node of a handover the second one dies: a neighbour notices within 0.1 s and claims at once,
# a node that leaves has its claims released within a second.
HEIR_DIES_S: Final = (0.05, 1.5)
HANDOVERS: Final = ("the first dies", "the first leaves", "the first leaves and dies meanwhile")
# How long before the end the last action begins and ends, so that what it breaks is seen under load.
LAST_S: Final = 1.0
# A disk has to be emptied and a server asked, a server fetches all from the others, nodes that leave have their own
# time. Nothing takes longer than that.
UNDO_TIMEOUT_S: Final = 120.0
# What is reckoned for one that is restarted in a roll, and for a server that fetches all from the others.
ROLL_S: Final = 3.0
FETCH_S: Final = 8.0
# Another action may be what keeps it from being well: then the roll goes on after this.
WELL_AGAIN_S: Final = 10.0
OTHERS_WELL_S: Final = 10.0
FETCH_TIMEOUT_S: Final = 90.0
API_TIMEOUT_S: Final = 5.0


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


def impossible(kinds: Sequence[str], hosts: Hosts, *, nodes: int, servers: int, disks: bool) -> dict[str, str]:
    """Which of these kinds cannot be done here, and why."""
    why: dict[str, str] = {}
    for kind in kinds:
        if kind in HOST_KINDS and not hosts.are_apart:
            why[kind] = f"there is no network between the hosts: {hosts.why_not}"
        elif kind == "slow" and not hosts.slowness:
            why[kind] = "the kernel has neither netem nor tbf"
        elif kind in DISK_KINDS and not disks:
            why[kind] = f"no small disk can be mounted: {hosts.why_not}"
        elif kind in CLUSTER_KINDS and servers < 3:
            why[kind] = "a server that stands alone has the only copy"
        elif kind == "handover" and nodes < 2:
            why[kind] = "there is nobody to take over"
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
        whose = servers if concerned else nodes_of(action, nodes)
        at = round(max(begin, *(free_at.get(name, 0.0) for name in whose)), 2)
        # Everything is undone before the end, too.
        lasts = round(min(action.for_s, seconds - LAST_S - at), 2)
        begin += dice.uniform(*PAUSE_S)
        if lasts < 0.0:
            continue
        actions.append(replace(action, at_s=at, for_s=lasts))
        until = at + lasts + _reckoned_s(action, len(whose))
        free_at |= dict.fromkeys(whose, until)
    return sorted(actions, key=lambda action: action.at_s)


def servers_of(action: Action, servers: Sequence[str]) -> list[str]:
    """Which servers an action may concern; none if it is about a node."""
    if action.target in (ALL, LEADER):
        return list(servers)
    return [action.target] if action.target in servers else []


def nodes_of(action: Action, nodes: Sequence[str]) -> list[str]:
    """Which nodes an action is about; none if it is about servers."""
    return list(nodes) if action.target == ALL_NODES else [n for n in action.target.split(AND) if n in nodes]


def _reckoned_s(action: Action, count: int) -> float:
    """How long it may take until those whom an action concerns are well again, once it is over."""
    match action.kind:
        case "restart" | "handover":
            return LEAVES_AFTER_S
        case "roll":
            return ROLL_S * count
        case "store-loss":
            return FETCH_S
        case _:
            return PAUSE_S[0]


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
        case "store-loss":
            targets = [*servers, LEADER, LEADER]
        case "roll":
            targets = [ALL_NODES, ALL]
        case "step-down" | "consumers":
            targets = [ALL]
        case "stutter" | "server-stutter":
            targets = list(nodes if kind == "stutter" else servers)
            how = f"{dice.choice(STUTTER_STOPS_S):g} s still, {dice.choice(STUTTER_RUNS_S):g} s on"
        case "handover":
            targets = [AND.join(dice.sample(nodes, 2))]
            how = f"{dice.uniform(*HEIR_DIES_S):.2f} s between, {dice.choice(HANDOVERS)}"
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

    def __init__(self, fleet: Fleet, js: JetStream, log: ActionLog) -> None:
        self.fleet = fleet
        self._js = js
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
        whose = ["servers"] if servers else sorted(nodes_of(action, list(self.fleet.nodes)))
        async with AsyncExitStack() as locks:
            for name in whose:  # all take them in this order
                await locks.enter_async_context(self._locks[name])
            await self._do_alone(action)

    async def _do_alone(self, action: Action) -> None:
        targets = await self._targets(action)
        self._log("begin", action, targets=targets)
        undo = await self._begin(action, targets)
        try:
            await self._last(action, targets)
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
        if action.target in self.fleet.servers:
            return [action.target]
        if action.target == ALL_NODES:
            return list(self.fleet.nodes)
        return action.target.split(AND)

    async def _last(self, action: Action, targets: Sequence[str]) -> None:
        """Let the time of an action pass."""
        if action.kind not in ("stutter", "server-stutter"):
            return await anyio.sleep(action.for_s)
        process = self._process(targets[0])
        words = action.how.split()
        still_s, on_s = float(words[0]), float(words[3])
        with anyio.move_on_after(action.for_s):
            while True:
                process.stop()
                await anyio.sleep(still_s)
                process.cont()
                await anyio.sleep(on_s)

    def _process(self, name: str) -> Process:
        return self.fleet.nodes.get(name) or self.fleet.servers[name]

    async def _begin(self, action: Action, targets: Sequence[str]) -> Callable[[], Awaitable[dict[str, Any] | None]]:
        fleet = self.fleet
        processes = [self._process(name) for name in targets]
        match action.kind:
            case "kill" | "server-kill":
                for process in processes:
                    process.kill()

                async def start_again() -> None:
                    for process in processes:
                        await process.start()

                return start_again
            case "pause" | "server-pause" | "stutter" | "server-stutter":
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
            case "handover":
                return await self._hand_over(*processes, how=action.how)
            case "roll":
                return lambda: self._roll(processes)
            case "store-loss":
                return await self._lose_store(fleet.servers[targets[0]])
            case "step-down":
                return lambda: self._over_api("stepped_down", self._step_down)
            case "consumers":
                return lambda: self._over_api("deleted", self._delete_consumers)
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

    async def _hand_over(self, first: Process, heir: Process, *, how: str) -> Callable[[], Awaitable[dict[str, Any]]]:
        """Have a node go, and another one die that may just be taking over from it."""
        left_with: int | None = None

        async def leave() -> None:
            nonlocal left_with
            left_with = await first.terminate()

        between_s = float(how.split()[0])
        async with anyio.create_task_group() as tasks:
            if how.endswith(HANDOVERS[0]):
                first.kill()
            else:
                tasks.start_soon(leave)
            await anyio.sleep(between_s)
            if how.endswith(HANDOVERS[2]):
                first.kill()
            heir.kill()

        async def start_again() -> dict[str, Any]:
            await first.start()
            await heir.start()
            return {} if left_with is None else {"left_with": left_with}

        return start_again

    async def _roll(self, processes: Sequence[Process]) -> dict[str, Any]:
        """Restart them one after the other, as somebody who brings a new version."""
        late = []
        for process in processes:
            await process.restart()
            try:
                await wait_until_async(process.is_well, WELL_AGAIN_S)
            except AssertionError:
                late.append(process.name)
        return {"late": AND.join(late)} if late else {}

    async def _lose_store(self, server: Server) -> Callable[[], Awaitable[dict[str, Any]]]:
        """Kill a server, and have it come back without what it had stored.

        Not while another one may lack something: what only this one and one other had acknowledged would be lost to a
        majority of the one that lacks it and the one that has lost it. No cluster of three promises to survive that.
        """
        if not await self._all_well(list(self.fleet.servers.values())):
            return _nothing_done("not all servers were well")
        server.kill()
        others = [other for other in self.fleet.servers.values() if other is not server]

        async def start_empty() -> dict[str, Any]:
            # Now these two agree on what there is, and the empty one has no say in that.
            if not await self._all_well(others):
                await server.start()
                return {"server": "kept its store: the others had no leader in time"}
            stored = [await other.last_seqs() for other in others]
            server.lose_store()
            await server.start()
            began = time.monotonic()

            async def has_all() -> bool:
                found = await server.last_seqs()
                return await server.is_healthy() and all(
                    found.get(stream, 0) >= seq for seqs in stored for stream, seq in seqs.items()
                )

            # Before that no other server may be touched.
            await wait_until_async(has_all, FETCH_TIMEOUT_S)
            return {"server": f"had fetched all after {time.monotonic() - began:.1f} s"}

        return start_empty

    async def _all_well(self, servers: Sequence[Server]) -> bool:
        async def are_well() -> bool:
            return all([await server.is_healthy() for server in servers]) and await self.fleet.is_led_by(servers)

        try:
            await wait_until_async(are_well, OTHERS_WELL_S)
        except AssertionError:
            return False
        return True

    async def _over_api(self, done: str, function: Callable[[], Awaitable[int]]) -> dict[str, Any]:
        """Do something through the servers' API, if they answer."""
        try:
            with anyio.fail_after(API_TIMEOUT_S):
                return {done: await function()}
        except (MeshError, TimeoutError) as error:
            return {done: f"not all: {error or 'no answer'}"}

    async def _streams(self) -> list[str]:
        return list((await self._js.api("STREAM.NAMES", {})).get("streams") or ())

    async def _step_down(self) -> int:
        streams = await self._streams()
        for stream in streams:
            await self._js.api(f"STREAM.LEADER.STEPDOWN.{stream}")
        await self._js.api("META.LEADER.STEPDOWN")
        return len(streams) + 1

    async def _delete_consumers(self) -> int:
        count = 0
        for stream in await self._streams():
            for consumer in (await self._js.api(f"CONSUMER.NAMES.{stream}", {})).get("consumers") or ():
                with suppress(NotFound):  # of a follower that has just dropped it
                    await self._js.api(f"CONSUMER.DELETE.{stream}.{consumer}")
                    count += 1
        return count

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
        # One that is just starting ends: it cannot write what it has to. Of our nodes none may.
        server.may_end = True
        await anyio.to_thread.run_sync(server.fill_disk)

        async def empty() -> dict[str, Any]:
            server.empty_disk()
            trouble = await server.disk_trouble() if server.alive else "it had ended"
            server.may_end = False
            if not trouble:
                return {"server": "went on by itself"}
            # As an operator would: neither goes away by itself.
            server.kill()
            await server.start()
            return {"server": f"was started again: {trouble}"}

        return empty


def _nothing_done(why: str) -> Callable[[], Awaitable[dict[str, Any]]]:
    async def undo() -> dict[str, Any]:
        return {"nothing": why}

    return undo


def record_of(what: str, action: Action, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The line of `nemesis.jsonl` for the begin or the end of an action."""
    return {"at": time.time(), "what": what, **asdict(action), **facts}
