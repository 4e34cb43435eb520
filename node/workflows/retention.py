"""Keeping a queue's stream from growing for ever: the owner of a partition removes the runs that ended long ago.

Not responsible for what may go (`store.retention`). A sweep walks each partition from where the last one has stopped,
so a message is looked at once, and what was left is met again at the end of its run. It works in small steps with
pauses between them, so the loop and the server have most of their time for workflows.

The age of a message is taken by the server's clock, as are the messages' times: a node whose own clock is wrong removes
nothing too early.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import anyio

from mesh.connection import Connection
from mesh.errors import TEMPORARY
from mesh.groups import unwrapped
from mesh.jetstream import JetStream, StoredMessage, timestamp_ns_of
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
    StartFact,
    Visited,
    end_fact,
    next_look_s,
    start_fact,
    verdict,
    visited_by_id,
)

SWEEP_EVERY_S: Final = 60.0
SWEEP_SOONEST_S: Final = 0.25
FIRST_SWEEP_S: Final = 5.0  # a new owner has more urgent things to do
PAGE_MESSAGES: Final = 200
# On a busy node an answer takes as long as the loop has to do; one purge after another would never come to an end.
PURGES_AT_ONCE: Final = 50
PAUSE_MAX_S: Final = 0.05

_log = logging.getLogger(__name__)


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
        self._may_act = may_act
        self._queue = queue
        self._stream = self._purging.stream
        self._partitions = partitions
        self._retention_s = retention_s
        self._looked_at: dict[int, int] = {}  # by partition: up to which sequence the walk has come

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
        for number in [number for number in self._looked_at if number not in self._partitions]:
            del self._looked_at[number]
        waits_s = [SWEEP_EVERY_S]
        begun, before = time.monotonic(), self.purged
        for partition in list(self._partitions.values()):
            if partition.catchup is not None:
                waits_s.append(SWEEP_SOONEST_S)
                continue
            if self._looked_at.get(partition.number, 0) > last_seq:
                self._looked_at[partition.number] = 0  # the stream has lost its end and is numbered anew
            oldest_ns = await self._sweep_partition(partition, cutoff_ns)
            waits_s.append(
                next_look_s(oldest_ns, now_ns, self._retention_s, shortest_s=SWEEP_SOONEST_S, longest_s=SWEEP_EVERY_S)
            )
        if self.purged > before:
            _log.info(
                "queue %s: removed %d runs that ended more than %gs ago, in %.1f s",
                self._queue, self.purged - before, self._retention_s, time.monotonic() - begun,
            )  # fmt: skip
        return min(waits_s)

    async def _sweep_partition(self, partition: Partition, cutoff_ns: int) -> int | None:
        """Walk on; return the time of the first message that is too young, None when there is none."""
        number = partition.number
        subjects = partition_filter(self._queue, number)
        while not partition.stopped and self._may_act():
            begun = time.perf_counter()
            page = await self._js.batch_get(
                self._stream, from_seq=self._looked_at.get(number, 0) + 1, subject_filter=subjects,
                batch=PAGE_MESSAGES, messages_max=PAGE_MESSAGES,
            )  # fmt: skip
            old = [message for message in page if message.timestamp_ns < cutoff_ns]
            if old:
                await self._judge(number, visited_by_id(old), cutoff_ns)
                self._looked_at[number] = old[-1].seq
            if len(old) < len(page):
                return page[len(old)].timestamp_ns
            if len(page) < PAGE_MESSAGES:
                return None
            await anyio.sleep(min(time.perf_counter() - begun, PAUSE_MAX_S))
        return None

    async def _judge(self, partition: int, visited: Mapping[str, Visited], cutoff_ns: int) -> None:
        """Remove what may go of some workflows."""
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
        for id_token, met in visited.items():
            bound = verdict(met, starts.get(id_token), ends.get(id_token), cutoff_ns)
            if isinstance(bound, LookCloser):
                bound = await self._purging.removable(partition, id_token, lambda _run, end: end.at_ns < cutoff_ns)
            if bound != NOTHING:
                bounds[id_token] = bound
        timers = await self._purging.timers(partition, list(bounds))
        limit = anyio.CapacityLimiter(PURGES_AT_ONCE)

        async def purge(id_token: str, bound: int) -> None:
            async with limit:
                await self._purge(partition, id_token, bound, starts.get(id_token), timers.get(id_token, ()))

        with unwrapped():
            async with anyio.create_task_group() as tasks:
                for id_token, bound in bounds.items():
                    tasks.start_soon(purge, id_token, bound)

    async def _last(self, partition: int, of: Sequence[tuple[str, ...]]) -> list[StoredMessage]:
        """The last message of each of these: id token and kind."""
        subjects = [stored_under(self._queue, partition, *which) for which in of]
        return await self._js.multi_last(self._stream, subjects) if subjects else []

    async def _purge(
        self, partition: int, id_token: str, bound: int, newest: StartFact | None, timers: Sequence[str]
    ) -> None:
        await self._purging.purge(partition, id_token, bound, timers)
        if newest is not None:
            self.purged += 1
            self._purging.tell(id_token, newest.seq if newest.seq <= bound else bound)


def _id_token(message: StoredMessage) -> str:
    return message.subject.split(".", 5)[4]
