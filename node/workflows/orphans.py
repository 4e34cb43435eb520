"""Removing the objects of a queue that no message refers to (`store.unreferenced` says which).

The owner of the queue's first partition looks through all of them now and then: for each workflow that has objects old
enough, which of them its messages refer to. A workflow whose messages cannot be seen as a whole at the moment, because
a replica lags behind, is left alone until the next time.

What belongs to a history that is removed goes with it at once (`store.purging`, `node.workflows.retention`).
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Final

import anyio

from mesh.connection import Connection
from mesh.errors import TEMPORARY, ServerRefused
from mesh.instants import timestamp_ns_of
from mesh.jetstream import JetStream
from mesh.references import ObjectName
from mesh.stored_messages import StoredMessage
from mesh.subjects import stored_under, stream_name, token
from node.workflows.partition import Partition
from store.unreferenced import ORPHAN_AGE_S, in_use, unreferenced

SWEEP_EVERY_S: Final = 600.0
FIRST_SWEEP_S: Final = 60.0  # a new owner has more urgent things to do
SWEEPING_PARTITION: Final = 0

_log = logging.getLogger(__name__)


class Orphans:
    """Sweeps the objects of one queue while this node owns its first partition."""

    def __init__(
        self,
        conn: Connection,
        queue: str,
        *,
        partitions: Mapping[int, Partition],
        may_act: Callable[[], bool],
        age_s: float = ORPHAN_AGE_S,
    ) -> None:
        self._js = JetStream(conn, opens=False)
        self._queue = queue
        self._stream = stream_name(queue)
        self._partitions = partitions
        self._may_act = may_act
        self._age_s = age_s

    async def run(self) -> None:
        """Sweep now and then until cancelled."""
        wait_s = FIRST_SWEEP_S
        while True:
            await anyio.sleep(wait_s)
            wait_s = SWEEP_EVERY_S
            if SWEEPING_PARTITION in self._partitions and self._may_act():
                try:
                    await self.sweep()
                except TEMPORARY as error:
                    _log.info("queue %s: objects that nobody needs are not removed yet: %s", self._queue, error)

    async def sweep(self) -> int:
        """Remove what nobody needs of all workflows; return how many objects."""
        by_workflow: defaultdict[str, list[ObjectName]] = defaultdict(list)
        for name in await self._js.objects.names(self._queue):
            by_workflow[name.id_token].append(name)
        if not by_workflow:
            return 0
        now_ns = timestamp_ns_of(str((await self._js.api(f"STREAM.INFO.{self._stream}"))["ts"]))
        removed = 0
        for id_token, names in by_workflow.items():
            if self._may_act():
                removed += await self._sweep_workflow(id_token, names, now_ns)
        if removed:
            _log.info("queue %s: removed %d objects that nothing refers to", self._queue, removed)
        return removed

    async def _sweep_workflow(self, id_token: str, names: list[ObjectName], now_ns: int) -> int:
        stored_ns = await self._js.objects.stored_ns(self._queue, names)
        if all(now_ns - at_ns <= self._age_s * 1e9 for at_ns in stored_ns.values()):
            return 0
        messages = await self._messages(id_token)
        if messages is None:
            return 0
        gone = unreferenced(stored_ns, in_use(messages), now_ns, self._age_s)
        return await self._js.objects.remove(self._queue, gone) if gone else 0

    async def _messages(self, id_token: str) -> list[StoredMessage] | None:
        """All messages of a workflow and of its schedule; None when not all of them can be seen."""
        everything = stored_under(self._queue, "*", id_token, ">")
        counts = await self._js.subject_counts(self._stream, everything)
        try:
            messages = await self._js.multi_last(self._stream, [everything])
            if len(counts) > len(messages):
                return None
            for subject, count in counts.items():
                if count > 1:
                    messages += await self._js.batch_get(self._stream, subject_filter=subject, messages_max=count)
        except ServerRefused:  # too many subjects for one answer
            messages = await self._js.batch_get(self._stream, subject_filter=everything)
        if len({message.seq for message in messages}) < sum(counts.values()):
            return None
        for state in ("cron", "paused"):
            subject = f"mesh.at.{token(self._queue)}.{state}.{id_token}"
            schedule = await self._js.get_last(self._stream, subject, from_leader=True)
            if schedule is not None:
                messages.append(schedule)
        return messages
