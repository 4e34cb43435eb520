"""Keeping a projection: the streams of all queues into `store.projection`, and answers out of it.

Every queue's stream is followed from where the projection stands; what comes is written in batches by a thread, never
by the event loop. Queues that appear are followed too, those that go are forgotten.

Three things are not in the stream, so they are looked for:

* that a run is suspended. Its owner knows. All nodes are asked every SUSPENDED_EVERY_S, and at once when one says on
  `mesh.note.<queue>.<id>.suspended` that a run is.
* that a workflow's events were purged (retention, an operator). Who purges says so on `mesh.note.<queue>.<id>.purged`,
  after it; that is not stored, so what nobody has heard is found by looking: runs that began before the stream's first
  message are gone, and all others that have ended are compared with the stream again and again, some at a time. A
  workflow is forgotten only when the stream's leader has no start of it.
* that a stream is another one, or has lost what was taken in: its creation time, or its end, does not fit.

Invariants: the place in the stream is written with the rows (see there); a projection that is lost, damaged or of
another version is made anew from the streams; `lag` counts what is known to be missing.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar, TypeVarTuple

import anyio
import anyio.abc
import anyio.to_thread

from mesh import codec
from mesh.buckets import Bucket
from mesh.connection import Connection
from mesh.errors import TEMPORARY, Disconnected, InvalidName, NoResponders, NotFound, RequestTimeout, Undecodable
from mesh.events import Event, parse
from mesh.follower import Delivered, Follower, StreamRegressed
from mesh.groups import unwrapped
from mesh.imported import original_ns
from mesh.jetstream import JetStream
from mesh.listing import Count, Lag, ListPage, ListQuery
from mesh.references import is_reference
from mesh.roster import BUCKET
from mesh.subjects import (
    EVERY_PURGED_NOTE,
    EVERY_SUSPENDED_NOTE,
    WorkflowKey,
    bucket_key_name,
    listed_filters,
    node_request,
    parse_note,
    stream_name,
)
from store.projection import Projection, SuspendedRun, open_projection
from store.projection_file import ProjectionBlocked, ProjectionDamaged, ProjectionInUse, put_aside
from store.streams import queue_names

BATCH_EVENTS: Final = 5000
HELD_EVENTS_MAX: Final = 20_000
# Between two batches of a stream that trickles: a transaction for each event would cost more than the event.
BATCH_PAUSE_S: Final = 0.02
QUEUES_EVERY_S: Final = 2.0
SUSPENDED_EVERY_S: Final = 2.0
ASK_TIMEOUT_S: Final = 1.0
FOLLOW_AGAIN_S: Final = 0.5
BLOCKED_AGAIN_S: Final = 5.0
SWEEP_EVERY_S: Final = 1.0
SWEEP_ROUND_S: Final = 3600.0
# The server answers for at most 1,024 subjects at once.
SWEEP_IDS: Final = 256
DOUBTED_MAX: Final = 100_000
NO_UTF8: Final = "\\ud"

T = TypeVar("T")
Args = TypeVarTuple("Args")

_log = logging.getLogger(__name__)


class Progress(NamedTuple):
    """How far a projection is: messages taken in since it was opened, and those that are left."""

    taken_in: int
    left: int


@dataclass(slots=True)
class _Followed:
    """A queue whose stream is followed. sweep_n: the row up to which it was compared with the stream."""

    queue: str
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    inbox: deque[Delivered] = field(default_factory=deque)
    wake: anyio.Event = field(default_factory=anyio.Event)
    writing: int = 0
    pending: int = 0
    oldest_ns: int = 0
    caught_up: bool = False
    first_seq: int = 0
    sweep_n: int = 0
    sweep_again_at: float = 0.0
    doubted: dict[str, None] = field(default_factory=dict)

    @property
    def behind(self) -> int:
        """How many messages are known and not taken in."""
        return len(self.inbox) + self.writing + self.pending


class Projecting:
    """Keeps a projection while `run` runs. path: its file; None = in memory."""

    def __init__(self, conn: Connection, js: JetStream, path: Path | None) -> None:
        self._conn = conn
        self._js = js
        self._path = path
        self._projection: Projection | None = None
        self._followed: dict[str, _Followed] = {}
        self._suspended: dict[str, list[SuspendedRun]] = {}
        self._said: list[SuspendedRun] = []
        self._ask_now = anyio.Event()
        self._broken = anyio.Event()
        self._reading = anyio.CapacityLimiter(1)
        self._writing = anyio.CapacityLimiter(1)
        self._taken_in = 0
        self._open_runs: dict[str, int] = {}
        self._looked = False
        self._asked = False

    # -- answers -----------------------------------------------------------------------------------------------------

    async def list(self, query: ListQuery) -> ListPage:
        """A page of workflows. Raises BadQuery (FilterError for the where-text)."""
        page = await self._read(lambda projection: projection.page(query, time.time_ns()))
        return replace(page, lag=self.lag())

    async def counts(self, *, all_runs: bool = False) -> tuple[Count, ...]:
        """How many workflows there are of each status, type and queue."""
        return await self._read(lambda projection: projection.counts(all_runs=all_runs))

    def lag(self) -> Lag:
        """How far the projection is behind the streams, as far as the server has told."""
        behind = sum(followed.behind for followed in self._followed.values())
        oldest_ns = min((f.oldest_ns for f in self._followed.values() if f.behind and f.oldest_ns), default=0)
        return Lag(behind, max(time.time_ns() - oldest_ns, 0) / 1e9 if oldest_ns else 0.0)

    def open_by_queue(self) -> dict[str, int]:
        """How many workflows of each queue had not ended when that was last looked at (every QUEUES_EVERY_S)."""
        return dict(self._open_runs)

    def progress(self) -> Progress:
        """How far it has come since it was opened."""
        return Progress(self._taken_in, sum(followed.behind for followed in self._followed.values()))

    def is_caught_up(self) -> bool:
        """Whether everything that was in the streams when they were first looked at is taken in."""
        followed = self._followed.values()
        return self._looked and self._asked and all(f.caught_up and not f.inbox and not f.writing for f in followed)

    # -- keeping it --------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled. Ready when the file is open. Raises ProjectionInUse, OSError."""
        try:
            self._projection = await self._in_thread(open_projection, self._path)
            task_status.started()
            while True:
                try:
                    await self._follow_all()
                except ProjectionDamaged as error:
                    await self._make_anew(error)
                except Exception:
                    # We are wrong. The node has workflows to run, and goes on; so does this, from what is written.
                    _log.exception("the list of workflows cannot be kept up to date")
                    await anyio.sleep(BLOCKED_AGAIN_S)
        finally:
            with anyio.CancelScope(shield=True):
                await self._close()

    async def _follow_all(self) -> None:
        self._broken = anyio.Event()
        notes = [
            self._conn.subscribe_direct(EVERY_SUSPENDED_NOTE, self._on_suspended),
            self._conn.subscribe_direct(EVERY_PURGED_NOTE, self._on_purged),
        ]
        try:
            with unwrapped():
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._look_for_queues, tasks)
                    tasks.start_soon(self._ask_for_suspended)
                    tasks.start_soon(self._sweep)
                    await self._broken.wait()
                    raise ProjectionDamaged("a query found it damaged")
        finally:
            self._followed.clear()
            for note in notes:
                note.unsubscribe()

    async def _make_anew(self, error: ProjectionDamaged) -> None:
        await self._close()
        self._looked = self._asked = False
        aside: Path | None = None
        while self._projection is None:
            try:
                if self._path is not None and aside is None:
                    aside = await anyio.to_thread.run_sync(put_aside, self._path)
                    _log.error("%s; it is kept as %s and a new one is made from the streams", error, aside)
                self._projection = await self._in_thread(open_projection, self._path)
            except (ProjectionBlocked, ProjectionInUse, OSError) as reason:
                # The node has workflows to run, and goes on without a list.
                _log.warning("%s; it is tried again in %g s", reason, BLOCKED_AGAIN_S)
                await anyio.sleep(BLOCKED_AGAIN_S)

    async def _close(self) -> None:
        async with self._reading, self._writing:
            projection, self._projection = self._projection, None
            if projection is not None:
                await anyio.to_thread.run_sync(projection.close)

    # -- queues ------------------------------------------------------------------------------------------------------

    async def _look_for_queues(self, tasks: anyio.abc.TaskGroup) -> None:
        while True:
            try:
                present = await queue_names(self._js)
                known = await self._write(lambda projection: projection.positions())
                for queue in sorted(set(present) - set(self._followed)):
                    followed = self._followed[queue] = _Followed(queue)
                    tasks.start_soon(self._follow, followed)
                for queue in sorted(known.keys() - set(present)):
                    await self._drop_queue(queue)
                for followed in list(self._followed.values()):
                    await self._look_at_beginning(followed)
                self._open_runs = await self._read(Projection.open_runs)
                self._looked = True
            except TEMPORARY as error:
                _log.log(
                    logging.DEBUG if self._looked else logging.WARNING, "the queues cannot be looked for: %s", error
                )
            await anyio.sleep(QUEUES_EVERY_S)

    async def _drop_queue(self, queue: str) -> None:
        _log.warning("queue %s is gone: its workflows are no longer listed", queue)
        followed = self._followed.pop(queue, None)
        if followed is not None:
            followed.scope.cancel()
        await self._write(lambda projection: projection.drop_queue(queue))

    async def _look_at_beginning(self, followed: _Followed) -> None:
        first_seq = (await self._js.stream_info(stream_name(followed.queue))).first_seq
        if followed.caught_up and first_seq > followed.first_seq:
            removed = await self._write(lambda projection: projection.remove_before(followed.queue, first_seq))
            followed.first_seq = first_seq
            if removed:
                _log.info("queue %s: %d runs were purged", followed.queue, removed)

    async def _follow(self, followed: _Followed) -> None:
        with followed.scope:
            while True:
                try:
                    await self._follow_once(followed)
                except StreamRegressed as error:
                    _log.error("queue %s: %s; its workflows are listed anew", followed.queue, error)
                    created = (await self._js.stream_info(stream_name(followed.queue))).created
                    await self._write(partial(Projection.start_over, queue=followed.queue, created=created))
                except TEMPORARY as error:
                    _log.info("queue %s cannot be followed yet: %s", followed.queue, error)
                    await anyio.sleep(FOLLOW_AGAIN_S)

    async def _follow_once(self, followed: _Followed) -> None:
        queue = followed.queue
        info = await self._js.stream_info(stream_name(queue))
        seq = await self._write(lambda projection: projection.begin(queue, info.created))
        followed.inbox.clear()
        followed.writing = followed.pending = followed.first_seq = followed.sweep_n = 0

        def deliver(message: Delivered) -> None:
            followed.inbox.append(message)
            followed.pending = message.pending
            if len(followed.inbox) >= HELD_EVENTS_MAX:
                follower.pause()
            followed.wake.set()

        follower = Follower(
            self._conn, self._js, stream_name(queue), listed_filters(queue), seq + 1, deliver,
            consumer_prefix="list",
        )  # fmt: skip
        with unwrapped():
            async with anyio.create_task_group() as tasks:
                await tasks.start(follower.run)
                tasks.start_soon(self._note_caught_up, followed, follower)
                while True:
                    await self._take_in(followed)
                    if len(followed.inbox) < HELD_EVENTS_MAX // 2:
                        follower.resume()

    async def _note_caught_up(self, followed: _Followed, follower: Follower) -> None:
        await follower.caught_up.wait()
        followed.caught_up = True

    async def _take_in(self, followed: _Followed) -> None:
        """Write what came in; wait for it if there is nothing."""
        if not followed.inbox:
            followed.wake = anyio.Event()
            await followed.wake.wait()
            await anyio.sleep(BATCH_PAUSE_S)
        batch = [followed.inbox.popleft() for _ in range(min(BATCH_EVENTS, len(followed.inbox)))]
        followed.writing = len(batch)
        followed.oldest_ns = batch[0].timestamp_ns
        last = batch[-1]
        queue = followed.queue
        try:
            batch = [await self._fetched(message) for message in batch]
            events = [event for message in batch if (event := _event(message)) is not None]
            await self._write(lambda projection: projection.take_in(queue, events, last.seq, last.timestamp_ns))
        except (ProjectionDamaged, *TEMPORARY):
            raise
        except Exception:
            await self._take_in_singly(queue, batch)
        self._taken_in += len(batch)
        followed.writing = 0
        if followed.inbox:
            followed.oldest_ns = followed.inbox[0].timestamp_ns

    async def _fetched(self, message: Delivered) -> Delivered:
        """A message with its payload, if that is in an object store; one that is gone is listed like what is unread."""
        if not is_reference(message.data):
            return message
        return message._replace(data=await self._js.objects.fetched(message.subject, message.data))

    async def _take_in_singly(self, queue: str, batch: Sequence[Delivered]) -> None:
        """Write all but what cannot be written: a list without one workflow is better than none ever after.

        We are wrong when there is such an event; anybody who may publish one must not stop the list with it.
        """
        for message in batch:
            seq, at_ns = message.seq, message.timestamp_ns
            try:
                event = _event(message)
                events = [event] if event is not None else []
                await self._write(partial(Projection.take_in, queue=queue, events=events, seq=seq, at_ns=at_ns))
            except (ProjectionDamaged, *TEMPORARY):
                raise
            except Exception:
                _log.exception("queue %s: event %d (%s) cannot be listed and is left out", queue, seq, message.subject)
                await self._write(partial(Projection.take_in, queue=queue, events=[], seq=seq, at_ns=at_ns))

    # -- suspended runs ----------------------------------------------------------------------------------------------

    def _on_suspended(self, *_: object) -> None:
        self._ask_now.set()

    async def _ask_for_suspended(self) -> None:
        while True:
            self._ask_now = anyio.Event()
            try:
                self._suspended = await suspended_runs(self._conn, self._js, self._suspended)
                said = sorted({run for runs in self._suspended.values() for run in runs})
                if said or self._said or not self._asked:
                    await self._write(partial(Projection.suspend, suspended=said))
                self._said = said
                self._asked = True
            except TEMPORARY as error:
                _log.debug("suspended runs cannot be asked for: %s", error)
            with anyio.move_on_after(SUSPENDED_EVERY_S):
                await self._ask_now.wait()

    # -- purged workflows --------------------------------------------------------------------------------------------

    def _on_purged(self, subject: str, *_: object) -> None:
        key = parse_note(subject)
        followed = self._followed.get(key.queue)
        if followed is not None and len(followed.doubted) < DOUBTED_MAX:
            followed.doubted[key.id] = None

    async def _sweep(self) -> None:
        """Compare what is listed with what is stored."""
        while True:
            await anyio.sleep(SWEEP_EVERY_S)
            for followed in list(self._followed.values()):
                try:
                    await self._look_at_doubted(followed)
                    await self._look_at_some(followed)
                except TEMPORARY as error:
                    _log.debug("queue %s cannot be compared with its stream: %s", followed.queue, error)

    async def _look_at_doubted(self, followed: _Followed) -> None:
        while followed.doubted and followed.caught_up:
            ids = list(followed.doubted)[:SWEEP_IDS]
            await self._remove_missing(followed.queue, ids)
            for workflow_id in ids:
                followed.doubted.pop(workflow_id, None)

    async def _look_at_some(self, followed: _Followed) -> None:
        if not followed.caught_up or anyio.current_time() < followed.sweep_again_at:
            return
        queue, after = followed.queue, followed.sweep_n
        some = await self._read(lambda projection: projection.some_ids(queue, after, SWEEP_IDS))
        if not some:
            followed.sweep_n, followed.sweep_again_at = 0, anyio.current_time() + SWEEP_ROUND_S
            return
        stored = await self._ids_with_a_start(queue, [workflow_id for _, workflow_id, _ in some])
        await self._remove_missing(queue, [workflow_id for _, workflow_id, _ in some if workflow_id not in stored])
        followed.sweep_n = some[-1][0]

    async def _ids_with_a_start(self, queue: str, ids: Iterable[str]) -> set[str]:
        by_token = {WorkflowKey(queue, workflow_id).stored("*").split(".")[4]: workflow_id for workflow_id in ids}
        subjects = [WorkflowKey(queue, workflow_id).stored("*", "start") for workflow_id in by_token.values()]
        found = await self._js.multi_last(stream_name(queue), subjects)
        return {by_token[token] for message in found if (token := message.subject.split(".")[4]) in by_token}

    async def _remove_missing(self, queue: str, ids: Iterable[str]) -> None:
        """Forget the runs of these workflows of which the stream has no start, as its leader knows."""
        for workflow_id in ids:
            if NO_UTF8 in workflow_id:
                continue  # written with escapes: the stream knows it by another name
            try:
                subject = WorkflowKey(queue, workflow_id).stored("*", "start")
            except InvalidName:
                continue
            first = await self._js.get_next(stream_name(queue), 1, subject, from_leader=True)
            before = first.seq if first is not None else None
            await self._write(partial(Projection.remove, queue=queue, workflow_id=workflow_id, before=before))

    # -- threads -----------------------------------------------------------------------------------------------------

    async def _read(self, ask: Callable[[Projection], T]) -> T:
        try:
            async with self._reading:
                return await anyio.to_thread.run_sync(ask, self._open)
        except ProjectionDamaged:
            self._broken.set()
            raise

    async def _write(self, change: Callable[[Projection], T]) -> T:
        """Change the projection; a file that cannot be written at the moment is tried again."""
        while True:
            try:
                async with self._writing:
                    return await anyio.to_thread.run_sync(change, self._open)
            except ProjectionBlocked as error:
                _log.warning("%s; it is tried again in %g s", error, BLOCKED_AGAIN_S)
            await anyio.sleep(BLOCKED_AGAIN_S)

    async def _in_thread(self, function: Callable[[*Args], T], *args: *Args) -> T:
        return await anyio.to_thread.run_sync(function, *args, limiter=self._writing)

    @property
    def _open(self) -> Projection:
        if self._projection is None:
            raise Disconnected("the list of workflows is not open: its node starts or leaves; ask again")
        return self._projection


async def suspended_runs(
    conn: Connection, js: JetStream, before: dict[str, list[SuspendedRun]]
) -> dict[str, list[SuspendedRun]]:
    """Ask all nodes for their suspended runs. before: what they said, for those that do not answer now."""
    try:
        members = await Bucket(js, BUCKET).entries("member.>")
    except NotFound:  # no node has ever been up
        return {}
    answers: dict[str, list[SuspendedRun]] = {}

    async def ask(node_id: str) -> None:
        try:
            reply = await conn.request(node_request(node_id, "suspended"), b"", timeout_s=ASK_TIMEOUT_S)
            answers[node_id] = _read_suspended(codec.decode(reply.data))
        except NoResponders:
            return
        except (Disconnected, RequestTimeout, Undecodable):
            answers[node_id] = before.get(node_id, [])

    async with anyio.create_task_group() as tasks:
        for entry in members:
            tasks.start_soon(ask, bucket_key_name(entry.key.partition(".")[2]))
    return answers


def _read_suspended(answer: Any) -> list[SuspendedRun]:
    rows = answer.get("suspended") if isinstance(answer, dict) else None
    return [
        SuspendedRun(str(row["queue"]), str(row["id"]), int(row["run"]))
        for row in rows or ()
        if isinstance(row, dict) and {"queue", "id", "run"} <= row.keys()
    ]


def _event(message: Delivered) -> Event | None:
    at_ns = original_ns(message.raw_headers, message.timestamp_ns)
    return parse(message.subject, message.seq, at_ns, message.data, message.raw_headers)
