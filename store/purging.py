"""Removing what of a workflow may go: its messages up to a sequence, their objects, and the timers of its runs.

What may go is decided in `store.retention`; who asks is the owner of a partition, and `mesh archive`. Repeating a purge
is harmless, and so is one that was left in the middle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from mesh.connection import Connection
from mesh.errors import ServerRefused
from mesh.jetstream import JetStream
from mesh.references import ARGUMENTS, SCHEDULED, parse_name
from mesh.stored_messages import StoredMessage
from mesh.stream_reads import BATCH_READS
from mesh.subjects import WorkflowKey, schedules_under, stored_under, stream_name, untoken
from store.retention import EndFact, StartFact, end_fact, removable_up_to, start_fact
from store.unreferenced import referred_by


class Purging:
    """Removes workflows of one queue, by partition and id token."""

    def __init__(self, conn: Connection, js: JetStream, queue: str) -> None:
        self.stream = stream_name(queue)
        self._conn = conn
        self._js = js
        self._as_stored = JetStream(conn, opens=False)
        self._queue = queue

    async def removable(
        self, partition: int, id_token: str, may_go: Callable[[StartFact | None, EndFact], bool]
    ) -> int:
        """Up to which sequence may go, from all starts and ends of a workflow (`store.retention.removable_up_to`)."""

        async def all_of(*kind: str) -> list[StoredMessage]:
            return await self._js.batch_get(
                self.stream, subject_filter=stored_under(self._queue, partition, id_token, *kind), batch=BATCH_READS
            )

        ends = [fact for message in await all_of("end", "*") if (fact := end_fact(message)) is not None]
        return removable_up_to([start_fact(message) for message in await all_of("start")], ends, may_go)

    async def timers(self, partition: int, ids: Sequence[str]) -> dict[str, list[str]]:
        """The timers that are left of some workflows, by id token."""
        if not ids:
            return {}
        wanted = [schedules_under(self._queue, partition, id_token) for id_token in ids]
        try:
            left = await self._js.multi_last(self.stream, wanted)
        except ServerRefused:
            return {}  # thousands of them: their ticks are removed when they have come
        found: dict[str, list[str]] = {}
        for message in left:
            found.setdefault(message.subject.split(".", 5)[4], []).append(message.subject)
        return found

    async def purge(self, partition: int, id_token: str, up_to: int, timers: Sequence[str]) -> int:
        """Remove a workflow's messages up to a sequence, and the timers of the same runs; return how many."""
        everything = stored_under(self._queue, partition, id_token, ">")
        objects = await self._objects_up_to(id_token, everything, up_to)
        removed = await self._js.purge(self.stream, subject=everything, up_to_seq=up_to + 1)
        for timer in timers:
            run = timer.split(".")[5]
            if run.isdecimal() and int(run) <= up_to:
                removed += await self._js.purge(self.stream, subject=timer)
        await self.remove_objects(objects)
        return removed

    async def remove_objects(self, names: Iterable[str]) -> None:
        """Remove the objects that messages referred to which are gone. What a schedule publishes again stays."""
        going = [name for name in names if not _is_scheduled(name)]
        if going:
            await self._js.objects.remove(self._queue, going)

    async def _objects_up_to(self, id_token: str, everything: str, up_to: int) -> list[str]:
        """The objects of a workflow's messages up to a sequence, and the arguments of calls that the same runs made."""
        names = await self._js.objects.names(self._queue, id_token)
        if not names:
            return []
        arguments = [
            str(name) for name in names if name.what == ARGUMENTS and name.run.isdecimal() and int(name.run) <= up_to
        ]
        messages = await self._as_stored.batch_get(self.stream, subject_filter=everything)
        return [*arguments, *(name for m in messages if m.seq <= up_to and (name := referred_by(m)))]

    def tell(self, id_token: str, run: int) -> None:
        """Tell whoever keeps lists that the runs up to this one have gone."""
        note = WorkflowKey(self._queue, untoken(id_token)).note("purged")
        self._conn.publish_nowait(note, str(run).encode())


def _is_scheduled(name: str) -> bool:
    parsed = parse_name(name)
    return parsed is not None and parsed.what == SCHEDULED
