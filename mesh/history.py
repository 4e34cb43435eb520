"""Reading histories back: which run of a workflow is open, and all of its events.

The rule that decides which run is open is the one the owner applies to the stream live: a start opens a run when none
is open, the first `end` that names the open run closes it, everything else of `start` and `end` is ignored. Here the
same answer is found with a few look-ups instead of reading everything from the beginning.

Reads go to the stream's direct-get service; one server answers them in the order of its own writes.
"""

from __future__ import annotations

from typing import NamedTuple

from mesh.jetstream import JetStream, StoredMessage
from mesh.subjects import WorkflowKey, stream_name
from mesh.events import Event, parse

BATCH_MESSAGES = 1000


class OpenRun(NamedTuple):
    """A run without an end: its id and its start as stored."""

    run: int
    start: StoredMessage


class RunOutcome(NamedTuple):
    """The effective end of a run."""

    run: int
    seq: int
    data: bytes


class History:
    """The histories of one queue."""

    def __init__(self, js: JetStream, queue: str) -> None:
        self._js = js
        self.queue = queue
        self.stream = stream_name(queue)

    async def open_run(self, key: WorkflowKey) -> OpenRun | None:
        """Find the run that is open, None when the workflow never started or its last run has ended."""
        last = await self.last_run(key)
        return last[0] if last is not None and last[1] is None else None

    async def last_run(self, key: WorkflowKey) -> tuple[OpenRun, RunOutcome | None] | None:
        """The newest run and its end, None when the workflow never started."""
        start = await self._likely_last_start(key)
        latest: tuple[OpenRun, RunOutcome | None] | None = None
        while start is not None:
            ended = await self.end_of(key, start.run)
            latest = (start, ended)
            if ended is None:
                break
            start = await self._next_start(key, ended.seq + 1)
        return latest

    async def _likely_last_start(self, key: WorkflowKey) -> OpenRun | None:
        """An effective start near the end of the chain of runs: of the run that the last `end` names."""
        last_end = await self._js.get_last(self.stream, key.stored("*", "end", "*"))
        if last_end is not None:
            named = last_end.subject.rsplit(".", 1)[1]
            if named.isdecimal() and int(named) < last_end.seq:
                start = await self._next_start(key, int(named))
                if start is not None and start.run == int(named):
                    return start
        # No end yet, or one that names no start: somebody else wrote it. Walk the chain from its beginning.
        return await self._next_start(key, 1)

    async def end_of(self, key: WorkflowKey, run: int) -> RunOutcome | None:
        """The effective end of a run: the first one stored after its start."""
        message = await self._js.get_next(self.stream, run, key.stored("*", "end", str(run)))
        return RunOutcome(run, message.seq, message.data) if message is not None else None

    async def events(self, key: WorkflowKey, run: int, *, since: int = 0) -> list[Event]:
        """All events of a run up to now, from its start on; with `since` also what came after that sequence."""
        first = min(run, since + 1) if since else run
        messages = await self._js.batch_get(
            self.stream, from_seq=first, subject_filter=key.stored("*", ">"), batch=BATCH_MESSAGES
        )
        events = []
        for message in messages:
            event = parse(message.subject, message.seq, message.timestamp_ns, message.data, message.raw_headers)
            if event is not None:
                events.append(event)
        return events

    async def start_after(self, key: WorkflowKey, seq: int) -> OpenRun | None:
        """The first start stored after a sequence."""
        return await self._next_start(key, seq + 1)

    async def partition_of(self, key: WorkflowKey) -> int | None:
        """The partition a workflow is in, read from any event of it; None when there is none."""
        message = await self._js.get_next(self.stream, 1, key.stored("*", ">"))
        return int(message.subject.split(".")[3]) if message is not None else None

    async def _next_start(self, key: WorkflowKey, seq: int) -> OpenRun | None:
        message = await self._js.get_next(self.stream, seq, key.stored("*", "start"))
        return OpenRun(message.seq, message) if message is not None else None
