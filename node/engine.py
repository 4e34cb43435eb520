"""The workflow engine of one queue on one node: partitions in, runs fed, effects carried out.

The hot path is synchronous: a partition's follower appends what came in, one loop takes it off in batches, feeds each
event to its run (`node.run`, pure) and carries out what comes back. What has to wait (loading a history, starting a
child, ending a run that others must be told of) is a task of its own; what it needs to say it writes into the history,
where it comes back as an event. So there is one way in for everything that happens.

Invariants:
  * a run is fed in stream order and each event once: `run.last_seq` decides;
  * an instance that is loading, gated or has writes under way is never evicted and is listed as busy in checkpoints;
  * nothing is fed while the node's lease is over (`roster.may_act`).
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import itertools
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import anyio
import anyio.abc
import anyio.lowlevel

from mesh import codec
from mesh.connection import Connection
from mesh.errors import (
    TEMPORARY,
    Conflict,
    Disconnected,
    InvalidName,
    MeshError,
    NotFound,
    PayloadTooLarge,
    Undecodable,
)
from mesh.events import HEADER_FROM, EndRecord, Event, StartSpec, decode_end, decode_start, parse
from mesh.failure import Failure, Kind
from mesh.follower import Delivered, Follower, StreamRegressed
from mesh.groups import unwrapped
from mesh.history import History
from mesh.hosts import HostRecord, Hosts
from mesh.jetstream import JetStream
from mesh.membership import Claim
from mesh.outbox import Ack, Outbox
from mesh.roster import Roster
from mesh.subjects import WorkflowKey, partition_filter, stream_name, untoken
from mesh.timers import timer_headers
from mesh.wire import parse_headers
from node.calls import Calls
from node.code import Code, CodeMissing
from node.machine import LuaVM, Machine, MachineFailed, OutOfMemory, UnitIdentity
from node.ops import (
    Abandon,
    ChildAtEnd,
    Dispatch,
    Effect,
    Finish,
    Log,
    OpState,
    Perform,
    RetryLater,
    SetTimer,
    Suspend,
    WriteMark,
)
from node.others import Others
from node.run import Run, child_pid, last_step
from node.switchboard import Switchboard
from store.catchup import BUSY_MAX, CatchUp
from store.streams import QueueStream

RESIDENT_MAX: Final = 2000  # quiet runs kept in memory; the least recently used go first
LEASE_LOOK_S: Final = 0.05
EVICT_PAUSE_S: Final = 0.25  # after a look that found nothing to evict
EVICT_LOOK_MAX: Final = 512
BATCH_EVENTS: Final = 128  # events handled before the loop lets I/O go on
REPLAY_SLICE_EVENTS: Final = 100
LOADS_MAX: Final = 16
LOAD_AGAIN_S: Final = 5.0
INBOX_EVENTS_MAX: Final = 4096
ATTENTION_AT_ONCE: Final = 64  # runs of one partition that are loaded at a time after a takeover
FOLLOW_AGAIN_S: Final = 0.5
TROUBLE_PAUSE_S: Final = 1.0
STICKY_S: Final = 5.0  # a quiet run that nothing happens to is kept in memory this long
CHECKPOINT_EVERY_S: Final = 1.0
VM_UNITS_MAX: Final = 20_000  # a VM that has hosted that many is retired, so that its heap cannot fragment for ever

_FIRST_START: Final = b"Nats-Expected-Last-Subject-Sequence: 0\r\n"

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Instance:
    """A workflow that this node has in memory."""

    __slots__ = (
        "gate",
        "id_token",
        "key",
        "loading",
        "partition",
        "quarantined",
        "reloaded",
        "run",
        "unacked",
        "used_s",
    )

    def __init__(self, key: WorkflowKey, id_token: str, partition: Partition) -> None:
        self.key = key
        self.id_token = id_token
        self.partition = partition
        self.run: Run | None = None
        self.loading: list[Event] | None = None  # events that came while the history is read
        self.gate: list[Effect] | None = None  # effects that wait for a mark to be recorded
        self.unacked = 0
        self.quarantined = False
        self.reloaded = False
        self.used_s = 0.0

    def busy(self) -> bool:
        """Whether this instance needs its owner."""
        return (
            self.loading is not None
            or self.gate is not None
            or self.unacked > 0
            or self.run is None
            or not self.run.quiet()
        )


class Partition:
    """A partition that this node owns."""

    __slots__ = (
        "attention", "catchup", "claim", "epoch", "handled_seq", "live_seq", "loading", "number", "saved_seq", "scope",
        "stopped",
    )  # fmt: skip

    def __init__(self, number: int, claim: Claim, busy: tuple[str, ...], *, handed_over: bool) -> None:
        self.number = number
        self.claim = claim
        self.handled_seq = claim.checkpoint
        self.saved_seq = claim.checkpoint
        self.catchup: CatchUp | None = CatchUp(busy)
        self.scope = anyio.CancelScope()
        self.stopped = False
        # What came after this was first seen by this owner. One that handed over says where it had come to; after a
        # crash its checkpoint is older than that.
        self.live_seq = claim.checkpoint if handed_over else None
        self.attention: deque[str] = deque()  # id tokens of the runs still to be loaded after the takeover
        self.loading = 0
        self.epoch = 0  # grows when everything is read anew; what was read before is dropped


@dataclass(frozen=True, slots=True)
class Statistics:
    """What an engine is doing at the moment."""

    partitions: int
    resident: int
    calls_in_flight: int
    replays: int
    replayed_events: int
    evictions: int
    suspended: int


class Engine:
    """Runs the workflows of one queue whose partitions this node owns."""

    def __init__(
        self,
        *,
        conn: Connection,
        js: JetStream,
        outbox: Outbox,
        roster: Roster,
        hosts: Hosts,
        host: HostRecord,
        stream: QueueStream,
        code: Code,
        call_defaults: Callable[[str], Mapping[str, Any]],
        foreign: Mapping[str, tuple[str, str]],
        hosts_of: Callable[[str], int],
        switchboard: Switchboard,
        resident_max: int = RESIDENT_MAX,
    ) -> None:
        self.queue = stream.queue
        self.stream = stream
        self.host = host
        self.history = History(js, stream.queue)
        self._conn = conn
        self._js = js
        self._outbox = outbox
        self._roster = roster
        self._code = code
        self._call_defaults = call_defaults
        self._resident_max = resident_max
        self._instances: OrderedDict[str, Instance] = OrderedDict()
        self._partitions: dict[int, Partition] = {}
        self._inbox: deque[tuple[Partition, int, Delivered | None]] = deque()
        self._paused: list[Follower] = []
        self._loop = asyncio.get_running_loop()
        self._scheduled = False
        self._failure: Exception | None = None
        self._failed = anyio.Event()
        self._evict_after_s = 0.0
        self._load_limit = anyio.CapacityLimiter(LOADS_MAX)
        self._chains: dict[str, Partition] = {}
        self._vm = LuaVM()
        self._vm_opened = 0
        self._tasks: anyio.abc.TaskGroup | None = None
        self._replays = 0
        self._replayed_events = 0
        self._evictions = 0
        self._calls = Calls(
            conn,
            foreign=foreign,
            hosts_of=hosts_of,
            failed=self._call_failed,
            may_act=roster.may_act,
            is_open=self._call_is_open,
        )
        self._others = Others(js, hosts, code, switchboard)

    # -- partitions --------------------------------------------------------------------------------------------

    @property
    def partitions(self) -> dict[int, Partition]:
        """The partitions this node runs, by number."""
        return self._partitions

    def statistics(self) -> Statistics:
        """What this engine is doing."""
        runs = [i.run for i in self._instances.values() if i.run is not None]
        suspended = sum(1 for run in runs if run.suspended)
        calls = sum(run.calls for run in runs)
        return Statistics(
            len(self._partitions), len(self._instances), calls, self._replays, self._replayed_events,
            self._evictions, suspended,
        )  # fmt: skip

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled. Ready at once; partitions are added by `take`."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            await tasks.start(self._calls.run)
            tasks.start_soon(self._raise_failure)
            tasks.start_soon(self._checkpoint_for_ever)
            task_status.started()

    def take(self, claim: Claim, busy: tuple[str, ...], *, handed_over: bool = False) -> None:
        """Run a partition that was just claimed, from its checkpoint on; handed_over: its last owner released it."""
        partition = Partition(claim.partition, claim, busy, handed_over=handed_over)
        self._partitions[claim.partition] = partition
        self._group.start_soon(self._follow, partition)
        if handed_over:
            # What the last owner named is exact: read while the follower is set up. What comes meanwhile waits for it.
            partition.attention = deque(busy)
            self._attend(partition)

    def drop(self, number: int) -> tuple[Claim, int, tuple[str, ...]] | None:
        """Stop running a partition; return its claim, how far it was handled and which runs are busy."""
        partition = self._partitions.pop(number, None)
        if partition is None:
            return None
        partition.stopped = True
        partition.scope.cancel()
        seq, busy = self._position(partition)
        if len(busy) > BUSY_MAX:
            # Too many to list: the older checkpoint stays good, the next owner reads more.
            seq, busy = partition.claim.checkpoint, self._roster.busy(partition.claim)
        for token, instance in list(self._instances.items()):
            if instance.partition is partition:
                self._forget(token)
        return partition.claim, seq, busy

    async def _follow(self, partition: Partition) -> None:
        with partition.scope:
            while True:
                try:
                    await self._follow_once(partition)
                except StreamRegressed as error:
                    _log.error("queue %s partition %d: %s", self.queue, partition.number, error)
                    self._start_over(partition)
                except TEMPORARY as error:
                    _log.warning("queue %s partition %d: %s; following anew", self.queue, partition.number, error)
                    partition.epoch += 1  # what came in and was not handled yet comes again
                    await anyio.sleep(FOLLOW_AGAIN_S)

    async def _follow_once(self, partition: Partition) -> None:
        epoch = partition.epoch

        def deliver(message: Delivered) -> None:
            self._inbox.append((partition, epoch, message))
            if len(self._inbox) > INBOX_EVENTS_MAX:
                follower.pause()
                self._paused.append(follower)
            self._wake()

        follower = Follower(
            self._conn, self._js, stream_name(self.queue), [partition_filter(self.queue, partition.number)],
            partition.handled_seq + 1, deliver, consumer_prefix=f"p{partition.number}-{self._roster.me.node_id}",
        )  # fmt: skip
        with unwrapped():
            async with anyio.create_task_group() as tasks:
                await tasks.start(follower.run)
                await follower.caught_up.wait()
                self._inbox.append((partition, epoch, None))
                self._wake()

    def _start_over(self, partition: Partition) -> None:
        """The stream lost messages that were seen: what is in memory may rest on them. Read everything anew."""
        for token, instance in list(self._instances.items()):
            if instance.partition is partition:
                self._forget(token)
        partition.epoch += 1
        partition.claim = replace(partition.claim, checkpoint=0)
        partition.handled_seq = partition.saved_seq = 0
        partition.catchup = CatchUp(())
        partition.live_seq = None

    def _position(self, partition: Partition) -> tuple[int, tuple[str, ...]]:
        # Up to where the partition needs nothing, and which runs are excepted. Still catching up: the old position.
        if partition.catchup is not None:
            return partition.claim.checkpoint, self._roster.busy(partition.claim)
        busy = self._busy_by_partition().get(partition.number, [])
        return partition.handled_seq, tuple(busy)

    def _busy_by_partition(self) -> dict[int, list[str]]:
        busy: dict[int, list[str]] = {}
        for id_token, instance in self._instances.items():
            if instance.busy():
                busy.setdefault(instance.partition.number, []).append(id_token)
        for partition in self._partitions.values():
            waiting = [id_token for id_token in partition.attention if id_token not in self._instances]
            if waiting:
                busy.setdefault(partition.number, []).extend(waiting)
        for id_token, partition in self._chains.items():
            if id_token not in self._instances:
                busy.setdefault(partition.number, []).append(id_token)
        return busy

    async def _checkpoint_for_ever(self) -> None:
        while True:
            await anyio.sleep(CHECKPOINT_EVERY_S)
            self._evict_idle()
            moved = [p for p in self._partitions.values() if p.catchup is None and p.handled_seq != p.saved_seq]
            if not moved:
                continue
            # Taken together, before anything is awaited: positions and busy runs are of one moment.
            busy_now = self._busy_by_partition()
            positions = [(p, p.handled_seq, tuple(busy_now.get(p.number, ()))) for p in moved]
            for partition, seq, busy in positions:
                if partition.stopped or len(busy) > BUSY_MAX or not self._roster.may_act():
                    continue
                try:
                    claim = await self._roster.save_checkpoint(partition.claim, seq, busy)
                except TEMPORARY:
                    continue
                if partition.stopped:
                    continue
                if claim is not None:
                    partition.claim = claim
                    partition.saved_seq = seq
                else:
                    # Perhaps our own write of which we never heard: go on from what the roster has seen.
                    partition.claim = self._roster.standing(partition.claim) or partition.claim

    # -- the loop ----------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        """Have the events that came in handled in this turn of the loop, after the reading.

        A callback and no task: waking a task for every event costs more than handling it.
        """
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._drain)

    def _drain(self) -> None:
        self._scheduled = False
        if self._failure is not None:
            return
        try:
            self._handle_batch()
        except Exception as error:
            # We are wrong: the engine ends, its histories stay as they are.
            self._failure = error
            self._failed.set()

    def _handle_batch(self) -> None:
        inbox = self._inbox
        if not self._roster.may_act():
            # Others may own what this node thinks it owns. What came in is kept until that is settled.
            if not self._scheduled:
                self._scheduled = True
                self._loop.call_later(LEASE_LOOK_S, self._drain)
            return
        for _ in range(min(BATCH_EVENTS, len(inbox))):
            partition, epoch, message = inbox.popleft()
            if partition.stopped or epoch != partition.epoch:
                continue
            if message is None:
                self._caught_up(partition)
            else:
                self._handle(partition, message)
        if len(self._instances) > self._resident_max:
            self._evict()
        if self._paused and len(inbox) < INBOX_EVENTS_MAX // 2:
            paused, self._paused = self._paused, []
            for follower in paused:
                follower.resume()
        if inbox:
            self._wake()

    async def _raise_failure(self) -> None:
        await self._failed.wait()
        if self._failure is not None:
            raise self._failure

    def _handle(self, partition: Partition, message: Delivered) -> None:
        partition.handled_seq = message.seq
        event = parse(message.subject, message.seq, message.timestamp_ns, message.data, message.raw_headers)
        if event is None:
            _log.warning("ignored: %s (sequence %d) is no event of a workflow", message.subject, message.seq)
            return
        self._take(partition, event)

    def _take(self, partition: Partition, event: Event) -> None:
        if partition.catchup is not None:
            partition.catchup.note(event)
            if event.id_token not in self._instances:
                return
        instance = self._instances.get(event.id_token)
        if instance is None:
            self._first_news(partition, event)
            return
        if instance.loading is not None:
            instance.loading.append(event)
            return
        run = instance.run
        if run is None or event.seq <= run.last_seq:
            return
        self._instances.move_to_end(event.id_token)
        instance.used_s = self._loop.time()
        self._feed(instance, run, event)

    def _first_news(self, partition: Partition, event: Event) -> None:
        """Something happens to a workflow that is not in memory."""
        if event.kind in ("claim", "mark") or (event.kind == "end" and not decode_end(event.data).next_start):
            return  # nothing follows from these alone
        key = WorkflowKey(self.queue, untoken(event.id_token))
        instance = Instance(key, event.id_token, partition)
        instance.used_s = self._loop.time()
        self._instances[event.id_token] = instance
        if event.kind == "start" and event.raw_headers and _FIRST_START in event.raw_headers:
            # Stored as the first start ever of this id: there is no history to read.
            self._begin(instance, event)
        else:
            self._load_soon(instance, event)

    def _begin(self, instance: Instance, event: Event) -> None:
        try:
            spec = decode_start(event.data, parse_headers(event.raw_headers) if event.raw_headers else {})
        except Undecodable as error:
            self._refuse_start(instance, event.seq, error)
            return
        if spec.since:
            self._load_soon(instance)
            return
        run = self._new_run(instance, event.seq, spec, {})
        instance.run = run
        self._feed(instance, run, event)

    def _refuse_start(self, instance: Instance, run: int, error: Undecodable) -> None:
        failure = Failure(f"the start of workflow {instance.key.id!r} cannot be read: {error}", Kind.INVALID, False)
        _log.warning("%s", failure.message)
        self._forget(instance.id_token)
        self._outbox.write(instance.key.end(run), EndRecord("failed", codec.encode_failure(failure)).encode())

    def _feed(self, instance: Instance, run: Run, event: Event) -> None:
        try:
            effects = run.apply(event)
        except OutOfMemory:
            self._vm_lost(instance)
            return
        except MachineFailed as error:
            effects = [self._suspend_for(run, str(error))]
        except CodeMissing as error:
            effects = [self._suspend_for(run, str(error))]
        if run.closed:
            self._forget(instance.id_token)
            return
        if effects:
            self._carry_out(instance, run, effects)

    def _suspend_for(self, run: Run, reason: str) -> Suspend:
        run.suspended = reason
        return Suspend(reason)

    # -- instances ---------------------------------------------------------------------------------------------

    def _new_run(self, instance: Instance, run_id: int, spec: StartSpec, marks: Mapping[str, Any]) -> Run:
        def open_machine(run: Run) -> Machine:
            return self._open_machine(instance, run)

        return Run(
            instance.key, run_id, spec, open_machine=open_machine, call_defaults=self._call_defaults, marks=marks,
            id_token=instance.id_token,
        )  # fmt: skip

    def _open_machine(self, instance: Instance, run: Run) -> Machine:
        entry_id = self._code.workflow_id(run.spec.workflow)
        if instance.quarantined:
            vm = LuaVM()
        else:
            if self._vm_opened >= VM_UNITS_MAX:
                self._vm, self._vm_opened = LuaVM(), 0
            vm = self._vm
            self._vm_opened += 1
        key, spec = instance.key, run.spec
        seed = hashlib.blake2b(
            spec.entropy + f"/{key.queue}/{key.id}/{run.run}/{run.started_ns}".encode("utf-8", "surrogateescape"),
            digest_size=32,
        ).digest()
        info = {
            "workflow_id": key.id, "run_id": str(run.run), "workflow_type": spec.workflow, "task_queue": key.queue,
            "namespace": "default", "attempt": spec.attempt, "worker": self.host.worker,
        }  # fmt: skip
        marks = {name.removeprefix("version:"): value for name, value in run.marks.items()}
        unit = self._code.prepare(vm, "workflow", entry_id)
        return vm.open(
            unit, UnitIdentity(pid=self.host.pid(key.id), seed=seed, info=info, context=spec.context, marks=marks)
        )

    def _vm_lost(self, culprit: Instance) -> None:
        """A VM is out of memory: its runs are replayed in a new one, the one that was running in one of its own."""
        _log.warning("a Lua VM is out of memory in workflow %r; its runs are replayed", culprit.key.id)
        if culprit.quarantined:
            run = culprit.run
            failure = Failure("the workflow took more memory than a run may have", Kind.INTERNAL, False)
            if run is not None:
                run.close()
                run.finished = Finish(EndRecord("failed", codec.encode_failure(failure)), ())
                culprit.loading = None
                self._carry_out(culprit, run, [run.finished])
            return
        culprit.quarantined = True
        self._vm, self._vm_opened = LuaVM(), 0
        for instance in list(self._instances.values()):
            if (instance.loading is None and not instance.quarantined) or instance is culprit:
                self._reload(instance)

    def _reload(self, instance: Instance) -> None:
        if instance.run is not None:
            instance.run.close()
            instance.run = None
        instance.gate = None
        instance.reloaded = True
        self._load_soon(instance)

    def _forget(self, id_token: str) -> None:
        instance = self._instances.pop(id_token, None)
        if instance is not None and instance.run is not None:
            instance.run.close()
            # A run knows how to open its machine and with that its instance: without this, only the garbage collector,
            # which rarely looks, would free the two.
            instance.run = None

    def _evict(self) -> None:
        now = time.monotonic()
        if now < self._evict_after_s:
            return
        surplus = len(self._instances) - self._resident_max
        evicted = 0
        for id_token, instance in list(itertools.islice(self._instances.items(), EVICT_LOOK_MAX)):
            if evicted == surplus:
                break
            if instance.busy():
                self._instances.move_to_end(id_token)
            else:
                self._forget(id_token)
                evicted += 1
        self._evictions += evicted
        if evicted < EVICT_LOOK_MAX // 4:
            self._evict_after_s = now + EVICT_PAUSE_S

    def _evict_idle(self) -> None:
        """Forget quiet runs that nothing has happened to for a while, least recently used first."""
        before = self._loop.time() - STICKY_S
        idle = []
        for id_token, instance in self._instances.items():
            if instance.used_s > before:
                break
            if not instance.busy():
                idle.append(id_token)
        for id_token in idle:
            self._forget(id_token)
        self._evictions += len(idle)

    # -- loading -----------------------------------------------------------------------------------------------

    def _caught_up(self, partition: Partition) -> None:
        catchup, partition.catchup = partition.catchup, None
        if catchup is None:
            return
        if partition.live_seq is None:
            partition.live_seq = partition.handled_seq
        partition.attention = deque(catchup.attention())
        if partition.attention:
            _log.info(
                "queue %s partition %d: %d runs need attention", self.queue, partition.number, len(partition.attention)
            )
        self._attend(partition)

    def _attend(self, partition: Partition) -> None:
        """Load the next runs that need attention, some at a time: there may be very many."""
        while partition.attention and partition.loading < ATTENTION_AT_ONCE and not partition.stopped:
            id_token = partition.attention.popleft()
            if id_token not in self._instances:
                instance = Instance(WorkflowKey(self.queue, untoken(id_token)), id_token, partition)
                self._instances[id_token] = instance
                partition.loading += 1
                instance.loading = []
                self._group.start_soon(self._load_attended, instance)

    async def _load_attended(self, instance: Instance) -> None:
        partition = instance.partition
        try:
            await self._load(instance)
        finally:
            partition.loading -= 1
        if len(self._instances) > self._resident_max:
            self._evict()
        self._attend(partition)

    def _load_soon(self, instance: Instance, news: Event | None = None) -> None:
        """Read the history. news: the event that is the reason; a replica that answers may not have it yet."""
        instance.loading = [] if news is None else [news]
        self._group.start_soon(self._load, instance, news)

    async def _load(self, instance: Instance, news: Event | None = None) -> None:
        delay_s = 0.05
        while not instance.partition.stopped and self._instances.get(instance.id_token) is instance:
            try:
                async with self._load_limit:
                    await self._load_once(instance, news)
            except TEMPORARY as error:
                _log.warning("workflow %r: history not read yet: %s", instance.key.id, error)
            except Exception:
                # We are wrong. This run stands still and is tried again now and then; all others go on.
                _log.exception("workflow %r cannot be loaded", instance.key.id)
                delay_s = LOAD_AGAIN_S
            else:
                return
            await anyio.sleep(delay_s)
            delay_s = min(delay_s * 2, LOAD_AGAIN_S)

    async def _load_once(self, instance: Instance, news: Event | None) -> None:
        key = instance.key
        self.history.know_partition(key, instance.partition.number)
        found = await self.history.only_run(key)
        opened = found[0] if found is not None else await self.history.open_run(key)
        if opened is None:
            await self._go_on_chain(instance, news)
            return
        try:
            start = opened.start
            spec = decode_start(start.data, parse_headers(start.raw_headers) if start.raw_headers else {})
        except Undecodable as error:
            self._refuse_start(instance, opened.run, error)
            return
        if found is not None and not spec.since:
            events = found[1]
        else:
            events = await self.history.events(key, opened.run, since=spec.since)
        if self._instances.get(instance.id_token) is not instance:
            return
        run = self._new_run(instance, opened.run, spec, _recorded_marks(opened.run, events))
        begun = time.perf_counter()
        if not await self._replay(instance, run, events):
            return
        self._replays += 1
        self._replayed_events += len(events)
        _log.debug(
            "workflow %r: %d events replayed in %.1f ms", key.id, len(events), (time.perf_counter() - begun) * 1e3
        )
        instance.run = run
        instance.used_s = self._loop.time()
        late, instance.loading = instance.loading or [], None
        if run.closed:
            self._forget(instance.id_token)
            return
        self._carry_out(instance, run, run.outstanding(), recovering=True)
        for event in late:
            if event.seq > run.last_seq and not run.closed and instance.run is run and instance.loading is None:
                self._feed(instance, run, event)
            elif instance.loading is not None:
                instance.loading.append(event)

    async def _replay(self, instance: Instance, run: Run, events: list[Event]) -> bool:
        last = last_step(events)
        early = [e for e in events if e.seq < run.run and e.kind in ("signal", "cancel")]
        for i, event in enumerate(events):
            try:
                if event.seq >= run.run:
                    run.apply(event, more=i < last)
                    if event.seq == run.run:
                        # What the former run had not seen belongs to this one.
                        for before in early:
                            run.apply(before, more=i < last)
                        run.last_seq = event.seq
            except OutOfMemory:
                instance.run = run
                self._vm_lost(instance)
                return False
            except (MachineFailed, CodeMissing) as error:
                run.suspended = str(error)
            if i % REPLAY_SLICE_EVENTS == REPLAY_SLICE_EVENTS - 1:
                await anyio.lowlevel.checkpoint()
        return True

    async def _go_on_chain(self, instance: Instance, news: Event | None) -> None:
        """No run is open. If the last one ended with a follow-up that was never started, start it now."""
        self._chains[instance.id_token] = instance.partition
        try:
            last = await self.history.last_run(instance.key)
            if news is not None and news.kind == "start" and (last is None or last[0].run < news.seq):
                newest = await self.history.last_start(instance.key)
                if newest is None or newest.run < news.seq:
                    raise NotFound(f"the start at sequence {news.seq} is not there yet: a replica lags behind")
            record = decode_end(last[1].data) if last is not None and last[1] is not None else None
            if record is not None and record.next_start:
                await self._start_next(instance, record)
        finally:
            self._chains.pop(instance.id_token, None)
        late = [event for event in instance.loading or () if event is not news]
        self._forget(instance.id_token)
        for event in late:
            self._take(instance.partition, event)

    # -- effects -----------------------------------------------------------------------------------------------

    def _carry_out(self, instance: Instance, run: Run, effects: list[Effect], *, recovering: bool = False) -> None:
        if instance.gate is not None:
            instance.gate += effects
            return
        for i, effect in enumerate(effects):
            if type(effect) is Dispatch:
                # What came up in events that no owner before us has seen cannot be under way anywhere.
                asked_before = recovering and (
                    instance.reloaded
                    or instance.partition.live_seq is None
                    or effect.op.issued_seq <= instance.partition.live_seq
                )
                self._calls.dispatch(instance.key, run, effect.op, recovering=asked_before)
            elif type(effect) is SetTimer:
                self._set_timer(instance, run, effect.name, effect.due_ns, recovering=recovering)
            elif type(effect) is Finish:
                self._finish(instance, run, effect)
            elif type(effect) is RetryLater:
                if effect.op.durable:
                    self._set_timer(instance, run, run.retry_tick(effect.op), effect.due_ns, recovering=recovering)
                elif recovering and effect.due_ns <= time.time_ns():
                    effect.op.due_ns = 0
                    self._calls.dispatch(instance.key, run, effect.op, recovering=True)
                else:
                    self._calls.retry_later(instance.key, run, effect.op, effect.due_ns)
                if effect.drop_seq:
                    self._group.start_soon(self._drop_attempt, effect.drop_seq)
            elif type(effect) is Perform:
                instance.unacked += 1
                self._group.start_soon(self._perform, instance, run, effect.op)
            elif type(effect) is Abandon:
                self._abandon(instance, run, effect.n, effect.op)
            elif type(effect) is WriteMark:
                # Nothing that follows from the decision may become visible before it is recorded.
                instance.gate = [*effects[i:]]
                self._group.start_soon(self._write_marks, instance, run)
                return
            elif type(effect) is Suspend:
                self._suspended(instance, effect)
            elif type(effect) is Log and not recovering:
                _log.info("%s", effect.text, extra={"workflow": instance.key.id, "run": run.run})

    def _set_timer(self, instance: Instance, run: Run, name: str, due_ns: int, *, recovering: bool) -> None:
        if recovering:
            instance.unacked += 1
            self._group.start_soon(self._restore_timer, instance, run, name, due_ns)
            return
        instance.unacked += 1

        def on_ack(ack: Ack) -> None:
            instance.unacked -= 1
            if ack.error is not None:
                self._in_trouble(instance, run, ack.error)

        subject = instance.key.schedule(instance.partition.number, run.run, name)
        self._outbox.write(subject, b"", timer_headers(instance.key, run.run, name, due_ns), on_ack)

    async def _restore_timer(self, instance: Instance, run: Run, name: str, due_ns: int) -> None:
        """Set a timer again unless the server still has it, or has fired it already."""
        subject = instance.key.schedule(instance.partition.number, run.run, name)
        tick = instance.key.stored(instance.partition.number, "tick", str(run.run), name)
        headers = timer_headers(instance.key, run.run, name, due_ns)
        stream = stream_name(self.queue)

        async def restore() -> None:
            if await self._js.get_last(stream, subject) is None and await self._js.get_last(stream, tick) is None:
                await self._outbox.write_acked(subject, b"", headers)

        try:
            await self._insist(restore, f"timer {name} of workflow {instance.key.id!r}")
        finally:
            instance.unacked -= 1

    async def _insist(self, action: Callable[[], Awaitable[T]], what: str) -> T:
        """Do it again and again until nothing temporary is in the way. Other errors are the caller's."""
        delay_s = 0.05
        while True:
            try:
                return await action()
            except TEMPORARY as error:
                _log.warning("%s: %s; trying again", what, error)
            await anyio.sleep(delay_s)
            delay_s = min(delay_s * 2, 2.0)

    def _in_trouble(self, instance: Instance, run: Run, error: MeshError) -> None:
        """A write that the run rests on was refused for good: read its history again and redo what lacks an outcome."""
        _log.error("workflow %r: %s; its history is read again", instance.key.id, error)
        self._group.start_soon(self._reload_later, instance, run)

    async def _reload_later(self, instance: Instance, run: Run) -> None:
        await anyio.sleep(TROUBLE_PAUSE_S)
        if self._instances.get(instance.id_token) is instance and instance.run is run and instance.loading is None:
            self._reload(instance)

    def _abandon(self, instance: Instance, run: Run, n: int, op: OpState | None) -> None:
        if op is None:
            return
        if op.kind == "timer":
            subject = instance.key.schedule(instance.partition.number, run.run, str(n))
            self._group.start_soon(self._purge, subject)
        elif op.kind == "call":
            self._calls.abandon(run, op)

    async def _purge(self, subject: str) -> None:
        try:
            await self._js.purge(stream_name(self.queue), subject=subject)
        except MeshError as error:
            _log.warning("%s: not taken back, its tick will be ignored: %s", subject, error)

    async def _drop_attempt(self, seq: int) -> None:
        try:
            await self._js.delete_message(stream_name(self.queue), seq)
        except MeshError as error:
            _log.debug("failed attempt at sequence %d kept: %s", seq, error)

    def _suspended(self, instance: Instance, effect: Suspend) -> None:
        _log.error("workflow %r is suspended: %s", instance.key.id, effect.reason)
        try:
            self._conn.publish_nowait(instance.key.note("suspended"), codec.encode(effect.reason))
        except Disconnected:
            return

    async def _write_marks(self, instance: Instance, run: Run) -> None:
        """Record the marks in the gate, also those that come up meanwhile, then let everything else go."""
        written: set[str] = set()
        while instance.run is run and instance.gate is not None:
            mark = next((e for e in instance.gate if isinstance(e, WriteMark) and e.name not in written), None)
            if mark is None:
                waiting, instance.gate = instance.gate, None
                self._carry_out(instance, run, [e for e in waiting if not isinstance(e, WriteMark)])
                return
            write = functools.partial(self._write_mark, instance, run, mark)
            fits = await self._insist(write, f"mark of workflow {instance.key.id!r}")
            if not fits:
                # Another owner has decided otherwise, and was first: think again with its decision.
                if self._instances.get(instance.id_token) is instance and instance.run is run:
                    self._reload(instance)
                return
            written.add(mark.name)
            run.mark_recorded(mark.name)

    async def _write_mark(self, instance: Instance, run: Run, mark: WriteMark) -> bool:
        """Record a mark; False when another value was recorded first."""
        subject = instance.key.mark(run.run, mark.name)
        try:
            await self._js.publish(subject, mark.payload, expect_last_subject_seq=0)
        except Conflict:
            stored = await self._js.get_last(
                stream_name(self.queue), instance.key.stored(instance.partition.number, *subject.split(".")[4:])
            )
            return stored is None or stored.data == mark.payload
        return True

    async def _perform(self, instance: Instance, run: Run, op: OpState) -> None:
        """Do something to another workflow, one after another per run, and record the outcome."""
        try:
            outcome = await self._others.perform(self.host, instance.key, run.run, op)
            await self._outbox.write_acked(run.ret_subject(op), outcome)
        except MeshError as error:
            self._in_trouble(instance, run, error)
        except Exception as error:
            _log.exception("workflow %r op %d (%s)", instance.key.id, op.n, op.kind)
            failure = Failure(f"{op.kind} failed in the node: {error}", Kind.INTERNAL, False)
            self._outbox.write(run.ret_subject(op), codec.encode_failure(failure))
        finally:
            instance.unacked -= 1

    # -- calls -------------------------------------------------------------------------------------------------

    def _call_is_open(self, run: Run, op: OpState) -> bool:
        """Whether a call still lacks its outcome, and this instance is the one that waits for it."""
        instance = self._instances.get(run.id_token)
        if instance is None or instance.run is not run or run.finished is not None or run.suspended:
            return False
        return run.open.get(op.n) is op

    def _call_failed(self, _key: WorkflowKey, run: Run, op: OpState, failure: Failure) -> None:
        """A call has failed by our own knowledge (host lost, timeout, nobody offers it): say so in the history."""
        instance = self._instances.get(run.id_token)

        def on_ack(ack: Ack) -> None:
            if ack.error is not None and instance is not None:
                self._in_trouble(instance, run, ack.error)

        self._outbox.write(run.ret_subject(op), codec.encode_failure(failure), None, on_ack)

    # -- ending ------------------------------------------------------------------------------------------------

    def _finish(self, instance: Instance, run: Run, finish: Finish) -> None:
        timers = run.deadline_ns or any(op.kind == "timer" for op in run.open.values())
        for op in list(run.open.values()):
            if op.kind == "call":
                self._calls.abandon(run, op)
        instance.unacked += 1
        if finish.children or run.spec.parent is not None or timers or finish.record.next_start:
            self._chains[instance.id_token] = instance.partition
            self._group.start_soon(self._finish_slowly, instance, run, finish, bool(timers))
            return

        def on_ack(ack: Ack) -> None:
            instance.unacked -= 1
            if isinstance(ack.error, PayloadTooLarge):
                self._outbox.write(instance.key.end(run.run), _too_large(finish.record, ack.error).encode())
            elif ack.error is not None:
                self._in_trouble(instance, run, ack.error)

        self._outbox.write(instance.key.end(run.run), finish.record.encode(), None, on_ack)

    async def _finish_slowly(self, instance: Instance, run: Run, finish: Finish, timers: bool) -> None:
        """Children, parent, end, next run: in this order, each acknowledged, all of it harmless to repeat."""
        what = f"end of workflow {instance.key.id!r}"
        try:
            for child in finish.children:
                await self._insist(functools.partial(self._tell_child, instance.key, run, child), what)
            record = await self._insist(lambda: self._tell_parent(instance.key, run, finish.record), what)
            await self._insist(lambda: self._write_end(instance.key, run, record), what)
            if timers:
                await self._purge(instance.key.schedule(instance.partition.number, run.run, "*"))
            if record.next_start:
                await self._insist(lambda: self._start_next(instance, record), what)
        except MeshError as error:
            self._in_trouble(instance, run, error)
        finally:
            instance.unacked -= 1
            self._chains.pop(instance.id_token, None)

    async def _tell_child(self, key: WorkflowKey, run: Run, child: ChildAtEnd) -> None:
        try:
            child_key = await self._others.child_key(self.host, key, run.run, child.op)
            if child_key is not None:
                once = f"{key.queue}/{key.id}/{run.run}/{child.op.n}/{child.verb}"
                await self._outbox.write_acked(child_key.subject(child.verb), b"", {"Nats-Msg-Id": once})
        except InvalidName:
            return  # such a child was never started

    async def _tell_parent(self, key: WorkflowKey, run: Run, record: EndRecord) -> EndRecord:
        """Tell the parent, if there is one and this is the end; return the record as the parent has it."""
        parent = run.spec.parent
        if parent is None or record.next_start:
            return record
        subject, headers = parent.key.exit(parent.run, parent.n), {HEADER_FROM: self.host.pid(key.id)}
        try:
            await self._outbox.write_acked(subject, _wrapped(record.outcome, key, run), headers)
        except PayloadTooLarge as error:
            record = _too_large(record, error)
            await self._outbox.write_acked(subject, record.outcome, headers)
        except NotFound as error:
            _log.warning("workflow %r: its parent cannot be told: %s", key.id, error)
        return record

    async def _write_end(self, key: WorkflowKey, run: Run, record: EndRecord) -> None:
        try:
            await self._outbox.write_acked(key.end(run.run), record.encode())
        except PayloadTooLarge as error:
            await self._outbox.write_acked(key.end(run.run), _too_large(record, error).encode())

    async def _start_next(self, instance: Instance, record: EndRecord) -> None:
        """Start the run that follows. Somebody else may have done it: then the expectation fails, and all is well."""
        key = instance.key
        last = await self.history.last_start(key)
        ended = await self.history.last_run(key)
        if last is None or ended is None or ended[1] is None or last.run > ended[1].seq:
            return
        try:
            await self._js.publish(key.start(), record.next_start, expect_last_subject_seq=last.run)
        except Conflict:
            return

    # -- looking in --------------------------------------------------------------------------------------------

    async def describe(self, workflow_id: str) -> dict[str, Any] | None:
        """What a workflow of an owned partition is doing; it is loaded for that. None when no run is open."""
        key = WorkflowKey(self.queue, workflow_id)
        number = await self.history.partition_of(key)
        partition = self._partitions.get(number) if number is not None else None
        if partition is None:
            return None
        id_token = key.stored(0).rsplit(".", 1)[1]
        instance = self._instances.get(id_token)
        if instance is None:
            instance = Instance(key, id_token, partition)
            self._instances[id_token] = instance
            self._load_soon(instance)
        with anyio.move_on_after(5):
            while instance.loading is not None and self._instances.get(id_token) is instance:  # noqa: ASYNC110
                # People ask this now and then; an event for each load would cost every load.
                await anyio.sleep(0.005)
        run = instance.run
        if run is None:
            return None
        return self._describe_run(run)

    def _describe_run(self, run: Run) -> dict[str, Any]:
        waiting = []
        for op in run.open.values():
            item: dict[str, Any] = {"n": op.n, "kind": op.kind, "since_ns": op.issued_ns}
            if op.target:
                item["target"] = op.target
            if op.kind == "call":
                item["attempt"] = op.attempt
                if op.last_failure:
                    item["last_error"] = op.last_failure
                if op.failed_seq and op.due_ns:
                    item["next_attempt_ns"] = op.due_ns
            elif op.due_ns:
                item["due_ns"] = op.due_ns
            waiting.append(item)
        machine = run.machine
        stacks = machine.stacks() if machine is not None and not run.suspended else []
        return {
            "run": run.run, "workflow": run.spec.workflow, "status": "suspended" if run.suspended else "running",
            "reason": run.suspended, "waiting": waiting, "children": [child_pid(op) for op in run.children.values()],
            "stacks": stacks, "started_ns": run.started_ns, "attempt": run.spec.attempt,
            "delayed_until_ns": run.delayed_until_ns, "deadline_ns": run.deadline_ns,
            "cancel_requested": run.cancel_requested, "events": run.length,
        }  # fmt: skip

    @property
    def _group(self) -> anyio.abc.TaskGroup:
        if self._tasks is None:
            raise RuntimeError("the engine is not running")
        return self._tasks


def _recorded_marks(run: int, events: list[Event]) -> dict[str, Any]:
    marks: dict[str, Any] = {}
    for event in events:
        if event.kind == "mark" and event.run == run:
            name = untoken(event.args[1])
            try:
                value = codec.decode(event.data)
            except Undecodable:
                value = event.data
            # Somebody else's nonsense stands for ever: the code is told what it is. None would look like no mark.
            marks.setdefault(name, b"" if value is None else value)
    return marks


def _wrapped(outcome: bytes, key: WorkflowKey, run: Run) -> bytes:
    """A child's outcome as its parent sees it: a failure says which child it was (contract 11.7)."""
    ok, value = codec.decode_outcome(outcome)
    if ok or not isinstance(value, Failure):
        return outcome
    details = {
        **value.details, "_wrapper": "child_workflow", "_workflow_id": key.id, "_workflow_type": run.spec.workflow,
        "_run_id": str(run.run),
    }  # fmt: skip
    return codec.encode_failure(replace(value, details=details))


def _too_large(record: EndRecord, error: PayloadTooLarge) -> EndRecord:
    failure = Failure(
        f"the result takes {error.payload_bytes} bytes, the server takes at most {error.payload_bytes_max}; "
        "return a reference",
        Kind.INVALID,
        False,
    )
    return EndRecord("failed", codec.encode_failure(failure))


__all__ = ["Engine", "Instance", "Partition", "Statistics"]
