"""Reading histories back: which run of a workflow is open, and all of its events.

The rule that decides which run is open is the one the owner applies to the stream live: a start opens a run when none
is open, the first `end` that names the open run closes it, everything else of `start` and `end` is ignored. Here the
same answer is found with a few look-ups.

How a history is read. A server finds "the last message of every subject that fits" through its subject index, while
"all messages that fit" makes it look at every message in between (10 ms for 60,000 of them). Nearly every event has a
subject of its own, so the first kind of question gives the history; the few subjects that hold several messages
(signals of one topic, an outcome that was written twice) are known from the counts of the subject index and read one
by one. The counts are asked for last: a subject with one message then had no more before.

Reads go to the stream's direct-get service.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from mesh.errors import ServerRefused
from mesh.events import Event, decode_end, parse
from mesh.jetstream import JetStream, StoredMessage
from mesh.subjects import WorkflowKey, stream_name

BATCH_MESSAGES: Final = 1000
PARTITIONS_CACHED_MAX: Final = 100_000
# Of these every message counts; of all other kinds only the first of its subject. Of an outcome, too: an owner that
# took a call for lost has written so, and then the host was heard after all. The failure was answered by a new attempt,
# and the success, of the same attempt, ended the op.
_EVERY_ONE: Final = frozenset({"signal", "cancel", "kill", "monitor", "ret"})


class OpenRun(NamedTuple):
    """A run: its id and its start as stored."""

    run: int
    start: StoredMessage


class RunOutcome(NamedTuple):
    """The effective end of a run."""

    run: int
    seq: int
    data: bytes

    @property
    def goes_on(self) -> bool:
        """Whether another run follows, of which the start may not be stored yet."""
        return bool(decode_end(self.data).next_start)


class History:
    """The histories of one queue."""

    def __init__(self, js: JetStream, queue: str) -> None:
        self._js = js
        self.queue = queue
        self.stream = stream_name(queue)
        self._partitions: OrderedDict[str, int] = OrderedDict()

    async def partition_of(self, key: WorkflowKey) -> int | None:
        """The partition a workflow is in, read from its start; None when it was never started."""
        known = self._partitions.get(key.id)
        if known is not None:
            return known
        starts = await self._js.multi_last(self.stream, [key.stored("*", "start")])
        if not starts:
            return None
        return self._note_partition(key, starts[0].subject)

    def know_partition(self, key: WorkflowKey, partition: int) -> None:
        """Save the look-up: the caller knows the partition."""
        self._note_partition(key, key.stored(partition))

    async def message(self, seq: int) -> StoredMessage | None:
        """The message of the stream with this sequence, None if there is none (any more)."""
        return await self._js.get_seq(self.stream, seq)

    async def open_run(self, key: WorkflowKey) -> OpenRun | None:
        """Find the run that is open, None when the workflow never started or its last run has ended."""
        last = await self.last_run(key)
        return last[0] if last is not None and last[1] is None else None

    async def is_running(self, key: WorkflowKey) -> bool:
        """Whether a run is open, or about to be: the last one has ended, and its end says that another follows."""
        last = await self.last_run(key)
        return last is not None and (last[1] is None or last[1].goes_on)

    async def last_run(self, key: WorkflowKey) -> tuple[OpenRun, RunOutcome | None] | None:
        """The newest run and its end, None when the workflow never started."""
        start = await self._likely_last_start(key)
        latest: tuple[OpenRun, RunOutcome | None] | None = None
        while start is not None:
            ended = await self.end_of(key, start.run)
            latest = (start, ended)
            if ended is None:
                break
            start = await self.start_after(key, ended.seq)
        return latest

    async def end_of(self, key: WorkflowKey, run: int) -> RunOutcome | None:
        """The effective end of a run: the first one stored after its start."""
        partition = self._partitions.get(key.id)
        if partition is None:
            # One look-up tells most callers what they want to know, that there is none yet.
            ends = await self._js.multi_last(self.stream, [key.stored("*", "end", str(run))])
            if not ends:
                return None
            partition = self._note_partition(key, ends[0].subject)
        message = await self._js.get_next(self.stream, run, key.stored(partition, "end", str(run)))
        return RunOutcome(run, message.seq, message.data) if message is not None else None

    async def start_after(self, key: WorkflowKey, seq: int) -> OpenRun | None:
        """The first start stored after a sequence."""
        partition = await self.partition_of(key)
        if partition is None:
            return None
        message = await self._js.get_next(self.stream, seq + 1, key.stored(partition, "start"))
        return OpenRun(message.seq, message) if message is not None else None

    async def last_start(self, key: WorkflowKey) -> OpenRun | None:
        """The last start that is stored, effective or not."""
        starts = await self._js.multi_last(self.stream, [key.stored("*", "start")])
        return OpenRun(starts[0].seq, starts[0]) if starts else None

    async def only_run(self, key: WorkflowKey) -> tuple[OpenRun, list[Event]] | None:
        """The open run of a workflow that was started once, with its events: two look-ups for what most histories are.

        None says nothing: ask `open_run` then.
        """
        partition = await self.partition_of(key)
        if partition is None:
            return None
        everything = key.stored(partition, ">")
        try:
            messages = await self._js.multi_last(self.stream, [everything])
        except ServerRefused:
            return None
        kinds = [message.subject.split(".", 6)[5] for message in messages]
        if kinds.count("start") != 1 or "end" in kinds:
            return None
        start = messages[kinds.index("start")]
        counts = await self._js.subject_counts(self.stream, everything)
        if counts.get(start.subject) != 1:
            return None
        return OpenRun(start.seq, start), _events(await self._with_repeated(counts, start.seq, start.seq, messages))

    async def events(self, key: WorkflowKey, run: int, *, since: int = 0) -> list[Event]:
        """All events of a run up to now, from its start on; with `since` also what came after that sequence."""
        partition = await self.partition_of(key)
        if partition is None:
            return []
        first = min(run, since + 1) if since else run
        everything = key.stored(partition, ">")
        try:
            messages = await self._js.multi_last(self.stream, [everything])
        except ServerRefused:
            # Too many subjects for one answer: a history this long is worth a walk.
            messages = await self._js.batch_get(
                self.stream, from_seq=first, subject_filter=everything, batch=BATCH_MESSAGES
            )
        else:
            counts = await self._js.subject_counts(self.stream, everything)
            messages = await self._with_repeated(counts, first, run, messages)
        return _events(messages)

    async def _with_repeated(
        self, counts: Mapping[str, int], first: int, run: int, messages: list[StoredMessage]
    ) -> list[StoredMessage]:
        # Everything as of the moment of `messages`: what came later is delivered to whoever follows the stream, and a
        # later message taken in here would hide those between.
        horizon = max((message.seq for message in messages), default=0)
        found = []
        for message in messages:
            if message.seq < first:
                continue
            if counts.get(message.subject, 1) == 1:
                found.append(message)
            elif message.subject.split(".", 6)[5] in _EVERY_ONE:
                found += await self._js.batch_get(
                    self.stream, from_seq=first, subject_filter=message.subject, messages_max=counts[message.subject]
                )
            elif message.subject.split(".", 6)[5] == "attrs":
                found.append(message)  # the newest says it all
            else:
                # Not from `first`: before the run's own start come only those of earlier runs.
                earliest = await self._js.get_next(self.stream, run, message.subject)
                found.append(earliest or message)
        return sorted((message for message in found if message.seq <= horizon), key=_seq)

    async def _likely_last_start(self, key: WorkflowKey) -> OpenRun | None:
        """An effective start near the end of the chain of runs: of the run that the last `end` names."""
        partition = await self.partition_of(key)
        if partition is None:
            return None
        ends = await self._js.multi_last(self.stream, [key.stored(partition, "end", "*")])
        if ends:
            named = ends[-1].subject.rsplit(".", 1)[1]
            if named.isdecimal() and int(named) < ends[-1].seq:
                start = await self.start_after(key, int(named) - 1)
                if start is not None and start.run == int(named):
                    return start
        # No end yet, or one that names no start: somebody else wrote it. Walk the chain from its beginning.
        return await self.start_after(key, 0)

    def _note_partition(self, key: WorkflowKey, subject: str) -> int:
        partition = int(subject.split(".")[3])
        self._partitions[key.id] = partition
        if len(self._partitions) > PARTITIONS_CACHED_MAX:
            self._partitions.popitem(last=False)
        return partition


def _events(messages: Iterable[StoredMessage]) -> list[Event]:
    parsed = (parse(m.subject, m.seq, m.timestamp_ns, m.data, m.raw_headers) for m in messages)
    return [event for event in parsed if event is not None]


def _seq(message: StoredMessage) -> int:
    return message.seq
