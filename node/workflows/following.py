"""Following the partitions an engine owns: their events into its inbox, their checkpoints into the roster.

A partition that was taken over is followed by a consumer of its own, from its checkpoint on. Once it has caught up and
nothing was taken or dropped for a moment, one consumer follows all partitions from where they are: to find the next
message of each of dozens of consumers costs the server a third of all it does for a step (ADR 17).

Not responsible for which partitions those are (`node.node`) or for what an event means (`node.workflows.engine`).

Invariants:
  * events of a partition are put into the inbox in stream order, each once per epoch; whoever takes one out drops it
    when its partition has stopped or is in another epoch;
  * it is one consumer that brings them: one that is to follow the partition from now on brings none before it has
    passed what the one before has brought last, so that what the server has lost of that is found out;
  * a checkpoint and its list of busy runs are of one moment.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import anyio

from mesh.connection import Connection
from mesh.errors import TEMPORARY, PayloadTooLarge
from mesh.follower import Delivered, Follower, StreamRegressed
from mesh.groups import unwrapped
from mesh.jetstream import JetStream
from mesh.membership import Claim
from mesh.roster import Roster
from mesh.subjects import partition_filter, stream_name
from node.workflows.background import Background, insist
from node.workflows.instances import Instance, Instances
from node.workflows.partition import Lost, Partition, Together, to_gather
from store.catchup import CatchUp, is_worth_saving, rest_s

# What came in and was not handled yet: more events, or more in their payloads, and followers wait.
INBOX_EVENTS_MAX: Final = 4096
INBOX_BYTES_MAX: Final = 16 * 1024 * 1024
# What waits behind it of a partition that is followed by itself: there are dozens of those after a takeover. Of those
# that are followed together it is what the server sends, 32 MB.
HELD_ALONE_BYTES_MAX: Final = 2 * 1024 * 1024
FOLLOW_AGAIN_S: Final = 0.5
# How long nothing must have been taken or dropped: partitions come and go by the dozen. After a failure it is longer.
GATHER_AFTER_S: Final = 1.0
GATHER_AFTER_MAX_S: Final = 60.0
# How long the consumer that gathers may take to have brought all that the ones before have, once it has caught up.
LEVEL_S: Final = 10.0
LEVEL_LOOK_S: Final = 0.01

_log = logging.getLogger(__name__)


class Following:
    """The partitions of one queue that this node runs. wake: called when something came into the inbox.

    reload: reads the history of an instance again.

    partitions: by number. inbox: partition, its epoch, and an event or None for "caught up". inbox_bytes: what is in
    their payloads; whoever takes an event out takes its part off.
    paused: followers that wait because the inbox was full; `resume` lets them go on.
    """

    def __init__(
        self,
        *,
        conn: Connection,
        js: JetStream,
        roster: Roster,
        queue: str,
        instances: Instances,
        background: Background,
        wake: Callable[[], None],
        reload: Callable[[Instance], None],
        clock: Callable[[], float],
    ) -> None:
        self.partitions: dict[int, Partition] = {}
        self.inbox: deque[tuple[Partition, int, Delivered | None]] = deque()
        self.inbox_bytes = 0
        self.paused: list[Follower] = []
        self._conn = conn
        self._js = js
        self._roster = roster
        self._queue = queue
        self._instances = instances
        self._background = background
        self._wake = wake
        self._reload = reload
        self._clock = clock
        self._changed_s = 0.0  # when a partition was taken or dropped last
        self._gather_after_s = GATHER_AFTER_S
        self._gathering: Together | None = None  # what does not follow yet what it is to follow

    def take(self, claim: Claim, busy: tuple[str, ...], *, handed_over: bool) -> Partition:
        """Follow a partition that was just claimed, from its checkpoint on."""
        partition = Partition(claim, busy, handed_over=handed_over)
        self.partitions[partition.number] = partition
        self._changed_s = self._clock()
        self._background.start_soon(self._follow, partition.together)
        return partition

    def drop(self, number: int) -> tuple[Claim, tuple[int, int], tuple[str, ...]] | None:
        """Stop following and forget what it has in memory.

        Returns the claim, the message that was handled last (sequence, timestamp), and the busy runs.
        """
        partition = self.partitions.get(number)
        if partition is None:
            return None
        handled, busy = self._position(partition)  # while it is one of ours: what waits in it counts
        del self.partitions[number]
        partition.stopped = True
        self._changed_s = self._clock()
        partition.together.leave(partition)
        if not is_worth_saving(busy):
            # Too many to list: the older checkpoint stays good, the next owner reads more.
            claim = partition.claim
            handled, busy = (claim.checkpoint, claim.checkpoint_ns), self._roster.busy(claim)
        self._instances.forget_all(partition)
        return partition.claim, handled, busy

    def resume(self) -> None:
        """Let those go on that wait, if there is room in the inbox again."""
        if len(self.inbox) >= INBOX_EVENTS_MAX // 2 or self.inbox_bytes >= INBOX_BYTES_MAX // 2:
            return
        paused, self.paused = self.paused, []
        for follower in paused:
            follower.resume()

    async def save_checkpoints(self) -> None:
        """Save how far each partition was handled, and with which runs busy, where that has changed."""
        # What was busy may have become quiet without an event.
        now_s = anyio.current_time()
        doubted = [
            partition
            for partition in self.partitions.values()
            if partition.catchup is None
            and now_s >= partition.save_after_s
            and (partition.handled_seq != partition.saved_seq or partition.saved_busy)
        ]
        if not doubted:
            return
        # Taken together, before anything is awaited: positions and busy runs are of one moment.
        busy_now = self._busy()
        positions = [(p, p.handled_seq, p.handled_ns, tuple(busy_now.get(p.number, ()))) for p in doubted]
        for partition, seq, at_ns, busy in positions:
            if partition.stopped or not is_worth_saving(busy) or not self._roster.may_act():
                continue
            if (seq, busy) == (partition.saved_seq, partition.saved_busy):
                continue
            try:
                claim = await self._roster.save_checkpoint(partition.claim, seq, busy, at_ns)
            except (*TEMPORARY, PayloadTooLarge):
                continue  # the older one stays good
            partition.save_after_s = now_s + rest_s(busy)
            if partition.stopped:
                continue
            if claim is not None:
                partition.claim = claim
                partition.saved_seq, partition.saved_busy = seq, busy
            else:
                # Perhaps our own write of which we never heard: go on from what the roster has seen.
                partition.claim = self._roster.standing(partition.claim) or partition.claim

    def gather(self) -> None:
        """Have one consumer follow what several do, where it is time for that. To be called now and then."""
        if self._gathering is not None or self.paused or self._clock() - self._changed_s < self._gather_after_s:
            return
        self._gathering = to_gather(self.partitions.values())
        if self._gathering is not None:
            self._background.start_soon(self._follow, self._gathering)

    async def _follow(self, together: Together, after_s: float = 0.0) -> None:
        """Follow partitions for as long as they are members. If that fails, each is followed by itself again."""
        with together.scope:
            try:
                await anyio.sleep(after_s)
                await self._follow_once(together)
            except StreamRegressed as error:
                for partition in (followed := together.followed):
                    about = {"queue": self._queue, "partition": partition.number}
                    _log.error("queue %s partition %d: %s", self._queue, partition.number, error, extra=about)
                    if partition.came_seq > error.last_seq:
                        self._start_over(partition, error)
                    else:
                        partition.epoch += 1  # it had seen nothing of that
                self._follow_alone(followed)
            except TEMPORARY as error:
                for partition in (followed := together.followed):
                    about = {"queue": self._queue, "partition": partition.number}
                    text = "queue %s partition %d: %s; following anew"
                    _log.warning(text, self._queue, partition.number, error, extra=about)
                    partition.epoch += 1  # what came in and was not handled yet comes again
                self._follow_alone(followed, FOLLOW_AGAIN_S)
                if self._gathering is together:
                    self._gather_after_s = min(2 * self._gather_after_s, GATHER_AFTER_MAX_S)
                    text = "queue %s: %d partitions are not followed by one consumer yet: %s"
                    _log.info(text, self._queue, len(together.members), error, extra={"queue": self._queue})
        self._have_gathered(together)

    def _have_gathered(self, together: Together) -> None:
        if self._gathering is together:
            self._gathering = None

    def _follow_alone(self, partitions: list[Partition], after_s: float = 0.0) -> None:
        """Follow each of these by itself, from where it was handled to."""
        self._changed_s = self._clock()
        for partition in partitions:
            # At once, however long that is to wait: nobody may go on from where the one before had come to.
            partition.came_seq, partition.came_ns = partition.handled_seq, partition.handled_ns
            partition.together = Together([partition], partition.handled_seq, partition.handled_ns)
            self._background.start_soon(self._follow, partition.together, after_s)

    async def _follow_once(self, together: Together) -> None:
        inbox, wake, members = self.inbox, self._wake, together.members
        if not members:
            return  # dropped before it was begun
        filters = [partition_filter(self._queue, partition.number) for partition, _ in members.values()]

        def deliver(message: Delivered) -> None:
            together.seq, together.at_ns, together.pending = message.seq, message.timestamp_ns, message.pending
            member = members.get(message.subject.split(".", 4)[3])
            if member is None:
                return
            partition, epoch = member
            if epoch != partition.epoch:
                return
            if partition.together is not together:
                together.passed[partition.token] = (message.seq, message.timestamp_ns)
                return
            partition.came_seq, partition.came_ns = message.seq, message.timestamp_ns
            inbox.append((partition, epoch, message))
            self.inbox_bytes += len(message.data)
            if len(inbox) > INBOX_EVENTS_MAX or self.inbox_bytes > INBOX_BYTES_MAX:
                follower.pause()
                self.paused.append(follower)
            wake()

        def on_renewed() -> None:
            self._background.start_soon(self._look_for_losses, together)

        follower = Follower(
            self._conn, self._js, stream_name(self._queue), filters, together.seq + 1, deliver,
            before_ns=together.at_ns, on_renewed=on_renewed,
            consumer_prefix=f"{together.name}-{self._roster.me.node_id}",
            held_bytes_max=HELD_ALONE_BYTES_MAX if len(filters) == 1 else None,
        )  # fmt: skip
        with unwrapped():
            async with anyio.create_task_group() as tasks:
                await tasks.start(follower.run)
                await follower.caught_up.wait()
                with anyio.move_on_after(LEVEL_S):
                    while not together.adopt():  # noqa: ASYNC110 - nearly always at once
                        await anyio.sleep(LEVEL_LOOK_S)
                together.leave_the_others()
                if self._gathering is together:
                    self._gather_after_s = GATHER_AFTER_S
                self._have_gathered(together)
                if any(partition.catchup is None for partition in together.followed):
                    on_renewed()  # the consumers before may have been about to find out that the server was away
                for partition, epoch in together.members.values():
                    if partition.catchup is not None:
                        inbox.append((partition, epoch, None))
                wake()

    def _start_over(self, partition: Partition, error: StreamRegressed) -> None:
        """The stream lost messages that were seen: what is in memory may rest on them. Read everything anew.

        The runs that had seen what is lost, or were busy with it, do not go on: what they have done since is in the
        world, and would be done again.
        """
        had_seen = [
            id_token
            for id_token, instance in self._instances.by_token.items()
            if instance.partition is partition and instance.run is not None and instance.run.last_seq > error.last_seq
        ]
        was_busy = self._roster.busy(partition.claim) if partition.claim.checkpoint > error.last_seq else ()
        lost = Lost(error.last_seq, error.delivered_seq)
        partition.lost |= dict.fromkeys((*had_seen, *was_busy), lost)
        self._instances.forget_all(partition)
        partition.epoch += 1
        partition.claim = replace(partition.claim, checkpoint=0, checkpoint_ns=0)
        partition.handled_seq = partition.handled_ns = partition.saved_seq = 0
        partition.saved_busy = ()
        partition.catchup = CatchUp(partition.lost)
        partition.live_seq = None

    async def _look_for_losses(self, together: Together) -> None:
        """If the server has come back without some of what it had, the runs in memory that rest on it go no further."""
        stream = stream_name(self._queue)
        if not await insist(lambda: self._js.lost_bytes(stream), f"damage of stream {stream}"):
            return
        for instance in [i for i in self._instances.by_token.values() if i.partition.together is together]:
            run = instance.run
            if run is None or run.finished is not None or instance.loading is not None:
                continue
            seen_seq = run.counted_seq
            message = await insist(
                lambda seq=seen_seq: self._js.get_seq(stream, seq, from_leader=True, as_stored=True),  # type: ignore[misc]
                f"newest event of workflow {instance.key.id!r}", instance.about(),
            )  # fmt: skip
            partition = instance.partition
            if message is None and self._instances.holds(instance) and instance.run is run and not partition.stopped:
                partition.lost[instance.id_token] = Lost(seen_seq - 1, seen_seq)
                self._reload(instance)

    def _position(self, partition: Partition) -> tuple[tuple[int, int], tuple[str, ...]]:
        # Up to where the partition needs nothing, and which runs are excepted. Still catching up: the old position.
        if partition.catchup is not None:
            claim = partition.claim
            return (claim.checkpoint, claim.checkpoint_ns), self._roster.busy(claim)
        return (partition.handled_seq, partition.handled_ns), tuple(self._busy().get(partition.number, ()))

    def _busy(self) -> dict[int, list[str]]:
        busy = self._instances.busy()
        for partition in self.partitions.values():
            waiting = [id_token for id_token in partition.attention if id_token not in self._instances.by_token]
            if waiting:
                busy.setdefault(partition.number, []).extend(waiting)
        return busy
