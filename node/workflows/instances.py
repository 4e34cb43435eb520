"""The workflows that one engine has in memory: which they are, which of them need their owner, which may go.

Not responsible for reading them from the history (`node.workflows.loading`) or for what happens to them
(`node.workflows.engine`).

Invariant: an instance that is loading, fetching, gated or has writes under way is busy; one that is busy is never
evicted and is listed in checkpoints. So is a workflow in `chains`, whether it is in memory or not.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

from mesh.errors import MeshError
from mesh.events import Event
from mesh.hosts import HostRecord
from mesh.subjects import WorkflowKey, untoken
from node.workflows.ops import Effect
from node.workflows.partition import Partition
from node.workflows.run import Run

EVICT_PAUSE_S: Final = 0.25  # after a look that found nothing to evict
EVICT_LOOK_MAX: Final = 512
# A payload of more is counted; those that were given to the runs in memory together take no more than that. The runs
# hold about twice as much: by themselves, and in the Lua VM, whose limit (`node.machine.vm`) they are not to fill.
LARGE_PAYLOAD_BYTES: Final = 128 * 1024
LARGE_BYTES_MAX: Final = 128 * 1024 * 1024


class Gated(NamedTuple):
    """An effect that waits for a mark. recovering: it follows from a replay, and may be under way already."""

    effect: Effect
    recovering: bool


class Instance:
    """A workflow that this node has in memory."""

    __slots__ = (
        "_host",
        "fetching",
        "gate",
        "id_token",
        "key",
        "large_bytes",
        "loading",
        "partition",
        "quarantined",
        "reloaded",
        "run",
        "short_timers",
        "unacked",
        "unwanted",
        "used_s",
        "writing",
    )

    def __init__(self, key: WorkflowKey, id_token: str, partition: Partition, host: HostRecord) -> None:
        self._host = host
        self.key = key
        self.id_token = id_token
        self.partition = partition
        self.run: Run | None = None
        self.loading: list[Event] | None = None  # events that came while the history is read
        self.fetching: list[Event] | None = None  # events that wait for a payload; see `node.workflows.fetching`
        self.large_bytes = 0  # of large payloads that the run was given; see `Instances.note_large`
        self.gate: list[Gated] | None = None  # effects that wait for a mark to be recorded
        self.unacked = 0
        self.quarantined = False
        self.reloaded = False
        self.used_s = 0.0
        self.short_timers: dict[str, asyncio.TimerHandle] = {}  # by name; see `node.workflows.timers`
        # Timers on their way to the server, by run and name; those of them that are not wanted any more. See there.
        self.writing: Counter[tuple[int, str]] = Counter()
        self.unwanted: set[tuple[int, str]] = set()

    def about(self) -> dict[str, object]:
        """What every log line about this workflow says in its fields."""
        key, run = self.key, self.run
        of_run = run.about() if run is not None else {"queue": key.queue, "workflow": key.id}
        return {**of_run, "pid": self._host.pid(key.id)}

    def busy(self) -> bool:
        """Whether this instance needs its owner."""
        return (
            self.loading is not None
            or self.fetching is not None
            or self.gate is not None
            or self.unacked > 0
            or self.run is None
            or not self.run.quiet()
        )


# What is done when a write that a run rests on was refused for good: see `node.workflows.loading.Loading.in_trouble`.
InTrouble = Callable[[Instance, Run, MeshError], None]


class Instances:
    """The instances of a worker's queue, least recently used first. clock: seconds, the one `used_s` is taken from.

    large_bytes: what `note_large` has told of all in memory.
    sticky_s: a quiet run that nothing happens to is kept in memory this long.
    by_token: for looking up, and for `move_to_end` by whoever uses an instance; `add` and `forget` change it.
    chains: workflows whose end, or the run after it, is being written, and their partitions.
    """

    def __init__(self, host: HostRecord, resident_max: int, sticky_s: float, clock: Callable[[], float]) -> None:
        self.by_token: OrderedDict[str, Instance] = OrderedDict()
        self.chains: dict[str, Partition] = {}
        # Whose code is being executed right now: for the thread that looks when the loop stands still.
        self.running: Run | None = None
        self.evictions = 0
        self._host = host
        self._resident_max = resident_max
        self._sticky_s = sticky_s
        self._clock = clock
        self._evict_after_s = 0.0
        self._evict_large_after_s = 0.0
        self.large_bytes = 0

    def note_large(self, instance: Instance, payload_bytes: int) -> None:
        """Take notice that a run in memory was given payloads of more than LARGE_PAYLOAD_BYTES."""
        instance.large_bytes += payload_bytes
        self.large_bytes += payload_bytes

    def forget_large(self, instance: Instance) -> None:
        """The run of an instance is given up: with it goes what it was given."""
        self.large_bytes -= instance.large_bytes
        instance.large_bytes = 0

    def add(self, id_token: str, partition: Partition) -> Instance:
        """A new instance, still without a run."""
        instance = Instance(WorkflowKey(self._host.queue, untoken(id_token)), id_token, partition, self._host)
        self.by_token[id_token] = instance
        return instance

    def holds(self, instance: Instance) -> bool:
        """Whether this very instance is still the one of its workflow; to be asked after every wait."""
        return self.by_token.get(instance.id_token) is instance

    def forget(self, id_token: str) -> None:
        """Let go of an instance and its machine, if it is there."""
        instance = self.by_token.pop(id_token, None)
        if instance is not None and instance.large_bytes:
            self.forget_large(instance)
        if instance is not None and instance.run is not None:
            instance.run.close()
            # A run knows how to open its machine and with that its instance: without this, only the garbage collector,
            # which rarely looks, would free the two.
            instance.run = None

    def leave_chain(self, instance: Instance) -> None:
        """The run after this instance's is started. Not said of a partition that was lost and claimed again."""
        if self.chains.get(instance.id_token) is instance.partition:
            del self.chains[instance.id_token]

    def forget_all(self, partition: Partition) -> None:
        """Let go of all instances of a partition."""
        for id_token, instance in list(self.by_token.items()):
            if instance.partition is partition:
                self.forget(id_token)

    def evict_surplus(self) -> None:
        """Forget quiet instances while there are more than may be in memory, or they hold more."""
        if self.large_bytes > LARGE_BYTES_MAX:
            self._evict_large()
        surplus = len(self.by_token) - self._resident_max
        if surplus <= 0:
            return
        now = self._clock()
        if now < self._evict_after_s:
            return
        evicted = 0
        for id_token, instance in list(itertools.islice(self.by_token.items(), EVICT_LOOK_MAX)):
            if evicted == surplus:
                break
            if instance.busy():
                self.by_token.move_to_end(id_token)
            else:
                self.forget(id_token)
                evicted += 1
        self.evictions += evicted
        if evicted < EVICT_LOOK_MAX // 4:
            self._evict_after_s = now + EVICT_PAUSE_S

    def _evict_large(self) -> None:
        """Forget quiet runs that hold large payloads, the least recently used first."""
        now = self._clock()
        if now < self._evict_large_after_s:
            return
        for id_token, instance in list(self.by_token.items()):
            if instance.large_bytes and not instance.busy():
                self.forget(id_token)
                self.evictions += 1
                if self.large_bytes <= LARGE_BYTES_MAX:
                    return
        self._evict_large_after_s = now + EVICT_PAUSE_S

    def evict_idle(self) -> None:
        """Forget quiet runs that nothing has happened to for a while, least recently used first."""
        before = self._clock() - self._sticky_s
        idle = []
        for id_token, instance in self.by_token.items():
            if instance.used_s > before:
                break
            if not instance.busy():
                idle.append(id_token)
        for id_token in idle:
            self.forget(id_token)
        self.evictions += len(idle)

    def busy(self) -> dict[int, list[str]]:
        """The id tokens of what needs its owner, by partition number."""
        busy: dict[int, list[str]] = {}
        for id_token, instance in self.by_token.items():
            if instance.busy():
                busy.setdefault(instance.partition.number, []).append(id_token)
        for id_token, partition in self.chains.items():
            if id_token not in self.by_token:
                busy.setdefault(partition.number, []).append(id_token)
        return busy
