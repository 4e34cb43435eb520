"""Who is alive and who owns what: this node's view of it, and its own part in it.

Everything is in one KV bucket, `mesh_roster`, seen through one ordered consumer, so that a claim is never seen before
the member key of its holder:

    member.<node>               one node; expires unless it is renewed
    claim.<queue>.<partition>   who owns a partition, and how far it is known to need nothing; stays for ever
    host.<node>                 a function host that is no member (`mesh.presence`); expires unless it is renewed

The decisions are in `mesh.membership`; here are the reads and writes. A node that dies is found out by its neighbour on
the ring, which asks it for a sign of life: without a process there is no subscription, and the server answers at once
that nobody is there. Who finds that removes the member key; everybody sees it and plans anew.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import anyio
import anyio.abc

from mesh.buckets import Bucket
from mesh.connection import Connection
from mesh.errors import TEMPORARY, Conflict, Disconnected, MeshError, NoResponders, RequestTimeout
from mesh.follower import Delivered, Follower
from mesh.jetstream import JetStream
from mesh.membership import Claim, LeaseClock, Member, Plan, neighbour, newest, plan
from mesh.rendezvous import NodeId
from mesh.subjects import bucket_key, bucket_key_name, node_request

BUCKET: Final = "mesh_roster"
MEMBER_TTL_S: Final = 3
RENEW_EVERY_S: Final = 0.8
AGAIN_S: Final = 0.05
# For what is in the bucket to come, once it is followed.
READY_S: Final = 10.0
# How long leaving waits for the server: as long as the member key would stand anyway.
GOOD_BYE_S: Final = float(MEMBER_TTL_S)
PING_EVERY_S: Final = 0.1
# A neighbour that is slow to answer is left alone, its member key decides; only "nobody listens" counts. So the limit
# is short: a ping that reached a process just before it died is never answered, and the next one tells.
PING_TIMEOUT_S: Final = 0.2
# After a reconnect nobody is taken for gone for a while: when a server was restarted, the others are coming back too.
RECONNECT_GRACE_S: Final = 1.0

_log = logging.getLogger(__name__)


class Roster:
    """This node's view of members and claims. `on_change` is called after every change, from the read loop."""

    def __init__(
        self,
        conn: Connection,
        js: JetStream,
        *,
        node_id: str,
        incarnation: Callable[[], str],
        queues: frozenset[str],
        on_change: Callable[[], None],
        details: dict[str, Any] | None = None,
        ttl_s: int = MEMBER_TTL_S,
        replicas: int = 1,
    ) -> None:
        self._conn = conn
        self._js = js
        self._bucket = Bucket(js, BUCKET)
        self._new_incarnation = incarnation
        self._on_change = on_change
        self._details = details or {}
        self._ttl_s = ttl_s
        self._replicas = replicas
        self.me = Member(NodeId(node_id), incarnation(), queues, 0)
        self.lease = LeaseClock(float(ttl_s))
        self._members: dict[str, Member] = {}
        self._member_details: dict[str, dict[str, Any]] = {}
        self._function_hosts: dict[str, dict[str, Any]] = {}
        self._claims: dict[tuple[str, int], Claim] = {}
        self._written: dict[tuple[str, int], Claim] = {}
        self._checkpoints: dict[tuple[str, int], tuple[str, ...]] = {}
        self._left = False
        self._has_joined = anyio.Event()
        self._member_seq = 0
        # Whoever writes the member key expects it as the write before left it, so the next waits for its answer.
        self._member_lock = anyio.Lock()
        self._patient_until_s = 0.0  # monotonic; nobody is pinged before

    # -- view --------------------------------------------------------------------------------------------------

    def members(self) -> list[Member]:
        """The live members, by id."""
        return sorted(self._members.values(), key=lambda m: m.node_id)

    def details(self, node_id: str) -> dict[str, Any]:
        """What a member says of itself."""
        return self._member_details.get(node_id, {})

    def function_hosts(self) -> list[dict[str, Any]]:
        """What the function hosts say of themselves that are no members."""
        return list(self._function_hosts.values())

    def host_lives(self) -> set[tuple[str, str]]:
        """Which function hosts there are that are no members, each with which of its starts it is."""
        return {(key, str(host.get("boot", ""))) for key, host in self._function_hosts.items()}

    def claims(self) -> list[Claim]:
        """The claims, the newest version of each that this node knows."""
        return newest(list(self._claims.values()), list(self._written.values()))

    def standing(self, claim: Claim) -> Claim | None:
        """The claim of the same partition as it was last seen, if it is this node's own in this incarnation."""
        for seen in self.claims():
            if (seen.queue, seen.partition) == (claim.queue, claim.partition):
                mine = seen.node_id == self.me.node_id and seen.incarnation == self.me.incarnation
                return seen if mine else None
        return None

    def busy(self, claim: Claim) -> tuple[str, ...]:
        """The runs that needed attention at the claim's checkpoint, as id tokens."""
        return self._checkpoints.get((claim.queue, claim.partition), ())

    def plan(self, queue: str, partitions: int) -> Plan:
        """What this node must do now about a queue."""
        return plan(self.me, self.members(), self.claims(), queue, partitions)

    def may_act(self) -> bool:
        """Whether this node may act on what it owns."""
        return not self._left and self.lease.may_act(time.monotonic())

    # -- life --------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Join, and stay a member until cancelled. Ready once this node has seen all claims and itself as a member."""
        await self._bucket.ensure(
            description="Members of the mesh and the claims on its partitions", replicas=self._replicas
        )
        follower = Follower(
            self._conn,
            self._js,
            self._bucket.stream,
            [f"{self._bucket.prefix}>"],
            1,
            self._see,
            consumer_prefix=f"roster-{self.me.node_id}",
        )
        async with anyio.create_task_group() as tasks:
            await tasks.start(follower.run)
            await follower.catch_up(READY_S)
            await self._join()
            tasks.start_soon(self._renew_for_ever)
            tasks.start_soon(self._ping_for_ever)
            await self._has_joined.wait()
            task_status.started()

    async def leave(self) -> None:
        """Say good-bye: no member any more, at once."""
        self._left = True
        self.me = replace(self.me, leaving=True)
        try:
            with anyio.fail_after(GOOD_BYE_S):
                # A renewal under way would write the key again, and the others would give work to nobody.
                async with self._member_lock:
                    await self._bucket.delete(self._member_key(self.me.node_id))
        except (MeshError, TimeoutError) as error:
            _log.warning("could not say good-bye, the member key will expire: %s", error or "no answer")

    async def announce_leaving(self) -> None:
        """Tell the others that this node takes no partitions any more but still answers."""
        self.me = replace(self.me, leaving=True)
        await self._renew()

    async def _join(self) -> None:
        """Write the member key for a new incarnation, whatever was there."""
        while True:
            before = time.monotonic()
            try:
                self._member_seq = await self._bucket.put(
                    self._member_key(self.me.node_id), self._member_value(), ttl_s=self._ttl_s
                )
            except TEMPORARY:
                await anyio.sleep(AGAIN_S)
                await self._conn.wait_connected()
                continue
            self.lease.renewed(before)
            return

    async def _renew_for_ever(self) -> None:
        while True:
            await anyio.sleep(RENEW_EVERY_S)
            try:
                await self._renew()
            except TEMPORARY as error:
                _log.warning("member key not renewed: %s", error)
                await self._conn.wait_connected()

    async def _renew(self) -> None:
        """Renew by compare-and-set on the own key: if anybody has touched it, this incarnation is over.

        Were the old incarnation written again after others saw it vanish, its void claims would turn valid under the
        hands of whoever is taking them over.
        """
        async with self._member_lock:
            if not self._left:
                await self._renew_or_rejoin()

    async def _renew_or_rejoin(self) -> None:
        before = time.monotonic()
        if self.lease.may_act(before):
            try:
                self._member_seq = await self._bucket.update(
                    self._member_key(self.me.node_id), self._member_value(), self._member_seq, ttl_s=self._ttl_s
                )
            except Conflict:
                pass
            else:
                self.lease.renewed(before)
                return
        self.me = replace(self.me, incarnation=self._new_incarnation())
        self._written.clear()
        self.lease = LeaseClock(float(self._ttl_s))
        _log.warning("node %s was taken for lost and rejoins as %s", self.me.node_id, self.me.incarnation)
        self._on_change()
        await self._join()

    async def _ping_for_ever(self) -> None:
        remove = self._conn.on_state(self._on_state)
        pause_s = PING_EVERY_S
        try:
            while True:
                await anyio.sleep(pause_s)
                pause_s = PING_EVERY_S
                other = neighbour(self.members(), self.me.node_id)
                if other is None or not self.may_act() or time.monotonic() < self._patient_until_s:
                    continue
                try:
                    await self._conn.request(node_request(other, "ping"), b"", timeout_s=PING_TIMEOUT_S)
                except NoResponders:
                    await self._bury(other)
                except RequestTimeout:
                    pause_s = 0.0
                except Disconnected:
                    continue
        finally:
            remove()

    def _on_state(self, connected: bool) -> None:
        if connected:
            self._patient_until_s = time.monotonic() + RECONNECT_GRACE_S

    async def _bury(self, node_id: str) -> None:
        member = self._members.get(node_id)
        if member is None:
            return
        try:
            await self._bucket.delete(self._member_key(node_id), revision=member.seq)
            _log.warning("node %s is gone", node_id)
        except Conflict:
            return  # it has renewed meanwhile
        except TEMPORARY:
            return

    # -- claims ------------------------------------------------------------------------------------------------

    async def claim(self, claim: Claim) -> Claim | None:
        """Take a partition; None when somebody else was quicker."""
        return await self._write_claim(claim.taken_by(self.me), self.busy(claim))

    async def release(self, claim: Claim, checkpoint: int, busy: tuple[str, ...], checkpoint_ns: int = 0) -> None:
        """Give a partition back, with how far its events have been handled."""
        await self._write_claim(replace(claim, checkpoint=checkpoint, checkpoint_ns=checkpoint_ns).released(), busy)

    async def save_checkpoint(
        self, claim: Claim, checkpoint: int, busy: tuple[str, ...], checkpoint_ns: int = 0
    ) -> Claim | None:
        """Record how far a partition needs nothing, and which runs are excepted. None when the claim is lost."""
        return await self._write_claim(replace(claim, checkpoint=checkpoint, checkpoint_ns=checkpoint_ns), busy)

    async def _write_claim(self, claim: Claim, busy: tuple[str, ...]) -> Claim | None:
        key = f"claim.{bucket_key(claim.queue)}.{claim.partition}"
        value = {
            "node": claim.node_id,
            "incarnation": claim.incarnation,
            "checkpoint": claim.checkpoint,
            "checkpoint_ns": claim.checkpoint_ns,
            "busy": list(busy),
        }
        try:
            seq = await self._bucket.update(key, json.dumps(value).encode(), claim.seq)
        except Conflict:
            return None
        written = replace(claim, seq=seq)
        self._written[claim.queue, claim.partition] = written
        self._checkpoints[claim.queue, claim.partition] = busy
        return written

    # -- what comes in -----------------------------------------------------------------------------------------

    def _see(self, message: Delivered) -> None:
        key = message.subject.removeprefix(self._bucket.prefix)
        kind, _, rest = key.partition(".")
        value = None if message.raw_headers and _is_gone(message.raw_headers) else _json_object(message.data)
        if kind == "member":
            self._see_member(bucket_key_name(rest), value, message.seq)
        elif kind == "host" and value is not None:
            self._function_hosts[rest] = _details(value)
        elif kind == "host":
            self._function_hosts.pop(rest, None)
        elif kind == "claim":
            queue, _, partition = rest.rpartition(".")
            if not partition.isdecimal() or not self._see_claim(
                bucket_key_name(queue), int(partition), value or {}, message.seq
            ):
                return  # nothing follows from a checkpoint, and every node writes some dozens of them a second
        self._on_change()

    def _see_member(self, node_id: str, value: dict[str, Any] | None, seq: int) -> None:
        if value is None:
            self._members.pop(node_id, None)
            self._member_details.pop(node_id, None)
            return
        self._members[node_id] = Member(
            NodeId(node_id),
            _text(value.get("incarnation")),
            frozenset(_texts(value.get("queues"))),
            seq,
            bool(value.get("leaving")),
        )
        self._member_details[node_id] = _details(value)
        if (node_id, self._members[node_id].incarnation) == (self.me.node_id, self.me.incarnation):
            self._has_joined.set()

    def _see_claim(self, queue: str, partition: int, value: dict[str, Any], seq: int) -> bool:
        """Take note of a claim as it stands; return whether its holder is another one than before."""
        node = value.get("node")
        checkpoint, checkpoint_ns = value.get("checkpoint", 0), value.get("checkpoint_ns", 0)
        claim = Claim(
            queue, partition, NodeId(node) if isinstance(node, str) else None, _text(value.get("incarnation")), seq,
            checkpoint if isinstance(checkpoint, int) else 0, checkpoint_ns if isinstance(checkpoint_ns, int) else 0,
        )  # fmt: skip
        before = self._claims.get((queue, partition))
        self._claims[queue, partition] = claim
        written = self._written.get((queue, partition))
        if written is None or written.seq <= seq:
            self._checkpoints[queue, partition] = tuple(_texts(value.get("busy")))
            self._written.pop((queue, partition), None)
        return before is None or (before.node_id, before.incarnation) != (claim.node_id, claim.incarnation)

    def _member_key(self, node_id: str) -> str:
        return f"member.{bucket_key(node_id)}"

    def _member_value(self) -> bytes:
        value = {
            **self._details,
            "incarnation": self.me.incarnation,
            "queues": sorted(self.me.queues),
            "leaving": self.me.leaving,
        }
        return json.dumps(value).encode()


def _is_gone(raw_headers: bytes) -> bool:
    return b"KV-Operation:" in raw_headers or b"Nats-Marker-Reason:" in raw_headers


def _json_object(data: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _details(value: dict[str, Any]) -> dict[str, Any]:
    """What a node says of itself: texts, and lists of texts. What is anything else was said by nobody of ours."""
    said = {name: _texts(item) if isinstance(item, list) else item for name, item in value.items()}
    return {name: item for name, item in said.items() if isinstance(item, str | list | bool | int | float)}


def _texts(value: object) -> list[str]:
    """The texts of a list; whoever has the right to write the bucket may write anything."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
