"""Reading histories back: which run of a workflow is open, and all of its events.

The rule that decides which run is open is the one the owner applies to the stream live: a start opens a run when none
is open, the first `end` that names the open run closes it, everything else of `start` and `end` is ignored. Here the
same answer is found with a few look-ups.

How a history is read. A server finds "the last message of every subject that fits" through its subject index, while
"all messages that fit" makes it look at every message in between (10 ms for 60,000 of them). Nearly every event has a
subject of its own, so the first kind of question gives the history; the few subjects that hold several messages
(signals of one topic, an outcome that was written twice) are known from the counts of the subject index and read one
by one. The counts are asked for last: a subject with one message then had no more before.

Reads go to the stream's direct-get service, which any replica answers; the counts are the leader's, and tell what a
replica lacks that lags behind. What the leader counts and cannot give either is damaged in its files: the history has
an event of the kind `unreadable` then, and whoever runs the workflow goes no further.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import anyio

from mesh.errors import NotFound, NotPermitted, NotReady, ServerRefused, Undecodable, Unreadable
from mesh.events import Event, StartSpec, decode_end, decode_start, is_acknowledgement, parse, unreadable_event
from mesh.imported import restored
from mesh.jetstream import JetStream
from mesh.lineage import arranged, reads_from, up_to_end
from mesh.references import is_reference
from mesh.stored_messages import StoredMessage, stored_as
from mesh.subjects import WorkflowKey, can_be_named, parse_stored, republished_ends, stream_name, sure_subject
from mesh.wire import parse_headers

# A replica is behind by milliseconds; another one is asked when it is by more.
LAG_TRIES: Final = 100
LAG_AGAIN_S: Final = 0.01
# A server that goes on after a pause hears within seconds that another one leads.
SURE_TRIES: Final = 25
SURE_AGAIN_S: Final = 0.2
BATCH_MESSAGES: Final = 1000
# Of histories that are read together, the payloads: what is beyond that is read one by one.
TOGETHER_BYTES_MAX: Final = 16 * 1024 * 1024
RUNS_NAMED_MAX: Final = 10  # in an error: a workflow may have gone on as thousands
PARTITIONS_CACHED_MAX: Final = 10_000  # each takes 200 bytes, and a look-up saves a request
# Of these every message counts; of all other kinds only the first of its subject. Of an outcome, too: an owner that
# took a call for lost has written so, and then the host was heard after all. The failure was answered by a new attempt,
# and the success, of the same attempt, ended the op.
_OF_ALL_RUNS: Final = frozenset({"start", "signal", "cancel", "kill", "monitor"})
_EVERY_ONE: Final = frozenset({"signal", "cancel", "kill", "monitor", "ret"})


class OpenRun(NamedTuple):
    """A run: its id and its start as stored."""

    run: int
    start: StoredMessage

    def spec(self) -> StartSpec:
        """The body of the start. Raises Undecodable."""
        return _spec(self.start)


class RunOutcome(NamedTuple):
    """The effective end of a run."""

    run: int
    seq: int
    data: bytes

    @property
    def goes_on(self) -> bool:
        """Whether another run follows, of which the start may not be stored yet."""
        return bool(decode_end(self.data).next_start)


class NoSuchRun(NotFound):
    """Raised when a workflow has no run of that number. runs: those it has, the oldest first."""

    code = "no-such-run"

    def __init__(self, key: WorkflowKey, run: int, runs: Sequence[int]) -> None:
        self.run = run
        self.runs = runs
        earlier = len(runs) - RUNS_NAMED_MAX
        named = ", ".join(str(one) for one in runs[-RUNS_NAMED_MAX:])
        super().__init__(
            f"workflow {key.id!r} on queue {key.queue!r} has no run {run}; "
            + (f"its run is {named}" if len(runs) == 1 else f"its runs are {named}, the newest last")
            + (f", and {earlier} earlier ones" if earlier > 0 else "")
        )


class History:
    """The histories of one queue."""

    def __init__(self, js: JetStream, queue: str) -> None:
        self._js = js
        self.queue = queue
        self.stream = stream_name(queue)
        self._partitions: OrderedDict[str, int] = OrderedDict()
        self._tells_ends: bool | None = None

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
        """Whether a run is open, or about to be: the last one has ended, and its end says that another follows.

        That none is must not be the word of a server that has lost touch, as somebody may be told so for ever.
        Raises NotReady when that server stays the one that answers, and as a write: OutcomeUnknown.
        """
        for _ in range(SURE_TRIES):
            last = await self.last_run(key)
            if last is not None and (last[1] is None or last[1].goes_on):
                return True
            if not self._js.has_copies:
                return False
            over_seq = last[1].seq if last is not None and last[1] is not None else 0
            starts, _ = await self._js.sure_last(self.stream, [key.stored("*", "start")], by=sure_subject(self.queue))
            if all(start.seq <= over_seq or is_acknowledgement(start.data) for start in starts):
                return False
            await anyio.sleep(SURE_AGAIN_S)
        raise NotReady(
            f"looking for workflow {key.id!r}", 503, "the server that answers has lost touch with the others"
        )

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
        return latest if latest is not None else await self._only_start_of_all(key)

    async def newest_run(self, key: WorkflowKey) -> tuple[OpenRun, RunOutcome | None]:
        """The same of a workflow that has started. Raises NotFound."""
        found = await self.last_run(key)
        if found is None:
            raise NotFound(f"no workflow {key.id!r} on queue {key.queue!r}")
        return found

    async def run_named(self, key: WorkflowKey, run: int = 0) -> tuple[OpenRun, RunOutcome | None]:
        """The run of that number and its end; 0: the newest. Raises NotFound, NoSuchRun."""
        if not run:
            return await self.newest_run(key)
        start = await self._js.get_seq(self.stream, run)
        stored = parse_stored(start.subject) if start is not None else None
        if start is None or stored is None or (stored.id, stored.kind) != (key.id, "start"):
            raise NoSuchRun(key, run, await self.runs(key))
        ended = await self.end_of(key, run)
        if ended is None and (await self.newest_run(key))[0].run != run:
            ended = await self.end_of(key, run)  # it may have been followed by the newest one just now
            if ended is None:
                raise NoSuchRun(key, run, await self.runs(key))  # a start that came while a run was open
        return OpenRun(run, start), ended

    async def recorded(self, key: WorkflowKey, run: int = 0) -> tuple[OpenRun, list[Event]]:
        """The run of that number, and what has happened to it up to its end; 0: all that has happened to the newest.

        Raises NotFound, NoSuchRun.
        """
        opened, ended = await self.run_named(key, run)
        events = await self.events(key, opened.run)
        return opened, up_to_end(opened.run, events, ended.seq) if run and ended is not None else events

    async def runs(self, key: WorkflowKey, newest: int = 0) -> list[int]:
        """The runs of a workflow, the oldest first: each but the newest has an end. Raises NotFound.

        newest: the newest one, if the caller knows.
        """
        newest = newest or (await self.newest_run(key))[0].run
        ends = await self._js.subject_counts(self.stream, key.stored("*", "end", "*"))
        named = (subject.rpartition(".")[2] for subject in ends)
        return sorted({newest, *(int(run) for run in named if run.isdecimal() and int(run) < newest)})

    async def _only_start_of_all(self, key: WorkflowKey) -> tuple[OpenRun, None] | None:
        """The start that a replica does not have yet, None when there is none. Raises Unreadable."""
        counted = await self._js.subject_counts(self.stream, key.stored("*", "start"))
        starts, unreadable = await self._one_by_one(counted)
        if unreadable:
            raise Unreadable(
                f"the start of workflow {key.id!r} is in the index of stream {self.stream}, but the server cannot read "
                "it: its files are damaged; restore the store from a backup"
            )
        return (OpenRun(starts[0].seq, starts[0]), None) if starts else None

    async def end_of(self, key: WorkflowKey, run: int) -> RunOutcome | None:
        """The effective end of a run: the first one stored after its start."""
        partition = self._partitions.get(key.id)
        if partition is None:
            # One look-up tells most callers what they want to know, that there is none yet; and the next one what it
            # needs, the partition.
            start, end = key.stored("*", "start"), key.stored("*", "end", str(run))
            found = await self._js.multi_last(self.stream, [start, end])
            if not found or not found[0].subject.endswith(".start"):
                found = await self._js.multi_last(self.stream, [end])  # a start that is damaged hides what follows it
            if not found:
                return None
            partition = self._note_partition(key, found[0].subject)
            if found[-1].subject.endswith(".start"):
                return None
        message = await self._next(run, key.stored(partition, "end", str(run)))
        return RunOutcome(run, message.seq, message.data) if message is not None else None

    async def tells_ends(self) -> bool:
        """Whether the stream says when an end is stored (`WorkflowKey.ended`). Those of earlier releases do not."""
        if self._tells_ends is None:
            try:
                config = (await self._js.stream_info(self.stream)).config
            except (NotFound, NotReady):
                return False  # for now
            except NotPermitted:
                config = {}
            self._tells_ends = config.get("republish") == republished_ends(self.queue)
        return self._tells_ends

    def told_end(self, subject: str, data: bytes, raw_headers: bytes | None) -> RunOutcome | None:
        """The effective end of a run out of what the server says when it has stored one.

        None for every later one of the run, what anybody else says, and one that has to be fetched.
        """
        said, run = stored_as(raw_headers), subject.rpartition(".")[2]
        if said is None or said.last_seq or not run.isdecimal() or is_acknowledgement(data):
            return None
        opened = self._js.opened(said.subject, data)
        return RunOutcome(int(run), said.seq, opened) if not is_reference(opened) else None

    async def start_after(self, key: WorkflowKey, seq: int) -> OpenRun | None:
        """The first start stored after a sequence."""
        partition = await self.partition_of(key)
        if partition is None:
            return None
        message = await self._next(seq + 1, key.stored(partition, "start"))
        return OpenRun(message.seq, message) if message is not None else None

    async def last_start(self, key: WorkflowKey) -> OpenRun | None:
        """The last start that is stored, effective or not."""
        starts = await self._js.multi_last(self.stream, [key.stored("*", "start")])
        if starts and is_acknowledgement(starts[0].data):
            return await self._last_but_acknowledgements(key)
        return OpenRun(starts[0].seq, starts[0]) if starts else None

    async def _last_but_acknowledgements(self, key: WorkflowKey) -> OpenRun | None:
        last, following = None, await self.start_after(key, 0)
        while following is not None:
            last, following = following, await self.start_after(key, following.run)
        return last

    async def _next(self, seq: int, subject: str) -> StoredMessage | None:
        """The first event of a subject from a sequence on. What the server itself has written there is none."""
        while (message := await self._js.get_next(self.stream, seq, subject)) is not None:
            if not is_acknowledgement(message.data):
                return message
            seq = message.seq + 1
        return None

    async def only_run(self, key: WorkflowKey, at_least: int | None = None) -> tuple[OpenRun, list[Event]] | None:
        """The open run of a workflow that was started once, with its events: two look-ups for what most histories are.

        at_least: as for `events`. None says nothing: ask `open_run` then.
        """
        partition = await self.partition_of(key)
        if partition is None:
            return None
        try:
            messages, counts, unreadable = await self._last_of_each(key.stored(partition, ">"), at_least)
        except ServerRefused:
            return None
        return await self._as_only_run(messages, counts) if not unreadable else None

    async def only_runs(
        self, keys: Sequence[WorkflowKey], partition: int, at_least: int | None = None
    ) -> dict[WorkflowKey, tuple[OpenRun, list[Event]]]:
        """The same of several workflows of a partition: those that can be read together, which nearly all can.

        The others are missing: ask for each of them by itself. No more than one page of an answer is read at a time,
        and nothing more once there are more than TOGETHER_BYTES_MAX.
        """
        found: dict[WorkflowKey, tuple[OpenRun, list[Event]]] = {}
        if not keys:
            return found
        everything = [key.stored(partition, ">") for key in keys]
        messages = await self._js.multi_last_at_once(self.stream, everything, at_least=at_least)
        if messages is None:
            half = len(keys) // 2
            for part in (keys[:half], keys[half:]) if half else ():
                if _payload_bytes(found) <= TOGETHER_BYTES_MAX:
                    found |= await self.only_runs(part, partition, at_least)
            return found
        of_each: defaultdict[str, list[StoredMessage]] = defaultdict(list)
        for message in messages:
            of_each[message.subject.split(".", 5)[4]].append(message)
        taken = 0  # what a subject has several of is in no page
        counted = await self._js.counts_of_each(self.stream, everything)
        for key, subjects, all_counts in zip(keys, everything, counted, strict=True):
            own = of_each[subjects.split(".", 5)[4]]
            counts = _nameable(all_counts)
            if taken <= TOGETHER_BYTES_MAX and counts.keys() <= {message.subject for message in own}:
                run = await self._as_only_run(own, counts)
                if run is not None:
                    found[key] = run
                    taken += sum(len(event.data) for event in run[1])
        return found

    async def _as_only_run(
        self, messages: list[StoredMessage], counts: Mapping[str, int]
    ) -> tuple[OpenRun, list[Event]] | None:
        """The open run in the last messages of all subjects of a workflow, None when there may be more than one."""
        kinds = [message.subject.split(".", 6)[5] for message in messages]
        if kinds.count("start") != 1 or "end" in kinds:
            return None
        start = messages[kinds.index("start")]
        if counts.get(start.subject) != 1:
            return None
        return OpenRun(start.seq, start), _events(await self._with_repeated(counts, start.seq, start.seq, messages))

    async def events(self, key: WorkflowKey, run: int, at_least: int | None = None) -> list[Event]:
        """The history of a run up to now: its start, what it takes over from runs before it, its own events.

        at_least: up to which sequence of the stream everything must be seen; by default up to now.
        Raises NotFound when it rests on a run that is not there.
        """
        partition = await self.partition_of(key)
        if partition is None:
            return []
        everything = key.stored(partition, ">")
        try:
            messages, counts, unreadable = await self._last_of_each(everything, at_least)
        except ServerRefused:
            # Too many subjects for one answer: a history this long is worth a walk.
            starts = await self._lineage(key.stored(partition, "start"), run, ())
            messages = await self._js.batch_get(
                self.stream, from_seq=_first(run, starts), subject_filter=everything, batch=BATCH_MESSAGES
            )
            found = {message.subject for message in messages}
            counts = await self._nameable(everything)
            missing = [subject for subject in counts if subject not in found and _concerns(subject, run, starts)]
            late, unreadable = await self._one_by_one(missing)
            messages = sorted([*messages, *late], key=_seq)
        else:
            starts = await self._lineage(key.stored(partition, "start"), run, messages)
            messages = await self._with_repeated(counts, _first(run, starts), run, messages)
        history = arranged(run, _events(messages), starts)
        if not unreadable or not history:
            return history
        damaged = [unreadable_event(subject, history[0]) for subject in unreadable if _concerns(subject, run, starts)]
        return [*history[:1], *damaged, *history[1:]]

    async def _last_of_each(
        self, everything: str, at_least: int | None
    ) -> tuple[list[StoredMessage], dict[str, int], Sequence[str]]:
        """The last message of every subject that fits, how many messages each has, and the subjects nobody can read.

        The counts are the leader's; the messages may come from a replica that lags behind it, without an event that the
        stream's followers have delivered already, and that would be lost to whoever begins with them. So what a replica
        lacks is asked for again; not for ever, as a workflow may have news all the time. Raises ServerRefused if there
        are too many subjects.
        """
        wanted: set[str] | None = None  # what was there when we were first told
        for tries in range(LAG_TRIES):
            messages = await self._js.multi_last(self.stream, [everything], at_least=at_least)
            counts = await self._nameable(everything)
            found = {message.subject for message in messages}
            if counts.keys() <= found or (wanted is not None and wanted <= found):
                return messages, counts, ()
            # Nearly always that is news of the last millisecond, and the next look shows it.
            if tries:
                await anyio.sleep(LAG_AGAIN_S)
            wanted = wanted or set(counts)
        # One message that is damaged ends the server's answer: the others are to be had by themselves.
        late, unreadable = await self._one_by_one([subject for subject in counts if subject not in found])
        return sorted([*messages, *late], key=_seq), counts, unreadable

    async def _nameable(self, everything: str) -> dict[str, int]:
        """How many messages each subject has; without those that are no events because of their subject."""
        return _nameable(await self._js.subject_counts(self.stream, everything))

    async def _one_by_one(self, subjects: Iterable[str]) -> tuple[list[StoredMessage], list[str]]:
        """The last messages of subjects that the leader counts, and the subjects of which it cannot read it."""
        messages, unreadable = [], []
        for subject in subjects:
            message = await self._js.get_last(self.stream, subject)
            if message is None:
                message = await self._js.get_last(self.stream, subject, from_leader=True)
            if message is not None:
                messages.append(message)
            elif await self._js.subject_counts(self.stream, subject):  # it was not just deleted
                unreadable.append(subject)
        return messages, unreadable

    async def _lineage(self, start_subject: str, run: int, messages: Iterable[StoredMessage]) -> dict[int, StartSpec]:
        """The starts of a run and of those it rests on, as far as they are there and can be read."""
        known = {message.seq: message for message in messages if message.subject == start_subject}
        starts: dict[int, StartSpec] = {}
        while True:
            message = known.get(run) or await self._js.get_next(self.stream, run, start_subject)
            if message is None or message.seq != run:
                return starts
            try:
                spec = starts[run] = _spec(message)
            except Undecodable:
                return starts
            if spec.base is None or not 0 < spec.base.run < run:
                return starts
            run = spec.base.run

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
            count = counts.get(message.subject, 1)
            _, kind, *args = message.subject.split(".")[4:]
            if count == 1:
                found.append(message)
            elif kind in _EVERY_ONE and count == 2:
                # The last one is here, and the first one is found through the index. A walk from one to the other would
                # look at all that was stored between them: where very much is going on, a write that is repeated, or
                # the outcome of a call that was taken for lost, comes thousands of messages later.
                earliest = await self._js.get_next(self.stream, first, message.subject)
                found += [message] if earliest is None or earliest.seq >= message.seq else [earliest, message]
            elif kind in _EVERY_ONE:
                # More than were counted, if there is news: what is beyond the horizon is left out below.
                found += await self._js.batch_get(self.stream, from_seq=first, subject_filter=message.subject)
            elif kind == "attrs":
                found.append(message)  # the newest says it all
            elif kind == "start" and first < run:
                starts = await self._js.batch_get(
                    self.stream, from_seq=first, subject_filter=message.subject, messages_max=count
                )
                found += [start for start in starts if start.seq <= run]
            else:
                # Not from `first`: before a run's own start come only those of earlier runs.
                named = int(args[0]) if args and args[0].isdecimal() else run
                # A run has begun before its events: one that names a later sequence, or no sequence at all, is of none.
                earliest = await self._next(named, message.subject) if named < message.seq else None
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


def _nameable(counts: Mapping[str, int]) -> dict[str, int]:
    return {subject: count for subject, count in counts.items() if can_be_named(subject)}


def _payload_bytes(found: Mapping[WorkflowKey, tuple[OpenRun, list[Event]]]) -> int:
    return sum(len(event.data) for _, events in found.values() for event in events)


def _events(messages: Iterable[StoredMessage]) -> list[Event]:
    parsed = (parse(m.subject, m.seq, m.timestamp_ns, m.data, m.raw_headers) for m in messages)
    return restored([event for event in parsed if event is not None])


def _spec(start: StoredMessage) -> StartSpec:
    return decode_start(start.data, parse_headers(start.raw_headers) if start.raw_headers else {})


def _concerns(subject: str, run: int, starts: Mapping[int, StartSpec]) -> bool:
    """Whether a run cannot go on without the event of this subject.

    A reset run can: what it takes over of an older run it was told to, and a call without outcome is made again.
    """
    kind, *args = subject.split(".")[5:]
    if kind == "attrs":
        return False  # a run does not read them
    if kind in _OF_ALL_RUNS:
        return len(starts) < 2
    return bool(args) and args[0] == str(run)


def _first(run: int, starts: Mapping[int, StartSpec]) -> int:
    """The first sequence that a history reaches back to."""
    return min((reads_from(at, spec) for at, spec in starts.items()), default=run)


def _seq(message: StoredMessage) -> int:
    return message.seq
