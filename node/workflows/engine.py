"""The workflow engine of one queue on one node: partitions in, runs fed, effects carried out.

The hot path is synchronous: a partition's follower appends what came in, one loop takes it off in batches, feeds each
event to its run (`node.workflows.run`, pure) and carries out what comes back. What has to wait (loading a history,
starting a child, ending a run that others must be told of) is a task of its own; what it needs to say it writes into
the history, where it comes back as an event. So there is one way in for everything that happens.

Here are that loop and what puts the parts together:

    following ──events──> engine ──feeds──> run ──effects──> effects ──> calls, timers, others, ending
        │                   │
        └─── instances ─────┴──> loading (histories; after a takeover, for news, when something went wrong)

Invariants:
  * a run is fed in stream order and each event once: `run.last_seq` decides;
  * nothing is fed while the node's lease is over (`roster.may_act`).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.abc

from mesh.connection import Connection
from mesh.envelopes import Opened, may_open_later, why_unread
from mesh.errors import CannotLookBack, MeshError, Undecodable
from mesh.events import Event, decode_end, decode_start, parent_in_headers, parse
from mesh.follower import Delivered
from mesh.history import History
from mesh.hosts import HostRecord, Hosts
from mesh.imported import import_of, is_resumption
from mesh.jetstream import JetStream
from mesh.membership import Claim
from mesh.outbox import Outbox
from mesh.references import is_reference
from mesh.roster import Roster
from mesh.subjects import WorkflowKey
from mesh.wire import parse_headers
from node.machine.code import Code, CodeMissing
from node.machine.vm import MachineFailed, OutOfMemory
from node.refusals import Refusals
from node.registry import WorkerOptions
from node.telemetry.witness import Witness
from node.units.naming import Naming
from node.units.switchboard import Switchboard
from node.watchdog import Running
from node.workflows.background import Background
from node.workflows.calls import Take
from node.workflows.describing import described, looked_at
from node.workflows.effects import Effects
from node.workflows.ending import Ending
from node.workflows.fetching import Fetching
from node.workflows.following import Following
from node.workflows.instances import LARGE_PAYLOAD_BYTES, Instance, Instances
from node.workflows.loading import CAME_IN_PLAIN, Loading
from node.workflows.long_histories import LongHistories
from node.workflows.looking_back import LookingBack
from node.workflows.opening import Opening
from node.workflows.ops import Suspend
from node.workflows.orphans import Orphans
from node.workflows.others import Others
from node.workflows.partition import Partition
from node.workflows.replaying import fault_of_ours
from node.workflows.retention import Retention
from node.workflows.run import Run
from node.workflows.slack import Slack
from node.workflows.timers import Timers
from node.workflows.vms import VMs
from store.streams import QueueStream

if TYPE_CHECKING:
    from node.telemetry.tracing import Tracing

RESIDENT_MAX: Final = 2000  # quiet runs kept in memory; the least recently used go first
LEASE_LOOK_S: Final = 0.05
# Events that are handled before the loop lets I/O go on, and for how long: a step may take long by itself.
BATCH_EVENTS: Final = 128
BATCH_S: Final = 0.02
CHECKPOINT_EVERY_S: Final = 1.0
# With more events that wait, or writes without an acknowledgement, this node is behind with what is new.
BEHIND_EVENTS: Final = 64
BEHIND_WRITES: Final = 128
DESCRIBE_LOAD_S: Final = 5.0
SUSPENDED_MAX: Final = 1000  # told at once: an answer is one message
OPS_REPLAY_S: Final = 3.0  # for a table that is good to have; whoever wants a state may wait longer

REASON_ENCRYPTED: Final = "for a reason that is encrypted; `mesh show ID --keys FILE` says it"

_FIRST_START: Final = b"\r\nNats-Expected-Last-Subject-Sequence: 0\r\n"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Statistics:
    """What an engine is doing at the moment. purged: how many runs there were.

    catching_up: partitions that were claimed and of which is not known yet what needs attention.
    attention: runs that need it after a takeover and are not loaded yet, as far as is known.
    """

    partitions: int
    catching_up: int
    attention: int
    resident: int
    calls_in_flight: int
    replays: int
    replayed_events: int
    evictions: int
    suspended: int
    purged: int


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
        options: WorkerOptions,
        stream: QueueStream,
        code: Code,
        call_defaults: Callable[[str], Mapping[str, Any]],
        foreign: Mapping[str, tuple[str, str]],
        hosts_of: Callable[[str], int],
        switchboard: Switchboard,
        naming: Naming,
        resident_max: int = RESIDENT_MAX,
        tracing: Tracing | None = None,
        take_call: Take | None = None,
    ) -> None:
        self.queue = stream.queue
        self.stream = stream
        self.host = host
        self.history = History(js, stream.queue)
        self.witness = witness = Witness(tracing)
        self._roster = roster
        self._codec = conn.codec
        self._loop = asyncio.get_running_loop()
        self._scheduled = False
        self._failure: Exception | None = None
        self._failed = anyio.Event()
        self._background = background = Background()
        self._instances = instances = Instances(host, resident_max, options.sticky_timeout_s, self._loop.time)
        self._slack = Slack()
        self._vms = VMs(Opening(code, host, call_defaults, log_in_replay=options.log_in_replay))
        looking_back = Opening(code, host, call_defaults)
        self._looking_back = LookingBack(lambda _key, _spec: looking_back)
        self._refusals = Refusals(_log)
        self._following = Following(
            conn=conn, js=js, roster=roster, queue=stream.queue, instances=instances, background=background,
            wake=self._wake, reload=self._reload, clock=self._loop.time,
        )  # fmt: skip
        others = Others(js, hosts, code, switchboard, naming)
        timers = Timers(js, outbox, stream.queue, background=background, in_trouble=self._in_trouble)
        self._ending = Ending(
            js=js, outbox=outbox, history=self.history, host=host, instances=instances, others=others, timers=timers,
            background=background, in_trouble=self._in_trouble,
        )  # fmt: skip
        self._effects = Effects(
            conn=conn, js=js, outbox=outbox, roster=roster, host=host, foreign=foreign, hosts_of=hosts_of,
            instances=instances, others=others, timers=timers, ending=self._ending, background=background,
            reload=self._reload, in_trouble=self._in_trouble, witness=witness, take_call=take_call,
        )  # fmt: skip
        # Payloads out of an object store are read one after the other, as they are replayed.
        reading = JetStream(conn, lazily=True)
        self._fetching = Fetching(
            js, instances=instances, background=background, may_act=roster.may_act, feed=self._apply, take=self._take
        )
        self._loading = Loading(
            js=reading, history=History(reading, stream.queue), instances=instances, vms=self._vms,
            ending=self._ending, effects=self._effects,
            background=background, clock=self._loop.time, feed=self._feed, take=self._take,
            is_behind=lambda: len(self._inbox) > BEHIND_EVENTS or outbox.pending_count > BEHIND_WRITES,
            log_in_replay=options.log_in_replay, witness=witness, only_encrypted=host.encrypted,
        )  # fmt: skip
        self._long_histories = LongHistories(options.history_events_warn, options.history_bytes_warn)
        self._retention = Retention(
            conn=conn, js=js, may_act=roster.may_act, queue=stream.queue, partitions=self._following.partitions,
            retention_s=options.retention_s,
        )  # fmt: skip
        self._orphans = Orphans(conn, stream.queue, partitions=self._following.partitions, may_act=roster.may_act)
        # What the hot path uses of the parts, once per event.
        self._inbox: deque[tuple[Partition, int, Delivered | None]] = self._following.inbox
        self._by_token = instances.by_token
        self._carry_out = self._effects.carry_out
        self._note = witness.note
        self._activated = witness.counts.activations.observe

    @property
    def partitions(self) -> dict[int, Partition]:
        """The partitions this node runs, by number."""
        return self._following.partitions

    def statistics(self) -> Statistics:
        """What this engine is doing."""
        runs = [i.run for i in self._by_token.values() if i.run is not None]
        suspended = sum(1 for run in runs if run.suspended)
        calls = sum(run.ops.calls for run in runs)
        partitions = self.partitions.values()
        return Statistics(
            len(partitions), sum(p.catchup is not None for p in partitions),
            sum(len(p.attention) + p.loading for p in partitions), len(self._by_token), calls,
            self._loading.replays, self._loading.replayed_events,
            self._instances.evictions, suspended, self._retention.purged,
        )  # fmt: skip

    @property
    def running(self) -> Running | None:
        """The run whose code is being executed right now; asked from another thread."""
        run = self._instances.running
        return Running(run.key, run.run) if run is not None else None

    @property
    def loading(self) -> int:
        """How many workflows are being read from their histories."""
        return sum(instance.loading is not None for instance in self._by_token.values())

    def lags(self) -> dict[int, int]:
        """Events that are stored and not handled yet, by partition, as far as this node knows.

        What the server has not sent yet of partitions that are followed together is taken to be of all alike.
        """
        waiting = Counter(partition.number for partition, _, message in self._inbox if message is not None)
        return {
            number: waiting[number] + partition.together.pending // len(partition.together.members)
            for number, partition in self.partitions.items()
        }

    def suspended(self) -> list[dict[str, Any]]:
        """The runs that cannot go on, and why; at most SUSPENDED_MAX.

        Where payloads are encrypted, only that a key is missing is told: any other reason may hold what users wrote.
        """
        found = (i for i in self._by_token.values() if i.run is not None and i.run.suspended)
        return [
            {"queue": self.queue, "id": i.key.id, "run": i.run.run, "reason": self._told(i.run)}
            for i in itertools.islice(found, SUSPENDED_MAX)
            if i.run is not None
        ]

    def _told(self, run: Run) -> str:
        return run.suspended if self._codec is None or run.waits_for_key else REASON_ENCRYPTED

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled. Ready at once; partitions are added by `take`."""
        try:
            async with anyio.create_task_group() as tasks:
                self._background.begin(tasks)
                await tasks.start(self._effects.calls.run)
                tasks.start_soon(self._raise_failure)
                tasks.start_soon(self._tidy_for_ever)
                tasks.start_soon(self._retention.run)
                tasks.start_soon(self._orphans.run)
                task_status.started()
        finally:
            # Writes that have no answer yet are given up after this, and short timers are still to come.
            for partition in self.partitions.values():
                partition.stopped = True

    def take(self, claim: Claim, busy: tuple[str, ...], *, handed_over: bool = False) -> None:
        """Run a partition that was just claimed, from its checkpoint on; handed_over: its last owner released it."""
        partition = self._following.take(claim, busy, handed_over=handed_over)
        partition.taken_s = self._loop.time()
        if handed_over:
            # What the last owner named is exact: read while the follower is set up. What comes meanwhile waits for it.
            partition.attention = deque(busy)
            self._loading.attend(partition)

    def drop(self, number: int) -> tuple[Claim, tuple[int, int], tuple[str, ...]] | None:
        """Stop running a partition; return its claim, how far it was handled and when, and which runs are busy."""
        return self._following.drop(number)

    async def describe(self, workflow_id: str, *, full: bool = False) -> dict[str, Any] | None:
        """What a workflow of an owned partition is doing; it is loaded for that. None when no run is open.

        full: also where its code stands, with what variables hold, and its ops, as in `node.workflows.looking_back`.
        """
        key = WorkflowKey(self.queue, workflow_id)
        number = await self.history.partition_of(key)
        partition = self.partitions.get(number) if number is not None else None
        if partition is None:
            return None
        id_token = key.stored(0).rsplit(".", 1)[1]
        instance = self._by_token.get(id_token)
        if instance is None:
            instance = self._instances.add(id_token, partition)
            self._loading.load_soon(instance)
        with anyio.move_on_after(DESCRIBE_LOAD_S):
            while (instance.loading is not None or instance.fetching is not None) and self._instances.holds(instance):  # noqa: ASYNC110
                # People ask this now and then; an event for each load would cost every load.
                await anyio.sleep(0.005)
        run = instance.run
        if run is None:
            return None
        state = described(run)
        state["history_warning"] = self._long_histories.warning(run)
        if full:
            if run.machine is not None:
                state |= looked_at(run, run.machine)
            state |= await self._ops(key, run.run)
        return state

    async def look_back(self, workflow_id: str, run: int, seq: int = 0) -> dict[str, Any]:
        """How a run was at the event with a stream sequence, the newest by default; it may have ended.

        Raises CannotLookBack.
        """
        key = WorkflowKey(self.queue, workflow_id)
        return await self._looking_back.at(key, run, await self.history.events(key, run), seq)

    async def _ops(self, key: WorkflowKey, run: int) -> dict[str, Any]:
        try:
            events = await self.history.events(key, run)
            seen = await self._looking_back.at(key, run, events, seconds=OPS_REPLAY_S)
        except CannotLookBack as error:
            return {"ops": [], "ops_problem": str(error)}
        return {"ops": seen["ops"], "suspended_seq": seen["suspended_seq"]}

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
        inbox, following = self._inbox, self._following
        if not self._roster.may_act():
            # Others may own what this node thinks it owns. What came in is kept until that is settled.
            if not self._scheduled:
                self._scheduled = True
                self._loop.call_later(LEASE_LOOK_S, self._drain)
            return
        ends_s = perf_counter() + BATCH_S
        for _ in range(min(BATCH_EVENTS, len(inbox))):
            partition, epoch, message = inbox.popleft()
            if message is not None:
                following.inbox_bytes -= len(message.data)
            if partition.stopped or epoch != partition.epoch:
                continue
            if message is None:
                self._caught_up(partition)
            else:
                self._handle(partition, message)
            if perf_counter() > ends_s:
                break
        self._instances.evict_surplus()
        if following.paused:
            following.resume()
        if inbox:
            self._wake()

    def _handle(self, partition: Partition, message: Delivered) -> None:
        partition.handled_seq, partition.handled_ns = message.seq, message.timestamp_ns
        event = parse(message.subject, message.seq, message.timestamp_ns, message.data, message.raw_headers)
        if event is None:
            self._refusals.note(
                "ignored: %s (sequence %d) is no event of a workflow",
                message.subject, message.seq, extra=self._about(partition),
            )  # fmt: skip
            return
        self._take(partition, event)

    def _take(self, partition: Partition, event: Event) -> None:
        if partition.catchup is not None:
            partition.catchup.note(event)
            if event.id_token not in self._by_token:
                return
        instance = self._by_token.get(event.id_token)
        if instance is None:
            self._first_news(partition, event)
            return
        if instance.loading is not None:
            instance.loading.append(event)
            return
        run = instance.run
        if run is None or event.seq <= run.last_seq:
            return
        if run.is_unread and event.kind == "start" and event.seq != run.run:
            self._loading.reload(instance)  # perhaps one that can be read
            return
        self._by_token.move_to_end(event.id_token)
        instance.used_s = self._loop.time()
        self._feed(instance, run, event)

    def _feed(self, instance: Instance, run: Run, event: Event) -> None:
        if instance.fetching is not None or is_reference(event.data):
            self._fetching.hold(instance, run, event)
        else:
            self._apply(instance, run, event)

    def _apply(self, instance: Instance, run: Run, event: Event) -> None:
        if len(event.data) > LARGE_PAYLOAD_BYTES:
            self._instances.note_large(instance, len(event.data))
        begun_s = perf_counter()
        events, payload_bytes = run.length, run.size
        self._instances.running = run
        try:
            effects = run.apply(event)
        except OutOfMemory:
            self._loading.vm_lost(instance)
            return
        except (MachineFailed, CodeMissing) as error:
            run.suspended = str(error)
            effects = [Suspend(run.suspended)]
        except Exception as error:
            # We are wrong. It is this run that cannot go on: were it the node, the same event would fell every node
            # that takes the partition over, one after the other.
            _log.exception("workflow %r is suspended by a fault of moonmesh", run.key.id, extra=instance.about())
            run.suspended = fault_of_ours(event, error)
            effects = [Suspend(run.suspended)]
        finally:
            self._instances.running = None
        self._activated(perf_counter() - begun_s)
        self._note(run, event, effects)
        if run.closed:
            self._instances.forget(instance.id_token)
            return
        if self._long_histories.has_become_long(run, events, payload_bytes):
            self.witness.history_is_long(run.type_name)
            extra = instance.about() | {"events": run.length, "bytes": run.size}
            _log.warning("workflow %r: %s", run.key.id, self._long_histories.warning(run), extra=extra)
        if effects:
            self._carry_out(instance, run, effects)

    def _first_news(self, partition: Partition, event: Event) -> None:
        """Something happens to a workflow that is not in memory."""
        if import_of(event.raw_headers) is not None:
            return  # it happened elsewhere
        if (event.kind in ("claim", "mark", "attrs") and not is_resumption(event)) or (
            event.kind == "end" and not decode_end(event.data).may_go_on
        ):
            return  # nothing follows from these alone
        instance = self._instances.add(event.id_token, partition)
        instance.used_s = self._loop.time()
        if (
            event.kind == "start"
            and event.raw_headers
            and _FIRST_START in event.raw_headers
            and not is_reference(event.data)
        ):
            # Stored as the first start ever of this id: there is no history to read.
            self._begin(instance, event)
        else:
            self._loading.load_soon(instance, event)

    def _begin(self, instance: Instance, event: Event) -> None:
        if may_open_later(event.data):
            parent = parent_in_headers(event.headers)
            self._loading.wait_for_key(instance, event.seq, f"its start is {why_unread(event.data)}", parent=parent)
            return
        try:
            spec = decode_start(event.data, parse_headers(event.raw_headers) if event.raw_headers else {})
        except Undecodable as error:
            self._ending.refuse_start(instance, event.seq, error)
            return
        if self.host.encrypted and type(event.data) is not Opened:
            self._ending.refuse_start(instance, event.seq, Undecodable(CAME_IN_PLAIN))
            return
        if spec.since or spec.base is not None:
            self._loading.load_soon(instance)
            return
        run = self._vms.new_run(instance, event.seq, spec, {})
        self.witness.opened(run, event.raw_headers)
        instance.run = run
        self._feed(instance, run, event)

    def _caught_up(self, partition: Partition) -> None:
        catchup, partition.catchup = partition.catchup, None
        if catchup is None:
            return
        if partition.live_seq is None:
            partition.live_seq = partition.handled_seq
        partition.attention = deque(catchup.attention())
        if partition.attention:
            _log.info(
                "queue %s partition %d: %d runs need attention", self.queue, partition.number, len(partition.attention),
                extra=self._about(partition),
            )  # fmt: skip
        self._loading.attend(partition)

    def _about(self, partition: Partition) -> dict[str, object]:
        return {"queue": self.queue, "partition": partition.number}

    # -- beside the loop ---------------------------------------------------------------------------------------

    async def _raise_failure(self) -> None:
        await self._failed.wait()
        if self._failure is not None:
            raise self._failure

    async def _tidy_for_ever(self) -> None:
        while True:
            await anyio.sleep(CHECKPOINT_EVERY_S)
            self._instances.evict_idle()
            # What was busy when the last message came: perhaps no other comes for hours.
            self._instances.evict_surplus()
            self._following.gather()
            await self._following.save_checkpoints()
            await self._slack.give_back(self._instances.evictions, self._loop.time())

    def node_gone(self) -> None:
        """Another node is gone, perhaps with calls of this one's workflows."""
        self._effects.calls.node_gone()

    def keys_changed(self) -> None:
        """The keyring has other keys: what could not be opened is read again."""
        for instance in list(self._by_token.values()):
            if instance.run is not None and instance.run.waits_for_key and instance.loading is None:
                self._loading.reload(instance)

    # Effects come from loading and lead to it: they reach it through these two.

    def _reload(self, instance: Instance) -> None:
        self._loading.reload(instance)

    def _in_trouble(self, instance: Instance, run: Run, error: MeshError) -> None:
        self._loading.in_trouble(instance, run, error)


__all__ = ["Engine", "Statistics"]
