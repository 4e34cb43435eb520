"""Reading workflows from their histories: after a takeover, for news of one that is not in memory, and again.

The history is read, replayed, and what still lacks an outcome is carried out again; events that come meanwhile wait in
`instance.loading` and are fed after it.

Invariants:
  * an instance is loaded by one task at a time, and given up as soon as it is not the one of its workflow any more;
  * after a takeover no more than LOADING_MAX runs of a partition and the next batch are being loaded, there may be very
    many;
  * while an instance is loaded its events wait: what went live and failed then is given up before it is read again.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import dropwhile
from typing import Final

import anyio
import anyio.lowlevel

from mesh import codec
from mesh.envelopes import Opened, may_open_later, why_unread
from mesh.errors import TEMPORARY, MeshError, NotFound, Undecodable, Unreadable
from mesh.events import EndRecord, Event, Parent, StartSpec, decode_end, parent_in_headers
from mesh.failure import Failure, Kind
from mesh.history import History, OpenRun, RunOutcome
from mesh.imported import is_held
from mesh.jetstream import JetStream
from mesh.lineage import taken_over
from mesh.references import is_reference
from mesh.subjects import WorkflowKey, is_canonical
from mesh.wire import parse_headers
from node.machine.vm import OutOfMemory
from node.telemetry.run_trace import RunTrace
from node.telemetry.witness import Witness
from node.workflows.background import Background
from node.workflows.effects import Effects
from node.workflows.ending import Ending
from node.workflows.fetching import fetched
from node.workflows.instances import LARGE_PAYLOAD_BYTES, Instance, Instances
from node.workflows.ops import Finish, Log, OpState
from node.workflows.partition import Partition
from node.workflows.replaying import Step, closed_mark, recorded_marks, replay_steps
from node.workflows.run import Run, is_forced
from node.workflows.vms import VMs

# A replay lets the loop turn after so many events, or after so long: a step may take long by itself.
REPLAY_SLICE_EVENTS: Final = 100
REPLAY_SLICE_S: Final = 0.02
LOADS_MAX: Final = 16
LOAD_AGAIN_S: Final = 5.0
# After a takeover: how many runs of a partition are read together, how many such reads go on at a time, how many runs
# are read that have to be by themselves, and for how long those that were read are replayed before the loop turns.
ATTENTION_AT_ONCE: Final = 64
BATCHES_MAX: Final = 2
ATTENDED_MAX: Final = 8
# With so many of a partition that are read by themselves, or wait for that, the next ones are not begun: there may be a
# million, of workflows that have gone on as another run.
LOADING_MAX: Final = 512
ATTENTION_SLICE_S: Final = 0.005
# Where no more than these are left in a partition, they wait for nothing. Before more than these, new work goes first,
# but not for long at a time: there may be no end to it.
FEW: Final = 8
ATTENTION_LOOK_S: Final = 0.002
ATTENTION_WAITS_S: Final = 0.1
TROUBLE_PAUSE_S: Final = 1.0
CAME_IN_PLAIN: Final = "came in plain, and its worker takes only what is encrypted"
UNKNOWN_WORKFLOW: Final = "?"

_log = logging.getLogger(__name__)


class Loading:
    """Loads the instances of one queue.

    js: reads payloads out of an object store lazily, as history does.
    feed: applies an event to a loaded run. take: hands in an event as if it had just come.
    log_in_replay: whether what the code logged before is logged again when it is replayed.
    is_behind: whether this node has much to do that has just come in, or that it waits for the server with.
    only_encrypted: whether the worker takes only starts that come encrypted.
    replays, replayed_events: how many there were.
    """

    def __init__(
        self,
        *,
        js: JetStream,
        history: History,
        instances: Instances,
        vms: VMs,
        ending: Ending,
        effects: Effects,
        background: Background,
        clock: Callable[[], float],
        feed: Callable[[Instance, Run, Event], None],
        take: Callable[[Partition, Event], None],
        is_behind: Callable[[], bool],
        witness: Witness,
        log_in_replay: bool = False,
        only_encrypted: bool = False,
    ) -> None:
        self.replays = 0
        self.replayed_events = 0
        self._js = js
        self._history = history
        self._instances = instances
        self._vms = vms
        self._ending = ending
        self._effects = effects
        self._background = background
        self._clock = clock
        self._feed = feed
        self._take = take
        self._is_behind = is_behind
        self._witness = witness
        self._log_in_replay = log_in_replay
        self._only_encrypted = only_encrypted
        # Those after a takeover have places of their own: what has news is not to wait behind thousands of them.
        self._limit = anyio.CapacityLimiter(LOADS_MAX)
        self._attended = anyio.CapacityLimiter(ATTENDED_MAX)
        self._limit_of_few = anyio.CapacityLimiter(LOADS_MAX)
        self._limit_of_many = anyio.CapacityLimiter(BATCHES_MAX)

    # -- reasons -----------------------------------------------------------------------------------------------

    def load_soon(self, instance: Instance, news: Event | None = None) -> None:
        """Read the history. news: the event that is the reason; a replica that answers may not have it yet."""
        instance.loading = [] if news is None else [news]
        self._background.start_soon(self._load, instance, news)

    def attend(self, partition: Partition) -> None:
        """Load the runs that need attention after a takeover, many at a time; a call while that goes on is harmless."""
        if not partition.attended:
            partition.attended = True
            self._background.start_soon(self._attend, partition)

    def reload(self, instance: Instance) -> None:
        """Read the history again and redo what lacks an outcome."""
        waiting = self._give_up_run(instance)
        self.load_soon(instance)
        if instance.loading is not None and waiting:
            instance.loading += waiting

    def _give_up_run(self, instance: Instance) -> list[Event]:
        """Let go of what an instance runs; returns the events that wait for a payload."""
        if instance.run is not None:
            instance.run.close()
            instance.run = None
        self._instances.forget_large(instance)
        instance.gate = None
        instance.reloaded = True
        waiting, instance.fetching = instance.fetching, None
        return waiting or []

    def _stand_back(self, instance: Instance) -> None:
        """It has failed and is read again: were it live meanwhile, what comes would not reach the run that is read."""
        if instance.loading is None and self._instances.holds(instance):
            instance.loading = self._give_up_run(instance)

    def in_trouble(self, instance: Instance, run: Run, error: MeshError) -> None:
        """A write that the run rests on was refused for good: reload, a little later."""
        if instance.partition.stopped:
            return
        _log.error("workflow %r: %s; its history is read again", instance.key.id, error, extra=instance.about())
        self._background.start_soon(self._reload_later, instance, run)

    def wait_for_key(
        self, instance: Instance, run: int, reason: str, *, parent: Parent | None, workflow: str = UNKNOWN_WORKFLOW,
        seen_seq: int = 0,
    ) -> None:  # fmt: skip
        """Suspend a workflow of which nothing is known but that its history is encrypted with a key we do not have.

        Whatever happens to it meanwhile stays in its history. It is read again when there are other keys, or another
        start. parent: is told should it be ended by force. seen_seq: up to which event nothing is news.
        """
        unread = self._vms.new_run(instance, run, StartSpec(workflow=workflow, parent=parent), {})
        unread.last_seq = seen_seq
        unread.suspended, unread.waits_for_key, unread.is_unread = reason, True, True
        self._go_live(instance, unread)

    def _end_if_forced(self, instance: Instance, run: int, events: list[Event]) -> None:
        """End a run that nobody can read, if that was asked for before it was looked at here."""
        forced = next((event for event in events if event.seq > run and is_forced(event)), None)
        unread = instance.run
        if forced is not None and unread is not None and unread.run == run and unread.finished is None:
            self._feed(instance, unread, forced)

    def _stand_still(self, instance: Instance, run: int, spec: StartSpec, reason: str) -> None:
        suspended = self._vms.new_run(instance, run, spec, {})
        suspended.suspended = reason
        self._go_live(instance, suspended)

    def vm_lost(self, culprit: Instance) -> None:
        """A VM is out of memory: its runs are replayed in a new one, the one that was running in one of its own."""
        _log.warning(
            "a Lua VM is out of memory in workflow %r; its runs are replayed", culprit.key.id, extra=culprit.about()
        )
        if culprit.quarantined:
            run = culprit.run
            failure = Failure("the workflow took more memory than a run may have", Kind.INTERNAL, False)
            if run is not None:
                run.close()
                run.finished = Finish(EndRecord("failed", codec.encode_failure(failure)), ())
                culprit.loading = None
                self._effects.carry_out(culprit, run, [run.finished])
            return
        culprit.quarantined = True
        self._vms.replace_shared()
        for instance in list(self._instances.by_token.values()):
            if (instance.loading is None and not instance.quarantined) or instance is culprit:
                self.reload(instance)

    async def _reload_later(self, instance: Instance, run: Run) -> None:
        await anyio.sleep(TROUBLE_PAUSE_S)
        if self._instances.holds(instance) and instance.run is run and instance.loading is None:
            self.reload(instance)

    # -- reading -----------------------------------------------------------------------------------------------

    async def _attend(self, partition: Partition) -> None:
        try:
            while partition.attention and not partition.stopped:
                if partition.loading >= LOADING_MAX:
                    await anyio.sleep(ATTENTION_LOOK_S)
                elif len(partition.attention) <= FEW:
                    async with self._limit_of_few:
                        await self._load_batch(partition)
                else:
                    async with self._limit_of_many:
                        await self._let_new_work_pass()
                        await self._load_batch(partition)
        finally:
            partition.attended = False
        self._look_whether_done(partition)

    async def _let_new_work_pass(self) -> None:
        """Wait while this node is behind: what the runs do that are loaded comes back as events, among the others."""
        with anyio.move_on_after(ATTENTION_WAITS_S):
            while self._is_behind():  # noqa: ASYNC110 - nobody tells, and asking costs nothing
                await anyio.sleep(ATTENTION_LOOK_S)

    async def _load_batch(self, partition: Partition) -> None:
        """Load the next runs that need attention, their histories read together."""
        batch: list[Instance] = []
        while partition.attention and len(batch) < ATTENTION_AT_ONCE and not partition.stopped:
            id_token = partition.attention.popleft()
            # Whoever may write the roster may have written anything into the claim.
            if id_token not in self._instances.by_token and is_canonical(id_token):
                instance = self._instances.add(id_token, partition)
                instance.loading = []
                batch.append(instance)
        partition.loading += len(batch)
        # What comes later comes to this owner, too, and waits until this is read.
        at_least = partition.handled_seq
        try:
            found = await self._history.only_runs([i.key for i in batch], partition.number, at_least)
        except Exception as error:
            # Whatever is in the way of all of them, of some or of one: each finds out for itself.
            _log.info("histories of partition %d are read one by one: %s", partition.number, error)
            found = {}
        slice_ends_s = time.perf_counter() + ATTENTION_SLICE_S
        for instance in batch:
            self._history.know_partition(instance.key, partition.number)
            only = found.pop(instance.key, None)
            if only is None or any(is_reference(event.data) for event in only[1]):
                # By itself, as it may take long.
                self._background.start_soon(self._load_attended, instance)
                continue
            try:
                if self._instances.holds(instance) and instance.loading is not None and not partition.stopped:
                    await self._load_read(instance, *only, at_least, None, partition.heard_seq)
            except Exception as error:
                _log.debug("workflow %r: %s; its history is read again", instance.key.id, error, extra=instance.about())
                self._stand_back(instance)
                self._background.start_soon(self._load_attended, instance)
                continue
            partition.loading -= 1
            if time.perf_counter() > slice_ends_s:
                await anyio.lowlevel.checkpoint()
                slice_ends_s = time.perf_counter() + ATTENTION_SLICE_S
        self._instances.evict_surplus()

    async def _load_attended(self, instance: Instance) -> None:
        partition = instance.partition
        try:
            await self._load(instance, None, heard_seq=partition.heard_seq, limit=self._attended)
        finally:
            partition.loading -= 1
        self._instances.evict_surplus()
        self._look_whether_done(partition)

    def _look_whether_done(self, partition: Partition) -> None:
        if partition.taken_s and not partition.attention and not partition.loading and partition.catchup is None:
            self._witness.taken_over(self._clock() - partition.taken_s, handed_over=partition.handed_over)
            partition.taken_s = 0.0

    async def _load(
        self,
        instance: Instance,
        news: Event | None,
        *,
        heard_seq: int | None = None,
        limit: anyio.CapacityLimiter | None = None,
    ) -> None:
        delay_s = 0.05
        while not instance.partition.stopped and self._instances.holds(instance):
            try:
                async with limit or self._limit:
                    await self._load_once(instance, news, heard_seq)
            except TEMPORARY as error:
                _log.warning("workflow %r: history not read yet: %s", instance.key.id, error, extra=instance.about())
            except Unreadable as error:
                _log.error("workflow %r cannot be run: %s", instance.key.id, error, extra=instance.about())
                self._let_be(instance, news)
                return
            except Exception:
                # We are wrong. This run stands still and is tried again now and then; all others go on.
                _log.exception("workflow %r cannot be loaded", instance.key.id, extra=instance.about())
                self._stand_back(instance)
                delay_s = LOAD_AGAIN_S
            else:
                return
            await anyio.sleep(delay_s)
            delay_s = min(delay_s * 2, LOAD_AGAIN_S)

    async def _load_once(self, instance: Instance, news: Event | None, heard_seq: int | None) -> None:
        key = instance.key
        self._history.know_partition(key, instance.partition.number)
        # What comes later comes to this owner, too, and waits until this is read.
        seen_seq = max((event.seq for event in instance.loading or ()), default=0)
        at_least = max(instance.partition.handled_seq, seen_seq, news.seq if news is not None else 0)
        found = await self._history.only_run(key, at_least)
        opened = found[0] if found is not None else await self._history.open_run(key)
        if not self._instances.holds(instance):
            return
        if opened is None:
            await self._go_on_chain(instance, news, seen_seq)
            return
        await self._load_read(instance, opened, found[1] if found is not None else None, at_least, news, heard_seq)

    async def _load_read(
        self,
        instance: Instance,
        opened: OpenRun,
        events: list[Event] | None,
        at_least: int,
        news: Event | None,
        heard_seq: int | None,
    ) -> None:
        """Replay a run that is open. events: of its workflow, where that has had no other one; None = not read yet."""
        key = instance.key
        if may_open_later(opened.start.data):
            events = await self._history.events(key, opened.run, at_least)
            if self._instances.holds(instance):
                parent = parent_in_headers(parse_headers(opened.start.raw_headers))
                self.wait_for_key(instance, opened.run, f"its start is {why_unread(opened.start.data)}", parent=parent)
                self._end_if_forced(instance, opened.run, events)
            return
        try:
            spec = opened.spec()
        except Undecodable as error:
            self._ending.refuse_start(instance, opened.run, error)
            return
        if events is None or spec.since or spec.base is not None:
            events = await self._history.events(key, opened.run, at_least)
        if not self._instances.holds(instance):
            return
        if spec.origin is not None:
            if is_held(opened.run, events):
                self._let_be(instance, news)
                return
            spec = replace(spec, parent=None)  # who waits for its end waits where it was started
        if self._only_encrypted and type(opened.start.data) is not Opened:
            if news is not None and news.seq == opened.run:
                self._ending.refuse_start(instance, opened.run, Undecodable(CAME_IN_PLAIN))
            else:  # it may be of a time when that was possible
                self._stand_still(instance, opened.run, spec, f"its start {CAME_IN_PLAIN}")
            return
        if mark := closed_mark(opened.run, events):
            reason = f"a mark of its history is {why_unread(mark.data)}"
            self.wait_for_key(instance, opened.run, reason, parent=spec.parent, workflow=spec.workflow)
            self._end_if_forced(instance, opened.run, events)
            return
        run = self._vms.new_run(instance, opened.run, spec, recorded_marks(opened.run, events))
        self._witness.opened(run, opened.start.raw_headers)
        begun = time.perf_counter()
        if not await self._replay(instance, run, events, news, heard_seq):
            return
        if not self._instances.holds(instance):  # its partition was lost meanwhile
            run.close()
            return
        took_s = time.perf_counter() - begun
        self.replays += 1
        self.replayed_events += len(events)
        self._witness.replayed(took_s, len(events))
        _log.debug(
            "workflow %r: %d events replayed in %.1f ms", key.id, len(events), took_s * 1e3, extra=instance.about()
        )
        self._go_live(instance, run)
        self._instances.evict_surplus()

    async def _replay(
        self, instance: Instance, run: Run, events: list[Event], news: Event | None, heard_seq: int | None
    ) -> bool:
        """Apply a history; False when that has cost the VM. heard_seq: up to which event somebody has handled it."""
        if news is not None:
            heard_seq = news.seq - 1
        # Nobody has handled what is news, so nobody has logged what the code says to it. To a run that has just begun
        # all is news that it takes over, but what had happened before the event that it is reset to.
        fresh_seq = news.seq if news is not None else math.inf
        fresh_number = max(1, taken_over(run.run, run.spec, events)) if fresh_seq <= run.run else math.inf
        unheard: list[tuple[Step, tuple[OpState, bytes] | None]] = []
        try:
            steps, large_bytes = replay_steps(run, events), 0
            slice_ends_s = time.perf_counter() + REPLAY_SLICE_S
            for i, event in enumerate(events):
                if is_reference(event.data) and (event.kind == "kill" or not (run.suspended or run.finished)):
                    # Only while it is applied: a history may hold far more than a node. A run that stands still is
                    # given no payloads, and those that are missing would be waited for, one after the other.
                    events[i] = await fetched(self._js, instance, event)
                    if not self._instances.holds(instance):
                        run.close()
                        return False
                self._instances.running = run
                try:
                    step = next(steps)
                finally:
                    self._instances.running = None
                large_bytes += len(step.event.data) if len(step.event.data) > LARGE_PAYLOAD_BYTES else 0
                events[i] = event
                answered, run.answered = run.answered, None
                if isinstance(run.trace, RunTrace):
                    run.trace.see(step.event)
                if heard_seq is not None and step.event.seq > heard_seq:
                    if answered is not None:
                        # Whoever had this op carried out had handled what the code asked for it in, and all before.
                        unheard = [item for item in unheard if item[0].event.seq > answered[0].issued_seq]
                    unheard.append((step, answered))
                is_fresh = step.number >= fresh_number or run.run < fresh_seq <= step.event.seq
                if self._log_in_replay or is_fresh:
                    for effect in step.effects:
                        if isinstance(effect, Log):
                            self._effects.log(instance, run, effect)
                if step.number % REPLAY_SLICE_EVENTS == 0 or time.perf_counter() > slice_ends_s:
                    await anyio.lowlevel.checkpoint()
                    slice_ends_s = time.perf_counter() + REPLAY_SLICE_S
        except OutOfMemory:
            instance.run = run
            self.vm_lost(instance)
            return False
        self._instances.note_large(instance, large_bytes)
        for step, run.answered in unheard:
            self._witness.note(run, step.event, step.effects)
        run.answered = None
        return True

    def _go_live(self, instance: Instance, run: Run) -> None:
        """From now on the run is fed as events come; first what came meanwhile."""
        instance.run = run
        instance.used_s = self._clock()
        late, instance.loading = instance.loading or [], None
        if run.closed:
            self._instances.forget(instance.id_token)
            self._take_anew(instance, late, after_seq=run.last_seq)
            return
        lost = instance.partition.lost.pop(instance.id_token, None)
        if lost is not None and run.run <= lost.last_seq and run.finished is None and not run.suspended:
            self._effects.record_loss(run, lost)
        self._effects.carry_out(instance, run, run.outstanding(), recovering=True)
        for i, event in enumerate(late):
            if not self._instances.holds(instance):
                # The run has ended with the event before. What comes after it may be the start of the next one.
                self._take_anew(instance, late[i:])
                return
            if instance.loading is not None:
                instance.loading.append(event)
            elif event.seq > run.last_seq and instance.run is run:
                self._feed(instance, run, event)

    def _take_anew(self, instance: Instance, events: Iterable[Event], *, after_seq: int = 0) -> None:
        """Hand in what came to an instance that is given up: it may begin another run of its workflow."""
        for event in events:
            if event.seq > after_seq and not instance.partition.stopped:
                self._take(instance.partition, event)

    async def _go_on_chain(self, instance: Instance, news: Event | None, seen_seq: int) -> None:
        """No run is open. If the last one ended with a follow-up that was never started, start it now."""
        self._instances.chains[instance.id_token] = instance.partition
        try:
            last = await self._history.last_run(instance.key)
            if news is not None and news.kind == "start" and (last is None or _ended_seq(last[1]) < news.seq):
                # After the end of all runs: it begins one. One look that is up to date beside one that was not says
                # nothing, so all of it is looked at again.
                raise NotFound(f"the start at sequence {news.seq} is not there yet: a replica lags behind")
            record = decode_end(last[1].data) if last is not None and last[1] is not None else None
            if last is not None and record is not None and record.closed:
                reason = f"its end is {record.closed}; whether it goes on is not known"
                parent = parent_in_headers(parse_headers(last[0].start.raw_headers))
                ended_seq = last[1].seq if last[1] is not None else 0
                self.wait_for_key(instance, last[0].run, reason, parent=parent, seen_seq=ended_seq)
                return
            if last is not None and record is not None and record.next_start:
                await self._go_on(instance.key, last[0].run, record)
        finally:
            self._instances.leave_chain(instance)
        self._let_be(instance, news, seen_seq)

    async def _go_on(self, key: WorkflowKey, ended: int, record: EndRecord) -> None:
        if not await self._ending.start_next(key, ended, record):
            raise NotFound(f"run {ended} of {key.id} is followed by another one: it was not there yet, or is new")

    def _let_be(self, instance: Instance, news: Event | None, seen_seq: int = 0) -> None:
        """There is nothing to run for now. What came while that was found out is looked at anew.

        seen_seq: what came up to there came before the look. Signals among it that no start precedes are for nobody:
        were each of them looked at by itself, somebody who sends many of them to nobody would keep this node busy.
        """
        if not self._instances.holds(instance):
            # Its partition was lost meanwhile. That may have been claimed again: then the workflow is another
            # instance's, and one that belonged to the partition as it was would stand in its way for ever.
            return
        late = [event for event in instance.loading or () if event is not news]
        late = list(dropwhile(lambda event: event.seq <= seen_seq and event.kind in _FOR_A_RUN, late))
        self._instances.forget(instance.id_token)
        self._take_anew(instance, late)


# What is nothing without a run that it is for, whoever sends it.
_FOR_A_RUN: Final = ("signal", "cancel")


def _ended_seq(ended: RunOutcome | None) -> int:
    return ended.seq if ended is not None else 0
