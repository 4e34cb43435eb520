"""Keeping a queue's stream from growing for ever: the owner of a partition removes the runs that ended long ago.

Not responsible for what may go (`store.retention`). A sweep walks each partition from where the last one has stopped,
so a message is looked at once, and what was left is met again at the end of its run. It works in small steps with
pauses between them, so the loop and the server have most of their time for workflows.

How things are removed is a matter of what it costs the server (2.15.1, with 60,000 messages in the stream): a purge of
one workflow walks over all messages between its first and its last one, 1.5 ms; deleting a message takes 0.04 ms; a
purge of the beginning of a partition 1 ms whatever is in it. So that is what is done where nothing has to stay; else
what has come by is deleted message by message. A workflow is purged by its name when the walk has left something of it
behind before: messages that another run of it needed, or that of a run which was open at that time.

The age of a message is taken by the server's clock, as are the messages' times: a node whose own clock is wrong removes
nothing too early.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeVar

import anyio

from mesh.connection import Connection
from mesh.errors import TEMPORARY
from mesh.groups import unwrapped
from mesh.instants import timestamp_ns_of
from mesh.jetstream import JetStream
from mesh.stored_messages import StoredMessage
from mesh.subjects import (
    is_canonical,
    partition_filter,
    stored_under,
)
from node.workflows.partition import Partition
from store.purging import Purging
from store.retention import (
    NOTHING,
    LookCloser,
    Visited,
    end_fact,
    next_look_s,
    start_fact,
    verdict,
    visited_by_id,
)
from store.unreferenced import referred_by

SWEEP_EVERY_S: Final = 60.0
SWEEP_SOONEST_S: Final = 0.25
FIRST_SWEEP_S: Final = 5.0  # a new owner has more urgent things to do
PAGE_MESSAGES: Final = 200
# On a busy node an answer takes as long as the loop has to do; one purge after another would never come to an end.
PURGES_AT_ONCE: Final = 50
PAUSE_MAX_S: Final = 0.05
KEPT_MAX: Final = 100_000  # of one partition; above that, workflows are removed the slower way

T = TypeVar("T")

_log = logging.getLogger(__name__)


class _Walk:
    """How far the walk over a partition has come, and of which workflows it has left messages behind."""

    def __init__(self) -> None:
        self.seq = 0
        self._kept: set[int] | None = set()  # hashes of id tokens; None: of too many to remember

    @property
    def has_kept(self) -> bool:
        """Whether anything was left behind."""
        return self._kept is None or bool(self._kept)

    def may_have_kept(self, id_token: str) -> bool:
        """Whether messages of this workflow may have been left behind."""
        return self._kept is None or hash(id_token) in self._kept

    def note(self, id_token: str, *, kept: bool) -> None:
        """Take notice of a workflow that was met."""
        if self._kept is None:
            return
        if kept:
            self._kept.add(hash(id_token))
            if len(self._kept) > KEPT_MAX:
                self._kept = None
        else:
            self._kept.discard(hash(id_token))


class Retention:
    """Sweeps the partitions of one queue that this node owns. retention_s: 0 = everything is kept for ever.

    may_act: whether the node's lease is good. purged: how many runs were removed.
    """

    def __init__(
        self,
        *,
        conn: Connection,
        js: JetStream,
        may_act: Callable[[], bool],
        queue: str,
        partitions: Mapping[int, Partition],
        retention_s: float,
    ) -> None:
        self.purged = 0
        self._purging = Purging(conn, js, queue)
        self._js = js
        self._as_stored = JetStream(conn, opens=False)
        self._may_act = may_act
        self._queue = queue
        self._stream = self._purging.stream
        self._partitions = partitions
        self._retention_s = retention_s
        self._walks: dict[int, _Walk] = {}  # by partition

    async def run(self) -> None:
        """Sweep now and then until cancelled."""
        if not self._retention_s:
            return
        wait_s = min(FIRST_SWEEP_S, max(self._retention_s, SWEEP_SOONEST_S))
        while True:
            await anyio.sleep(wait_s)
            try:
                wait_s = await self.sweep()
            except TEMPORARY as error:
                _log.warning("queue %s: old histories are not removed yet: %s", self._queue, error)
                wait_s = min(FIRST_SWEEP_S, SWEEP_EVERY_S)

    async def sweep(self) -> float:
        """Remove what is old enough in all partitions; return after how many seconds there may be more."""
        info = await self._js.api(f"STREAM.INFO.{self._stream}")
        now_ns = timestamp_ns_of(str(info["ts"]))
        last_seq = int(info["state"]["last_seq"])
        cutoff_ns = now_ns - round(self._retention_s * 1e9)
        for number in [number for number in self._walks if number not in self._partitions]:
            del self._walks[number]
        waits_s = [SWEEP_EVERY_S]
        begun, before = time.monotonic(), self.purged
        for partition in list(self._partitions.values()):
            if partition.catchup is not None:
                waits_s.append(SWEEP_SOONEST_S)
                continue
            walk = self._walks.get(partition.number)
            if walk is None or walk.seq > last_seq:  # the stream has lost its end and is numbered anew
                walk = self._walks[partition.number] = _Walk()
            oldest_ns = await self._sweep_partition(partition, walk, cutoff_ns)
            waits_s.append(
                next_look_s(oldest_ns, now_ns, self._retention_s, shortest_s=SWEEP_SOONEST_S, longest_s=SWEEP_EVERY_S)
            )
        if self.purged > before:
            _log.info(
                "queue %s: removed %d runs that ended more than %gs ago, in %.1f s",
                self._queue, self.purged - before, self._retention_s, time.monotonic() - begun,
            )  # fmt: skip
        return min(waits_s)

    async def _sweep_partition(self, partition: Partition, walk: _Walk, cutoff_ns: int) -> int | None:
        """Walk on; return the time of the first message that is too young, None when there is none."""
        number = partition.number
        subjects = partition_filter(self._queue, number)
        while not partition.stopped and self._may_act():
            begun = time.perf_counter()
            page = await self._as_stored.batch_get(
                self._stream, from_seq=walk.seq + 1, subject_filter=subjects,
                batch=PAGE_MESSAGES, messages_max=PAGE_MESSAGES,
            )  # fmt: skip
            old = [message for message in page if message.timestamp_ns < cutoff_ns]
            if old:
                await self._clear(number, walk, old, cutoff_ns)
                walk.seq = old[-1].seq
            if len(old) < len(page):
                return page[len(old)].timestamp_ns
            if len(page) < PAGE_MESSAGES:
                return None
            await anyio.sleep(min(time.perf_counter() - begun, PAUSE_MAX_S))
        return None

    async def _clear(self, partition: int, walk: _Walk, page: Sequence[StoredMessage], cutoff_ns: int) -> None:
        """Remove what may go of a page, in which all messages are old enough."""
        visited = visited_by_id(page)
        bounds, at_once = await self._bounds(partition, visited, cutoff_ns)
        at_once |= {id_token for id_token in bounds if walk.may_have_kept(id_token)}
        going = [message for message in page if message.seq <= bounds.get(_id_token(message), NOTHING)]
        if len(going) == len(page) and not walk.has_kept and not at_once:
            # Nothing of the partition is left up to here: one request for all of it.
            await self._js.purge(
                self._stream, subject=partition_filter(self._queue, partition), up_to_seq=page[-1].seq + 1
            )
        else:
            one_by_one = [message.seq for message in going if _id_token(message) not in at_once]
            await self._together(lambda seq: self._js.delete_message(self._stream, seq), one_by_one)
            await self._together(
                lambda id_token: self._purging.purge(partition, id_token, bounds[id_token], ()), sorted(at_once)
            )
        await self._tidy_timers(partition, bounds)
        await self._purging.remove_objects(name for message in going if (name := referred_by(message)))
        for message in going:
            if message.subject.endswith(".start") and _id_token(message) not in at_once:
                self.purged += 1
                self._purging.tell(_id_token(message), message.seq)
        for id_token in at_once:
            self.purged += 1
            self._purging.tell(id_token, bounds[id_token])
        for id_token, met in visited.items():
            walk.note(id_token, kept=met.last > bounds.get(id_token, NOTHING))

    async def _bounds(
        self, partition: int, visited: Mapping[str, Visited], cutoff_ns: int
    ) -> tuple[dict[str, int], set[str]]:
        """Up to which sequence each workflow may go, and which ones may have messages before those that were met."""
        known = [id_token for id_token in visited if is_canonical(id_token)]
        starts = {
            _id_token(message): start_fact(message)
            for message in await self._last(partition, [(id_token, "start") for id_token in known])
        }
        ends = {
            _id_token(message): fact
            for message in await self._last(
                partition, [(id_token, "end", str(start.seq)) for id_token, start in starts.items()]
            )
            if (fact := end_fact(message)) is not None
        }
        bounds: dict[str, int] = {}
        at_once = set()
        for id_token, met in visited.items():
            bound = verdict(met, starts.get(id_token), ends.get(id_token), cutoff_ns)
            if isinstance(bound, LookCloser):
                bound = await self._purging.removable(partition, id_token, lambda _run, end: end.at_ns < cutoff_ns)
                if bound != NOTHING:
                    at_once.add(id_token)
            if bound != NOTHING:
                bounds[id_token] = bound
        return bounds, at_once

    async def _tidy_timers(self, partition: int, bounds: Mapping[str, int]) -> None:
        left = await self._purging.timers(partition, list(bounds))
        over = [
            timer
            for id_token, timers in left.items()
            for timer in timers
            if (run := timer.split(".")[5]).isdecimal() and int(run) <= bounds[id_token]
        ]
        await self._together(lambda timer: self._js.purge(self._stream, subject=timer), over)

    @staticmethod
    async def _together(action: Callable[[T], Awaitable[object]], things: Sequence[T]) -> None:
        """Do something with each, some at the same time."""
        limit = anyio.CapacityLimiter(PURGES_AT_ONCE)

        async def one(thing: T) -> None:
            async with limit:
                await action(thing)

        with unwrapped():
            async with anyio.create_task_group() as tasks:
                for thing in things:
                    tasks.start_soon(one, thing)

    async def _last(self, partition: int, of: Sequence[tuple[str, ...]]) -> list[StoredMessage]:
        """The last message of each of these: id token and kind."""
        subjects = [stored_under(self._queue, partition, *which) for which in of]
        return await self._js.multi_last(self._stream, subjects) if subjects else []


def _id_token(message: StoredMessage) -> str:
    return message.subject.split(".", 5)[4]
