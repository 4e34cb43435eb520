"""What a node must do now about the partitions of a queue, given who is alive and who has claimed what.

Pure decisions: the member keys and the claims come in as values, time is an argument, and what comes out is a list
of writes for somebody else to make. Not here: the bucket in which members and claims are kept, pinging, timers.

How ownership works. A node has a member key that expires unless it is renewed, and it holds a partition by a claim,
which is one key written by compare-and-set: the write names the sequence that the key must still have. A claim
counts as long as its holder's member key is there *with the same incarnation*. A partition goes from one living
node to another in two steps only: the holder releases, then the other one claims.

Invariants:

- A valid claim of somebody else is never in a plan: not to claim, not to release, not to keep.
- A node that is not among the members it sees plans nothing: to the others its claims are void.
- What a node runs must be in `keep` or `release` of its latest plan; anything else it has lost and must stop.

Three rules that callers keep, because a plan cannot check them:

- A member key that has lapsed comes back only under a new incarnation. With the old one, void claims would turn
  valid again under the hands of a node that is just taking them over.
- Members and claims are seen in one order (one bucket, one watch). Whoever sees a claim but not yet the older
  member key of its holder would take it for void.
- The claims given are what was seen and what this node itself has written and had acknowledged, whichever is newer
  (`newest`). Else a node would drop a partition again that it has just claimed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from mesh.rendezvous import NodeId, assign

# Share of the lease that a node does without. It covers the server's accuracy (about 50 ms), clocks that run at
# slightly different speeds, and the time it takes to finish what is in hand when the lease is seen to be over.
LEASE_MARGIN_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Member:
    """A node as its member key tells. `seq` is the key's sequence; a leaving member is assigned nothing."""

    node_id: NodeId
    incarnation: str
    queues: frozenset[str]
    seq: int
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """The claim key of a partition as it stands.

    node_id, incarnation: the holder; None and "" when it has been released or was never held.
    seq: the sequence of the key, 0 if there never was one. For a key that was deleted it is that of the marker.
    checkpoint: stream sequence up to which the partition is known to need nothing; outlives the holder.
    checkpoint_ns: timestamp of the message there, which tells another one in its place; 0 = not known.
    """

    queue: str
    partition: int
    node_id: NodeId | None
    incarnation: str
    seq: int
    checkpoint: int = 0
    checkpoint_ns: int = 0

    def released(self) -> Claim:
        """Return what to write, expecting `seq`, to let go of the partition."""
        return replace(self, node_id=None, incarnation="")

    def taken_by(self, member: Member) -> Claim:
        """Return what to write, expecting `seq`, to claim the partition for this member."""
        return replace(self, node_id=member.node_id, incarnation=member.incarnation)


@dataclass(frozen=True, slots=True)
class Plan:
    """What one node must do now about one queue, each part in the order of partitions.

    claim: the key as it stands; write `taken_by(me)` over it, expecting its `seq`. A conflict is no error: look again.
    release: stop the partition first, then write `released()`, expecting its `seq`.
    keep: held by this node, which goes on with it.
    wait: assigned to this node, but still held by another living one, which will release it.
    """

    claim: tuple[Claim, ...] = ()
    release: tuple[Claim, ...] = ()
    keep: tuple[Claim, ...] = ()
    wait: tuple[Claim, ...] = ()


def neighbour(members: Collection[Member], me: NodeId) -> NodeId | None:
    """Return the next member on the ring by id, the one that `me` pings; None when there is no other.

    Everybody is pinged by exactly one other. When a member is removed, its pinger moves on to the one behind it.
    """
    ring = sorted({member.node_id for member in members} - {me})
    if not ring:
        return None
    return ring[bisect_right(ring, me) % len(ring)]


def is_void(claim: Claim, members: Collection[Member]) -> bool:
    """Tell whether nobody holds the partition: released, or its holder is gone or has another incarnation."""
    return _holder(claim, _by_id(members)) is None


def newest(seen: Collection[Claim], written: Collection[Claim]) -> list[Claim]:
    """Return one claim for each partition: what was seen, or this node's own acknowledged write if that is newer."""
    merged: dict[tuple[str, int], Claim] = {}
    for claim in (*seen, *written):
        key = (claim.queue, claim.partition)
        if key not in merged or merged[key].seq < claim.seq:
            merged[key] = claim
    return list(merged.values())


def plan(me: Member, members: Collection[Member], claims: Collection[Claim], queue: str, partitions: int) -> Plan:
    """Decide what this node must do now about the partitions of a queue.

    me: this node as it knows itself, which may be newer than what `members` says about it (just leaving, say).
    claims: the claim keys there are, as from `newest`, of this queue or of all. A partition without one was never
        claimed.

    A partition held here and assigned to nobody else (no member serves the queue any more) is kept.
    """
    alive = _by_id(members)
    seen = alive.get(me.node_id)
    if seen is None or seen.incarnation != me.incarnation:
        return Plan()
    alive[me.node_id] = me
    standing = {claim.partition: claim for claim in claims if claim.queue == queue}
    assigned = assign(partitions, queue, [m.node_id for m in alive.values() if queue in m.queues and not m.leaving])

    to_claim: list[Claim] = []
    to_release: list[Claim] = []
    to_keep: list[Claim] = []
    to_wait: list[Claim] = []
    for partition in range(partitions):
        claim = standing.get(partition) or Claim(queue, partition, None, "", 0)
        holder = _holder(claim, alive)
        mine_by_right = assigned.get(partition) == me.node_id
        if holder == me.node_id:
            kept = mine_by_right or partition not in assigned
            (to_keep if kept else to_release).append(claim)
        elif mine_by_right:
            (to_claim if holder is None else to_wait).append(claim)
    return Plan(tuple(to_claim), tuple(to_release), tuple(to_keep), tuple(to_wait))


@dataclass(slots=True)
class LeaseClock:
    """Tells a node that is cut off when to stop by itself, before the others take over what it holds.

    ttl_s: for how long the server keeps the member key after a renewal.
    margin_s: how much earlier to stop; by default a fixed share of `ttl_s`.
    """

    ttl_s: float
    margin_s: float | None = None
    _acts_for_s: float = field(init=False)
    _renewed_at: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        margin_s = self.ttl_s * LEASE_MARGIN_SHARE if self.margin_s is None else self.margin_s
        if not 0 <= margin_s < self.ttl_s:
            raise ValueError(f"a lease of {self.ttl_s:g} s cannot have a margin of {margin_s:g} s")
        self._acts_for_s = self.ttl_s - margin_s

    def renewed(self, at: float) -> None:
        """Note that the member key was renewed.

        at: monotonic seconds just *before* the write was sent, as the server starts counting when it arrives, and
        only once it was acknowledged. Acknowledgements may be noted in any order.
        """
        if self._renewed_at is None or at > self._renewed_at:
            self._renewed_at = at

    def may_act(self, now: float) -> bool:
        """Tell whether this node may still act on what it holds. False before the first renewal."""
        return self._renewed_at is not None and now < self._renewed_at + self._acts_for_s


def _by_id(members: Collection[Member]) -> dict[NodeId, Member]:
    # The highest sequence wins should a view hold two entries of one node.
    return {member.node_id: member for member in sorted(members, key=lambda member: member.seq)}


def _holder(claim: Claim, alive: Mapping[NodeId, Member]) -> NodeId | None:
    if claim.node_id is None:
        return None
    member = alive.get(claim.node_id)
    return claim.node_id if member is not None and member.incarnation == claim.incarnation else None
