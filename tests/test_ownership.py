"""Who owns what: the hashing, the plan of one node, and many nodes with crashes and late views against a model."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mesh.membership import Claim, LeaseClock, Member, Plan, is_void, neighbour, newest, plan
from mesh.rendezvous import NodeId, assign, owner


def nodes(count: int, prefix: str = "node") -> list[NodeId]:
    return [NodeId(f"{prefix}-{i}") for i in range(count)]


# --- rendezvous -------------------------------------------------------------------------------------------------


def test_owner_does_not_depend_on_the_order_of_nodes() -> None:
    for key in map(str, range(50)):
        assert owner(key, nodes(5)) == owner(key, nodes(5)[::-1])


def test_when_a_node_goes_only_its_own_keys_move() -> None:
    for key in map(str, range(300)):
        before = owner(key, nodes(5))
        after = owner(key, nodes(4))
        assert after == before or before == "node-4"


def test_owner_spreads_keys_roughly_evenly() -> None:
    counts = Counter(owner(str(key), nodes(4)) for key in range(4000))
    assert set(counts) == set(nodes(4))
    assert all(850 < count < 1150 for count in counts.values())


def test_owner_of_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match="no nodes"):
        owner("k", [])


def test_weights_are_the_same_in_every_release() -> None:
    """Two releases that disagree would hand partitions to and fro for ever: these values must not change."""
    assert [owner(key, nodes(3)) for key in ("a", "b", "c", "ä/1")] == PINNED_OWNERS
    assert "".join(node[-1] for node in assign(16, "orders", nodes(3)).values()) == PINNED_ASSIGNMENT


PINNED_OWNERS = ["node-1", "node-0", "node-0", "node-1"]
PINNED_ASSIGNMENT = "1200122020220111"


@pytest.mark.parametrize("partitions", [1, 2, 3, 16, 64, 100])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 64, 65])
def test_assignment_is_complete_and_loads_differ_by_at_most_one(partitions: int, count: int) -> None:
    assigned = assign(partitions, "q", nodes(count))
    assert list(assigned) == list(range(partitions))
    load = Counter(assigned.values())
    assert max(load.values()) == math.ceil(partitions / count)
    assert min(load[node] for node in nodes(count)) == partitions // count


def test_assignment_depends_on_the_set_of_nodes_alone() -> None:
    assert assign(64, "q", nodes(5)) == assign(64, "q", [*nodes(5)[::-1], *nodes(2)])


def test_queues_are_assigned_independently_of_each_other() -> None:
    """Else the node that has partition 0 of one queue would have it of all."""
    firsts = {assign(4, f"queue-{i}", nodes(4))[0] for i in range(30)}
    assert firsts == set(nodes(4))


def test_nobody_there_means_nothing_is_assigned() -> None:
    assert assign(64, "q", []) == {}


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 10])
def test_a_join_or_leave_moves_little_more_than_must_move(count: int) -> None:
    """One node more or less: the newcomer's 64 / (N + 1) partitions have to move; a rehash would move nearly all."""
    ideal = 64 / (count + 1)
    moved = []
    for trial in range(10):
        fewer, more = (assign(64, "q", nodes(n, f"t{trial}")) for n in (count, count + 1))
        moved.append(sum(fewer[p] != more[p] for p in range(64)))
    assert min(moved) >= math.floor(ideal)
    assert max(moved) <= ideal + 9
    assert sum(moved) / len(moved) <= ideal * 1.75


# --- neighbour --------------------------------------------------------------------------------------------------


def member(node_id: str, incarnation: str = "1", *, leaving: bool = False, queues: str = "q", seq: int = 1) -> Member:
    return Member(NodeId(node_id), incarnation, frozenset(queues.split()), seq, leaving)


@pytest.mark.parametrize(
    ("members", "me", "expected"),
    [
        ("", "a", None),
        ("a", "a", None),
        ("b", "a", "b"),
        ("a b c", "a", "b"),
        ("c b a", "b", "c"),
        ("a b c", "c", "a"),
        ("a c", "b", "c"),
        ("a b", "c", "a"),
    ],
)
def test_neighbour_is_the_next_by_id_and_the_ring_is_closed(members: str, me: str, expected: str | None) -> None:
    assert neighbour([member(name) for name in members.split()], NodeId(me)) == expected


def test_everybody_has_exactly_one_who_pings_it() -> None:
    ring = [member(node) for node in nodes(7)]
    assert Counter(neighbour(ring, m.node_id) for m in ring) == Counter(nodes(7))


# --- plan -------------------------------------------------------------------------------------------------------

ABC = [member("a"), member("b"), member("c")]
# Which of a, b, c has each of the 6 partitions of "q".
ASSIGNED = assign(6, "q", [m.node_id for m in ABC])


def claim(partition: int, holder: str | None, incarnation: str = "1", *, seq: int = 10, queue: str = "q") -> Claim:
    return Claim(queue, partition, None if holder is None else NodeId(holder), incarnation if holder else "", seq, 7)


def assigned_to(node: str) -> list[int]:
    return [p for p, n in ASSIGNED.items() if n == node]


def free(partition: int) -> Claim:
    return Claim("q", partition, None, "", 0)


def test_unclaimed_partitions_are_claimed_by_whom_they_are_assigned_to() -> None:
    for me in ABC:
        assert plan(me, ABC, [], "q", 6) == Plan(claim=tuple(free(p) for p in assigned_to(me.node_id)))


@pytest.mark.parametrize(
    ("holder", "incarnation", "verdict"),
    [
        (None, "", "claim"),
        ("gone", "1", "claim"),
        ("b", "0", "claim"),
        ("a", "0", "claim"),
        ("b", "1", "wait"),
        ("a", "1", "keep"),
    ],
)
def test_a_partition_assigned_to_me(holder: str | None, incarnation: str, verdict: str) -> None:
    """A claim is void when its holder is no member or has another incarnation; another's valid one is not touched."""
    claims = [claim(p, holder, incarnation) for p in assigned_to("a")]
    assert plan(ABC[0], ABC, claims, "q", 6) == Plan(**{verdict: tuple(claims)})
    assert {is_void(c, ABC) for c in claims} == {verdict == "claim"}


@pytest.mark.parametrize(
    ("holder", "incarnation", "verdict"),
    [
        (None, "", None),
        ("gone", "1", None),
        ("b", "1", None),
        ("c", "1", None),
        ("a", "0", None),
        ("a", "1", "release"),
    ],
)
def test_a_partition_assigned_to_another(holder: str | None, incarnation: str, verdict: str | None) -> None:
    partition = assigned_to("b")[0]
    the_claim = claim(partition, holder, incarnation)
    expected = plan(ABC[0], ABC, [], "q", 6).claim
    assert plan(ABC[0], ABC, [the_claim], "q", 6) == replace(
        Plan(claim=expected), **{verdict: (the_claim,)} if verdict else {}
    )


def test_a_leaving_member_is_assigned_nothing_and_releases_to_the_others() -> None:
    leaving = member("a", leaving=True)
    members = [leaving, *ABC[1:]]
    held = [claim(p, "a") for p in range(6)]
    assert plan(leaving, members, held, "q", 6) == Plan(release=tuple(held))
    assert plan(leaving, members, [], "q", 6) == Plan()
    to_b, to_c = (plan(m, members, [], "q", 6).claim for m in ABC[1:])
    assert sorted(c.partition for c in to_b + to_c) == list(range(6))


def test_what_i_know_of_myself_goes_before_what_the_view_says_of_me() -> None:
    """A node that has decided to leave must not claim until the news has come back to it."""
    assert plan(member("a", leaving=True), ABC, [], "q", 6) == Plan()


def test_the_last_member_keeps_its_partitions_while_leaving() -> None:
    leaving = member("a", leaving=True)
    held = [claim(p, "a") for p in range(6)]
    assert plan(leaving, [leaving], held, "q", 6) == Plan(keep=tuple(held))


def test_a_member_that_does_not_serve_the_queue_is_assigned_nothing_of_it() -> None:
    other = member("a", queues="other")
    members = [other, *ABC[1:]]
    assert plan(other, members, [], "q", 6) == Plan()
    assert plan(other, members, [claim(0, "a")], "q", 6) == Plan(release=(claim(0, "a"),))
    assert len(plan(ABC[1], members, [], "q", 6).claim) == 3


@pytest.mark.parametrize("seen_as", [[], [member("a", "0")], [member("a", "2")]])
def test_who_is_not_among_the_members_plans_nothing(seen_as: list[Member]) -> None:
    """Its claims are void to the others: holding on to them would make two owners."""
    held = [claim(p, "a") for p in range(3)]
    assert plan(member("a"), [*seen_as, *ABC[1:]], held, "q", 6) == Plan()


def test_claims_of_other_queues_do_not_count() -> None:
    claims = [claim(p, "b", queue="other") for p in range(6)]
    assert plan(ABC[0], ABC, claims, "q", 6) == plan(ABC[0], ABC, [], "q", 6)


def test_the_newer_of_two_entries_of_a_node_counts() -> None:
    old, new = member("b", "1", seq=3), member("b", "2", seq=9)
    for members in ([ABC[0], old, new], [ABC[0], new, old]):
        assert is_void(claim(0, "b", "1"), members)
        assert not is_void(claim(0, "b", "2"), members)


@pytest.mark.parametrize(("written_seq", "expected"), [(9, 10), (11, 11)])
def test_of_a_claim_seen_and_a_claim_written_the_newer_counts(written_seq: int, expected: int) -> None:
    """Else a node would drop a partition again that it has just claimed, or go on with one that it lost."""
    others = [claim(1, "c"), claim(0, "c", queue="r")]
    merged = newest([claim(0, "b", seq=10), *others], [claim(0, "a", seq=written_seq)])
    assert sorted(c.seq for c in merged if (c.queue, c.partition) == ("q", 0)) == [expected]
    assert set(others) < set(merged)
    assert len(merged) == 3


def test_claim_and_release_keep_the_checkpoint() -> None:
    """A sweep of the next holder starts from it."""
    held = claim(0, "a")
    assert held.released() == Claim("q", 0, None, "", 10, 7)
    assert held.released().taken_by(member("b", "5")) == Claim("q", 0, NodeId("b"), "5", 10, 7)


# --- lease ------------------------------------------------------------------------------------------------------


def test_a_node_may_act_until_its_lease_less_the_margin_is_over() -> None:
    clock = LeaseClock(ttl_s=3.0, margin_s=0.5)
    assert not clock.may_act(0.0)
    clock.renewed(100.0)
    assert clock.may_act(100.0)
    assert clock.may_act(102.499)
    assert not clock.may_act(102.5)
    clock.renewed(102.0)
    assert clock.may_act(104.499)


def test_an_older_renewal_that_is_noted_late_shortens_nothing() -> None:
    clock = LeaseClock(ttl_s=3.0, margin_s=0.5)
    clock.renewed(102.0)
    clock.renewed(100.0)
    assert clock.may_act(104.0)


def test_there_is_a_margin_by_default() -> None:
    clock = LeaseClock(ttl_s=10.0)
    clock.renewed(0.0)
    assert clock.may_act(7.9)
    assert not clock.may_act(8.0)


@pytest.mark.parametrize("margin_s", [3.0, 4.0, -0.1])
def test_a_margin_that_leaves_nothing_of_the_lease_is_refused(margin_s: float) -> None:
    with pytest.raises(ValueError, match="margin"):
        LeaseClock(ttl_s=3.0, margin_s=margin_s)


# --- many nodes, any order --------------------------------------------------------------------------------------

TTL_S = 3.0
QUEUES = ("q", "r")
PARTITIONS = 5
NAMES = nodes(4)

PartitionKey = tuple[str, int]


@dataclass(frozen=True)
class Snapshot:
    """The bucket at one sequence."""

    members: dict[NodeId, Member] = field(default_factory=dict)
    claims: dict[PartitionKey, Claim] = field(default_factory=dict)


@dataclass
class ModelNode:
    """One OS process: what it knows (a prefix of the bucket's history), and what it runs."""

    me: Member
    view: int
    clock: LeaseClock
    is_connected: bool = True
    runs: set[PartitionKey] = field(default_factory=set)
    written: dict[PartitionKey, Claim] = field(default_factory=dict)


class Ownership(RuleBasedStateMachine):
    """Nodes that join, leave, crash, are cut off and see everything late, over one bucket with compare-and-set.

    Every write makes a new snapshot; a node sees the snapshots in order, but as late as it likes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.history = [Snapshot()]
        self.expires_at: dict[NodeId, float] = {}
        self.alive: dict[NodeId, ModelNode] = {}
        self.incarnations = 0

    # The bucket.

    @property
    def bucket(self) -> Snapshot:
        return self.history[-1]

    def put_member(self, new: Member) -> Member:
        stored = replace(new, seq=len(self.history))
        self.history.append(replace(self.bucket, members={**self.bucket.members, stored.node_id: stored}))
        self.expires_at[stored.node_id] = self.now + TTL_S
        return stored

    def drop_member(self, node_id: NodeId) -> None:
        self.history.append(
            replace(self.bucket, members={k: m for k, m in self.bucket.members.items() if k != node_id})
        )
        del self.expires_at[node_id]

    def put_claim(self, writer: ModelNode, new: Claim) -> bool:
        key = (new.queue, new.partition)
        standing = self.bucket.claims.get(key)
        if new.seq != (standing.seq if standing else 0):
            return False
        stored = replace(new, seq=len(self.history))
        self.history.append(replace(self.bucket, claims={**self.bucket.claims, key: stored}))
        writer.written[key] = stored
        return True

    def is_member(self, node: ModelNode) -> bool:
        stored = self.bucket.members.get(node.me.node_id)
        return stored is not None and stored.incarnation == node.me.incarnation

    # A node.

    def look(self, node: ModelNode, queue: str) -> Plan:
        """Plan by the node's own view, and stop what the plan says is lost."""
        view = self.history[node.view]
        claims = newest(list(view.claims.values()), list(node.written.values()))
        the_plan = plan(node.me, list(view.members.values()), claims, queue, PARTITIONS)
        held = {(c.queue, c.partition) for c in the_plan.keep + the_plan.release}
        node.runs = {key for key in node.runs if key[0] != queue or key in held}
        return the_plan

    def carry_out(self, node: ModelNode, the_plan: Plan, writes_max: int) -> None:
        if not node.is_connected or not node.clock.may_act(self.now):
            return
        for releasing in the_plan.release[:writes_max]:
            node.runs.discard((releasing.queue, releasing.partition))
            self.put_claim(node, releasing.released())
        for wanted in the_plan.claim[:writes_max]:
            key = (wanted.queue, wanted.partition)
            before = self.bucket.claims.get(key)
            if self.put_claim(node, wanted.taken_by(node.me)):
                assert before is None or is_void(before, list(self.bucket.members.values())), (
                    f"{node.me} took the valid {before}"
                )
                node.runs.add(key)

    def start(self, node_id: NodeId, queues: frozenset[str]) -> None:
        self.incarnations += 1
        clock = LeaseClock(TTL_S)
        clock.renewed(self.now)
        me = self.put_member(Member(node_id, str(self.incarnations), queues, 0))
        self.alive[node_id] = ModelNode(me, len(self.history) - 1, clock)

    def renew_or_restart(self, node: ModelNode) -> None:
        if self.is_member(node):
            node.me = self.put_member(node.me)
            node.clock.renewed(self.now)
        else:
            self.start(node.me.node_id, node.me.queues)

    # What can happen.

    @initialize(node_ids=st.sets(st.sampled_from(NAMES), min_size=1), halves=st.integers(0, 2))
    def begin(self, node_ids: set[NodeId], halves: int) -> None:
        for node_id in sorted(node_ids):
            self.start(node_id, frozenset(QUEUES))
        self.life_goes_on(halves)

    @rule(data=st.data(), queues=st.sets(st.sampled_from(QUEUES), min_size=1))
    @precondition(lambda self: len(self.alive) < len(NAMES))
    def join(self, data: st.DataObject, queues: set[str]) -> None:
        self.start(data.draw(st.sampled_from(sorted(set(NAMES) - set(self.alive)))), frozenset(queues))

    @rule(data=st.data())
    @precondition(lambda self: self.alive)
    def crash(self, data: st.DataObject) -> None:
        del self.alive[data.draw(st.sampled_from(sorted(self.alive)))]

    @rule(data=st.data())
    @precondition(lambda self: self.alive)
    def cut_off_or_reconnect(self, data: st.DataObject) -> None:
        node = self.draw_node(data)
        node.is_connected = not node.is_connected

    @rule(data=st.data())
    @precondition(lambda self: self.alive)
    def renew(self, data: st.DataObject) -> None:
        node = self.draw_node(data)
        if node.is_connected:
            self.renew_or_restart(node)

    @rule(data=st.data())
    @precondition(lambda self: self.alive)
    def begin_to_leave(self, data: st.DataObject) -> None:
        node = self.draw_node(data)
        if node.is_connected and self.is_member(node):
            node.me = self.put_member(replace(node.me, leaving=True))
            node.clock.renewed(self.now)

    @rule(data=st.data())
    @precondition(lambda self: any(node.me.leaving for node in self.alive.values()))
    def depart(self, data: st.DataObject) -> None:
        node_id = data.draw(st.sampled_from(sorted(k for k, n in self.alive.items() if n.me.leaving)))
        node = self.alive.pop(node_id)
        if node.is_connected and self.is_member(node):
            self.drop_member(node_id)

    @rule(data=st.data())
    @precondition(lambda self: self.alive)
    def ping(self, data: st.DataObject) -> None:
        """A dead process does not answer: its key is removed, if it is still the one that was seen."""
        node = self.draw_node(data)
        seen = self.history[node.view].members
        other = neighbour(list(seen.values()), node.me.node_id)
        if (
            node.is_connected
            and other is not None
            and other not in self.alive
            and self.bucket.members.get(other) == seen[other]
        ):
            self.drop_member(other)

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 2.4, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for node_id in sorted(k for k, at in self.expires_at.items() if at <= self.now):
            self.drop_member(node_id)

    @rule(data=st.data(), count=st.integers(1, 10))
    @precondition(lambda self: self.alive)
    def see_more(self, data: st.DataObject, count: int) -> None:
        node = self.draw_node(data)
        if node.is_connected:
            node.view = min(node.view + count, len(self.history) - 1)

    @rule(data=st.data(), queue=st.sampled_from(QUEUES), writes_max=st.integers(1, PARTITIONS))
    @precondition(lambda self: self.alive)
    def act(self, data: st.DataObject, queue: str, writes_max: int) -> None:
        """Any part of a plan, made from any view: a crash may follow."""
        node = self.draw_node(data)
        self.carry_out(node, self.look(node, queue), writes_max)

    @rule(halves=st.integers(1, 8))
    def life_goes_on(self, halves: int) -> None:
        """Half a second at a time, whoever is connected does what it should: the others' leases run out meanwhile."""
        for _ in range(halves):
            self.time_passes(0.5)
            for node_id in sorted(self.alive):
                if self.alive[node_id].is_connected:
                    self.renew_or_restart(self.alive[node_id])
                    node = self.alive[node_id]
                    node.view = len(self.history) - 1
                    for queue in QUEUES:
                        self.carry_out(node, self.look(node, queue), PARTITIONS)
            self.never_two_that_act_on_a_partition()

    @rule()
    def calm(self) -> None:
        """When nothing more happens, every partition soon has its one owner: three rounds are enough."""
        for node_id in sorted(self.bucket.members):
            if node_id not in self.alive:
                self.drop_member(node_id)
        for node in list(self.alive.values()):
            node.is_connected = True
            self.renew_or_restart(node)
        for _ in range(3):
            for node in self.alive.values():
                node.view = len(self.history) - 1
            for node in self.alive.values():
                for queue in QUEUES:
                    self.carry_out(node, self.look(node, queue), PARTITIONS)
        for queue in QUEUES:
            self.assert_owned(queue)

    def assert_owned(self, queue: str) -> None:
        serving = [n.me.node_id for n in self.alive.values() if queue in n.me.queues and not n.me.leaving]
        running = {key[1]: n.me.node_id for n in self.alive.values() for key in n.runs if key[0] == queue}
        if serving:
            assert running == assign(PARTITIONS, queue, serving)
        for node in self.alive.values():
            node.view = len(self.history) - 1
            plan = self.look(node, queue)
            assert (plan.claim, plan.release, plan.wait) == ((), (), ())
        holders = {
            p: c.node_id
            for (q, p), c in self.bucket.claims.items()
            if q == queue and not is_void(c, list(self.bucket.members.values()))
        }
        assert holders == running

    def draw_node(self, data: st.DataObject) -> ModelNode:
        return self.alive[data.draw(st.sampled_from(sorted(self.alive)))]

    # What must always hold.

    @invariant()
    def never_two_that_act_on_a_partition(self) -> None:
        acting = Counter(key for node in self.alive.values() if node.clock.may_act(self.now) for key in node.runs)
        assert [key for key, count in acting.items() if count > 1] == []

    def teardown(self) -> None:
        self.calm()


# A failure is shrunk for minutes before it is shown.
TestOwnership = pytest.mark.timeout(600)(Ownership.TestCase)
TestOwnership.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
