"""A partition that this node owns: how far it was read, and what is still to be done after its takeover.

Values only; who follows it is in `node.workflows.following`, who loads its runs in `node.workflows.loading`. Which
partitions one consumer is to follow is decided here (`to_gather`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

import anyio

from mesh.membership import Claim
from store.catchup import CatchUp

# Partitions whose newest messages are so close to each other are followed together: what came for the others since the
# oldest of these comes again.
TOGETHER_MESSAGES_MAX: Final = 2000


class Lost(NamedTuple):
    """What the server has lost of a stream: something after `last_seq`, up to what had been seen."""

    last_seq: int
    seen_seq: int


class Partition:
    """A partition that this node owns."""

    __slots__ = (
        "apart_seq", "attended", "attention", "came_ns", "came_seq", "catchup", "claim", "epoch", "handed_over",
        "handled_ns", "handled_seq", "heard_seq", "live_seq", "loading", "lost", "number", "save_after_s", "saved_busy",
        "saved_seq", "stopped", "taken_s", "together",
    )  # fmt: skip

    def __init__(self, claim: Claim, busy: tuple[str, ...], *, handed_over: bool) -> None:
        self.number = claim.partition
        self.claim = claim
        self.handled_seq, self.handled_ns = claim.checkpoint, claim.checkpoint_ns
        self.saved_seq, self.saved_busy = claim.checkpoint, busy  # as the claim has it
        self.catchup: CatchUp | None = CatchUp(busy)
        # The newest message that came, by whichever consumer.
        self.came_seq, self.came_ns = claim.checkpoint, claim.checkpoint_ns
        self.apart_seq = -1  # with this as its newest message it cannot be gathered
        self.save_after_s = 0.0  # the next checkpoint is not due before, by the loop's clock
        self.stopped = False
        # What came after this was first seen by this owner. One that handed over says where it had come to; after a
        # crash its checkpoint is older than that.
        self.live_seq = claim.checkpoint if handed_over else None
        self.attention: deque[str] = deque()  # id tokens of the runs still to be loaded after the takeover
        self.attended = False  # whether somebody is loading them
        # Up to here the owner before has handled everything: what came after it is counted by this one.
        self.heard_seq = claim.checkpoint
        self.handed_over = handed_over
        self.taken_s = 0.0  # when this node began to take it over, by the loop's clock; 0 once that is done
        self.loading = 0
        # Workflows that had seen events which the server has lost since, until they are loaded.
        self.lost: dict[str, Lost] = {}
        self.epoch = 0  # grows when everything is read anew; what was read before is dropped
        self.together = Together([self], claim.checkpoint, claim.checkpoint_ns)  # with whom it is followed

    @property
    def token(self) -> str:
        """How it stands in the subject of a message."""
        return str(self.number)


class Together:
    """Partitions that one consumer follows.

    members: by token, each with its epoch. has_left: one of them is no member any more, and the consumer still has it.
    seq, at_ns: the newest message that came, and when it was stored: of the members nothing is missing before it.
    passed: the newest message of a member that came while it was still followed by another consumer.
    pending: messages behind that one, as the server knew when it sent it. name: for people.
    """

    __slots__ = ("at_ns", "has_left", "members", "name", "passed", "pending", "scope", "seq")

    def __init__(self, partitions: Sequence[Partition], seq: int, at_ns: int) -> None:
        others = f"-and-{len(partitions) - 1}" if len(partitions) > 1 else ""
        self.name = f"p{partitions[0].number}{others}"
        self.members = {partition.token: (partition, partition.epoch) for partition in partitions}
        self.seq, self.at_ns = seq, at_ns
        # What the consumer before had brought by then is before all that comes.
        self.passed = {p.token: (p.came_seq, p.came_ns) for p in partitions if p.came_seq <= seq}
        self.scope = anyio.CancelScope()
        self.has_left = False
        self.pending = 0

    @property
    def followed(self) -> list[Partition]:
        """The members that are followed by this consumer: not those that are still, or again, by another one."""
        return [partition for partition, _ in self.members.values() if partition.together is self]

    def adopt(self) -> bool:
        """Follow from now on those members that nothing has happened to; True when there are no others.

        Only those whose newest message has come by both consumers: then nothing is missing, and nothing comes twice.
        Where the server has lost that message, the consumer before is to find that out; this one never would.
        """
        has_all = True
        for partition, epoch in list(self.members.values()):
            if partition.stopped or partition.epoch != epoch:
                del self.members[partition.token]
                self.has_left = True
            elif partition.together is self:
                continue
            elif self.passed.get(partition.token) == (partition.came_seq, partition.came_ns):
                partition.together.leave(partition)
                partition.together = self
            else:
                has_all = False
        if not self.members:
            self.scope.cancel()
        return has_all

    def leave_the_others(self) -> None:
        """Let those members be that are followed by other consumers; there must be news before they are gathered."""
        for partition, _ in list(self.members.values()):
            if partition.together is not self:
                partition.apart_seq = partition.came_seq
                self.leave(partition)

    def leave(self, partition: Partition) -> None:
        """A partition is followed no more, or by another consumer; without any this one ends."""
        if self.members.pop(partition.token, None) is not None:
            self.has_left = True
        if not self.members:
            self.scope.cancel()


def to_gather(partitions: Collection[Partition]) -> Together | None:
    """What one consumer should follow instead of several, or instead of one that has too many; None: all is well."""
    caught_up = [p for p in partitions if p.catchup is None and p.apart_seq != p.came_seq]
    newest = max((partition.together.seq for partition in caught_up), default=0)
    near = [partition for partition in caught_up if newest - partition.together.seq <= TOGETHER_MESSAGES_MAX]
    now = {partition.together for partition in near}
    if len(now) < 2 and not any(together.has_left for together in now):
        return None
    oldest = min(now, key=lambda together: together.seq)
    return Together(near, oldest.seq, oldest.at_ns)
