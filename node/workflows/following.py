"""Following the partitions an engine owns: their events into its inbox, their checkpoints into the roster.

Not responsible for which partitions those are (`node.node`) or for what an event means (`node.workflows.engine`).

Invariants:
  * events of a partition are put into the inbox in stream order, each once per epoch; whoever takes one out drops it
    when its partition has stopped or is in another epoch;
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
from mesh.errors import TEMPORARY
from mesh.follower import Delivered, Follower, StreamRegressed
from mesh.groups import unwrapped
from mesh.jetstream import JetStream
from mesh.membership import Claim
from mesh.roster import Roster
from mesh.subjects import partition_filter, stream_name
from node.workflows.background import Background, insist
from node.workflows.instances import Instance, Instances
from node.workflows.partition import Lost, Partition
from store.catchup import BUSY_MAX, CatchUp

INBOX_EVENTS_MAX: Final = 4096
FOLLOW_AGAIN_S: Final = 0.5

_log = logging.getLogger(__name__)


class Following:
    """The partitions of one queue that this node runs. wake: called when something came into the inbox.

    reload: reads the history of an instance again.

    partitions: by number. inbox: partition, its epoch, and an event or None for "caught up".
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
    ) -> None:
        self.partitions: dict[int, Partition] = {}
        self.inbox: deque[tuple[Partition, int, Delivered | None]] = deque()
        self.paused: list[Follower] = []
        self._conn = conn
        self._js = js
        self._roster = roster
        self._queue = queue
        self._instances = instances
        self._background = background
        self._wake = wake
        self._reload = reload

    def take(self, claim: Claim, busy: tuple[str, ...], *, handed_over: bool) -> Partition:
        """Follow a partition that was just claimed, from its checkpoint on."""
        partition = Partition(claim, busy, handed_over=handed_over)
        self.partitions[partition.number] = partition
        self._background.start_soon(self._follow, partition)
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
        partition.scope.cancel()
        if len(busy) > BUSY_MAX:
            # Too many to list: the older checkpoint stays good, the next owner reads more.
            claim = partition.claim
            handled, busy = (claim.checkpoint, claim.checkpoint_ns), self._roster.busy(claim)
        self._instances.forget_all(partition)
        return partition.claim, handled, busy

    def resume(self) -> None:
        """There is room in the inbox again."""
        paused, self.paused = self.paused, []
        for follower in paused:
            follower.resume()

    async def save_checkpoints(self) -> None:
        """Save how far each partition was handled, and with which runs busy, where that has changed."""
        # What was busy may have become quiet without an event.
        doubted = [
            partition
            for partition in self.partitions.values()
            if partition.catchup is None and (partition.handled_seq != partition.saved_seq or partition.saved_busy)
        ]
        if not doubted:
            return
        # Taken together, before anything is awaited: positions and busy runs are of one moment.
        busy_now = self._busy()
        positions = [(p, p.handled_seq, p.handled_ns, tuple(busy_now.get(p.number, ()))) for p in doubted]
        for partition, seq, at_ns, busy in positions:
            if partition.stopped or len(busy) > BUSY_MAX or not self._roster.may_act():
                continue
            if (seq, busy) == (partition.saved_seq, partition.saved_busy):
                continue
            try:
                claim = await self._roster.save_checkpoint(partition.claim, seq, busy, at_ns)
            except TEMPORARY:
                continue
            if partition.stopped:
                continue
            if claim is not None:
                partition.claim = claim
                partition.saved_seq, partition.saved_busy = seq, busy
            else:
                # Perhaps our own write of which we never heard: go on from what the roster has seen.
                partition.claim = self._roster.standing(partition.claim) or partition.claim

    async def _follow(self, partition: Partition) -> None:
        about = {"queue": self._queue, "partition": partition.number}
        with partition.scope:
            while True:
                try:
                    await self._follow_once(partition)
                except StreamRegressed as error:
                    _log.error("queue %s partition %d: %s", self._queue, partition.number, error, extra=about)
                    self._start_over(partition, error)
                except TEMPORARY as error:
                    _log.warning(
                        "queue %s partition %d: %s; following anew", self._queue, partition.number, error, extra=about
                    )
                    partition.epoch += 1  # what came in and was not handled yet comes again
                    await anyio.sleep(FOLLOW_AGAIN_S)

    async def _follow_once(self, partition: Partition) -> None:
        epoch = partition.epoch
        inbox, wake = self.inbox, self._wake

        def deliver(message: Delivered) -> None:
            inbox.append((partition, epoch, message))
            if len(inbox) > INBOX_EVENTS_MAX:
                follower.pause()
                self.paused.append(follower)
            wake()

        follower = Follower(
            self._conn, self._js, stream_name(self._queue), [partition_filter(self._queue, partition.number)],
            partition.handled_seq + 1, deliver, before_ns=partition.handled_ns,
            consumer_prefix=f"p{partition.number}-{self._roster.me.node_id}",
            on_renewed=lambda: self._background.start_soon(self._look_for_losses, partition),
        )  # fmt: skip
        with unwrapped():
            async with anyio.create_task_group() as tasks:
                await tasks.start(follower.run)
                await follower.caught_up.wait()
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

    async def _look_for_losses(self, partition: Partition) -> None:
        """If the server has come back without some of what it had, the runs in memory that rest on it go no further."""
        stream = stream_name(self._queue)
        if not await insist(lambda: self._js.lost_bytes(stream), f"damage of stream {stream}"):
            return
        for instance in [i for i in self._instances.by_token.values() if i.partition is partition]:
            run = instance.run
            if run is None or run.finished is not None or instance.loading is not None:
                continue
            seen_seq = run.counted_seq
            message = await insist(
                lambda seq=seen_seq: self._js.get_seq(stream, seq, from_leader=True, as_stored=True),  # type: ignore[misc]
                f"newest event of workflow {instance.key.id!r}", instance.about(),
            )  # fmt: skip
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
