"""What the recovery tests share: nodes to be killed, a view of every stored event and owner, effects, replay.

    async with a_fleet(server.url, tmp_path, nodes=3) as fleet:
        fleet.watch.hooks.append(lambda seen: ...)   # called in the read loop, as soon as an event is stored
        handle = await fleet.client.start("shop:order", {...}, host=HOST, id="order-1")
        fleet.kill(fleet.watch.owners[3])

The app is in `tests/recovery_app`. Nodes are processes of their own, killed by SIGKILL; nothing is mocked. With
MESH_CHAOS=1 in the environment the long forms of these tests run.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import count, takewhile
from pathlib import Path
from typing import Any, Final, NamedTuple

import anyio
import anyio.abc

import mesh.client
from mesh.client import Client, WorkflowHandle
from mesh.events import EndRecord, Event, decode_end, decode_start, parse
from mesh.follower import Delivered, Follower
from mesh.groups import unwrapped
from mesh.history import OpenRun
from mesh.roster import BUCKET
from mesh.subjects import WorkflowKey, bucket_key, bucket_key_name, stream_name, untoken
from mesh.wire import parse_headers
from node.machine.code import Code
from node.machine.vm import LuaVM, Machine, UnitIdentity
from node.registry import Registry, load_registry
from node.workflows.run import Run
from tests.cluster import START_TIMEOUT_S, NodeProcess, a_node
from tests.waiting import wait_until

APP: Final = Path(__file__).parent / "recovery_app"
WORKER: Final = "shop:worker"
CLIENT: Final = "shop:client"
QUEUE: Final = "shop"
PARTITIONS: Final = 32
SETTLED_S: Final = 0.3
NEVER_S: Final = 3600.0
CHAOS: Final = os.environ.get("MESH_CHAOS", "") not in ("", "0")


class Seen(NamedTuple):
    """A stored event and the partition it is in."""

    partition: int
    event: Event

    @property
    def id(self) -> str:
        """The workflow's id."""
        return untoken(self.event.id_token)

    @property
    def label(self) -> str:
        """What happened, in words that are the same in every run: `ret 1`, `signal approve`, `end`."""
        args = self.event.args
        match self.event.kind:
            case "signal":
                return f"signal {self.event.topic}"
            case "ret" | "claim" | "tick" | "exit":
                return f"{self.event.kind} {args[1]}"
            case kind:
                return kind


class Claimed(NamedTuple):
    """A node took a partition, or gave it back (node_id "")."""

    partition: int
    node_id: str
    at_ns: int


class Watch:
    """Every event of the queue as it is stored, and who owns which partition.

    hooks: called with every event, from the read loop.
    """

    def __init__(self, queue: str = QUEUE) -> None:
        self.queue = queue
        self.events: list[Seen] = []
        self.owners: dict[int, str] = {}
        self.claims: list[Claimed] = []
        self.members: dict[str, int] = {}  # node id -> when its key was written last
        self.gone: list[tuple[str, int]] = []
        self.hooks: list[Callable[[Seen], None]] = []
        self.changed_s = 0.0

    async def follow(
        self, client: Client, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Watch until cancelled. The queue's stream and the roster are there once a node is up."""
        roster = Follower(client.conn, client.js, f"KV_{BUCKET}", [f"$KV.{BUCKET}.>"], 1, self._see_roster)
        events = Follower(
            client.conn, client.js, stream_name(self.queue), [f"mesh.log.{self.queue}.>"], 1, self._see_event
        )
        async with anyio.create_task_group() as tasks:
            await tasks.start(roster.run)
            await tasks.start(events.run)
            await roster.caught_up.wait()
            task_status.started()

    def owned(self, node_id: str) -> frozenset[int]:
        """The partitions of a node."""
        return frozenset(partition for partition, owner in self.owners.items() if owner == node_id)

    def is_settled(self, nodes: Iterable[str]) -> bool:
        """Whether these nodes own everything, each a part, and nothing has moved for a moment."""
        spread = len(self.owners) == PARTITIONS and set(self.owners.values()) == set(nodes)
        return spread and anyio.current_time() - self.changed_s > SETTLED_S

    def since(self, at_ns: int) -> list[Seen]:
        """The events stored at that time (Unix) or later."""
        newest = takewhile(lambda seen: seen.event.at_ns >= at_ns, reversed(self.events))
        return list(reversed(list(newest)))

    def of(self, workflow_id: str) -> list[Seen]:
        """The events of one workflow so far, in order."""
        return [seen for seen in self.events if seen.id == workflow_id]

    def _see_event(self, message: Delivered) -> None:
        event = parse(message.subject, message.seq, message.timestamp_ns, message.data, message.raw_headers)
        assert event is not None, f"{message.subject} is no event"
        seen = Seen(int(message.subject.split(".")[3]), event)
        self.events.append(seen)
        for hook in list(self.hooks):
            hook(seen)

    def _see_roster(self, message: Delivered) -> None:
        kind, _, rest = message.subject.removeprefix(f"$KV.{BUCKET}.").partition(".")
        value = json.loads(message.data) if message.data else {}
        if kind == "member":
            name = bucket_key_name(rest)
            if value:
                self.members[name] = message.timestamp_ns
            elif self.members.pop(name, None) is not None:
                self.gone.append((name, message.timestamp_ns))
            return
        queue, _, partition = rest.rpartition(".")
        node_id = value.get("node") or ""
        if queue == bucket_key(self.queue) and self.owners.get(int(partition), "") != node_id:
            self.owners[int(partition)] = node_id
            self.claims.append(Claimed(int(partition), node_id, message.timestamp_ns))
            self.changed_s = anyio.current_time()


@dataclass(slots=True)
class Effects:
    """What the functions have written down themselves."""

    file: Path

    def all(self) -> list[dict[str, Any]]:
        """The effects in order, {effect, order_id, key, pid}."""
        return [json.loads(line) for line in self.file.read_text().splitlines()] if self.file.exists() else []

    def of(self, order_id: str) -> Counter[str]:
        """How often each effect of an order took place."""
        return Counter(entry["effect"] for entry in self.all() if entry["order_id"] == order_id)

    def keys(self, order_id: str) -> set[str]:
        """The keys that the functions of an order were given."""
        return {entry["key"] for entry in self.all() if entry["order_id"] == order_id}


@dataclass(slots=True)
class Fleet:
    """Nodes as processes, a client, and what is seen. Made by `a_fleet`."""

    url: str
    client: Client
    effects: Effects
    tasks: anyio.abc.TaskGroup
    app: Path = APP
    watch: Watch = field(default_factory=Watch)
    nodes: dict[str, NodeProcess] = field(default_factory=dict)
    start_timeout_s: float = START_TIMEOUT_S
    _names: Iterable[int] = field(default_factory=lambda: count(1))

    async def add(self) -> NodeProcess:
        """Start one more node; it is ready when this returns."""
        node_id = f"n{next(iter(self._names))}"
        node = await self.tasks.start(self._run, node_id)
        assert isinstance(node, NodeProcess)
        self.nodes[node_id] = node
        return node

    async def _run(self, node_id: str, *, task_status: anyio.abc.TaskStatus[NodeProcess]) -> None:
        environ = {"RECOVERY_EFFECTS": str(self.effects.file)}
        arguments = ("--log-format", "text")
        async with a_node(
            self.app,
            self.url,
            node_id=node_id,
            environ=environ,
            arguments=arguments,
            start_timeout_s=self.start_timeout_s,
        ) as node:
            task_status.started(node)
            await node.wait(NEVER_S)
            self.nodes.pop(node_id, None)

    def kill(self, node_id: str) -> NodeProcess:
        """SIGKILL, at once; it is none of the fleet's any more."""
        node = self.nodes.pop(node_id)
        node.kill()
        return node

    async def settled(self, timeout_s: float = 30.0) -> None:
        """Wait until exactly the living nodes own everything."""
        await wait_until(lambda: self.watch.is_settled(self.nodes), timeout_s)

    async def start(self, workflow: str, *args: Any, id: str) -> WorkflowHandle:
        """Start a workflow of the shop."""
        return await self.client.start(f"shop:{workflow}", *args, host=WORKER, id=id)


@asynccontextmanager
async def a_fleet(
    url: str,
    directory: Path,
    *,
    nodes: int,
    app: Path = APP,
    queue: str = QUEUE,
    start_timeout_s: float = START_TIMEOUT_S,
) -> AsyncIterator[Fleet]:
    """Run so many nodes as processes while the block runs; they are ready and own everything when it starts.

    queue: the one queue of the app.
    """
    with unwrapped():
        async with mesh.client.connect(url) as client, anyio.create_task_group() as tasks:
            effects = Effects(directory / "effects.jsonl")
            fleet = Fleet(url, client, effects, tasks, app, Watch(queue), start_timeout_s=start_timeout_s)
            async with anyio.create_task_group() as starting:
                for _ in range(nodes):
                    starting.start_soon(fleet.add)
            await tasks.start(fleet.watch.follow, client)
            await fleet.settled()
            yield fleet
            tasks.cancel_scope.cancel()


@cache
def registry() -> Registry:
    """The registry of the shop."""
    return load_registry(APP, environ={})


async def checked_history(client: Client, key: WorkflowKey, run: int) -> EndRecord:
    """The end of a run, after its history was found to be sound.

    Sound: one end counts, whatever else was written as an end of it says the same; and a fresh machine that is given
    the events before the end comes to that very end.
    """
    history = client.history(key.queue)
    ended = await history.end_of(key, run)
    assert ended is not None, f"{key.id} has not ended"
    partition = await history.partition_of(key)
    assert partition is not None
    written = await client.js.batch_get(history.stream, from_seq=run, subject_filter=key.stored(partition, "end", ">"))
    assert {(m.subject, m.data) for m in written} == {(key.stored(partition, "end", str(run)), ended.data)}
    starts = await client.js.batch_get(history.stream, from_seq=1, subject_filter=key.stored(partition, "start"))
    assert [s.seq for s in starts] == [run], f"{key.id} was started {len(starts)} times"
    events = await history.events(key, run)
    end = decode_end(ended.data)
    replayed = replay(key, OpenRun(run, starts[0]), [event for event in events if event.seq < ended.seq])
    assert replayed == end, f"{key.id}: its history says {end}, a replay comes to {replayed}"
    return end


def replay(key: WorkflowKey, opened: OpenRun, events: list[Event]) -> EndRecord | str | None:
    """How a fresh machine ends that is given these events: its end, why it is suspended, None while it is open.

    The seed is derived here once more, as the engine does it: were it derived otherwise one day, the runs that are
    open on that day would come to other random values.
    """
    start = opened.start
    spec = decode_start(start.data, parse_headers(start.raw_headers) if start.raw_headers else {})
    code = Code(registry())
    vm = LuaVM()

    def open_machine(run: Run) -> Machine:
        seed = hashlib.blake2b(
            spec.entropy + f"/{key.queue}/{key.id}/{run.run}/{run.started_ns}".encode(), digest_size=32
        ).digest()
        unit = code.prepare(vm, "workflow", code.workflow_id(spec.workflow))
        info = {
            "workflow_id": key.id, "run_id": str(run.run), "workflow_type": spec.workflow, "task_queue": key.queue,
            "namespace": "default", "attempt": spec.attempt, "worker": WORKER,
        }  # fmt: skip
        pid = f"{{{CLIENT}@{WORKER}|{key.id}}}"
        return vm.open(unit, UnitIdentity(pid=pid, seed=seed, info=info, context=spec.context, marks={}))

    options = {str(name): dict(entry.options) for name, entry in registry().functions().items()}
    run = Run(
        key, opened.run, spec, open_machine=open_machine, call_defaults=lambda name: options.get(name, {}),
        id_token=events[0].id_token,
    )  # fmt: skip
    for i, event in enumerate(events):
        run.apply(event, more=i < len(events) - 1)
    if run.finished is not None:
        return run.finished.record
    return run.suspended or None
