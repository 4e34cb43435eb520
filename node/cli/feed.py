"""What happens to workflows on a mesh: starts and ends as the streams have them, and live notices of suspended ones."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import anyio
import anyio.abc

from mesh import codec
from mesh.client import Client
from mesh.envelopes import may_open_later
from mesh.errors import MeshError, NotPermitted, Undecodable
from mesh.events import Event, decode_end, decode_start, parse
from mesh.failure import Failure
from mesh.follower import Delivered, Follower
from mesh.instants import iso
from mesh.references import is_reference
from mesh.states import workflow_name
from mesh.subjects import WorkflowKey, stream_name, token, untoken

WAITING_MAX: Final = 10_000  # what is not read yet; the oldest go first
NEW_QUEUES_EVERY_S: Final = 1.0  # how often it is asked which queues there are
TYPES_MAX: Final = 10_000  # workflows of which the type is remembered


@dataclass(frozen=True, slots=True)
class Happening:
    """What has happened to a workflow. what: started, suspended, or its status at the end. type: None = not known."""

    time_ns: int
    what: str
    key: WorkflowKey
    run: int | None
    type: str | None
    status: str
    error: str | None = None

    def to_record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "time": iso(self.time_ns), "what": self.what, "id": self.key.id, "queue": self.key.queue, "run": self.run,
            "type": self.type, "status": self.status, "error": self.error,
        }  # fmt: skip


def started_by(key: WorkflowKey, event: Event) -> Happening:
    """What a start is. One whose key is missing is a start all the same: nodes that have the key run it."""
    try:
        name = decode_start(event.data, event.headers).workflow
    except Undecodable as error:
        if may_open_later(event.data):
            return Happening(event.at_ns, "started", key, event.seq, None, "running")
        return Happening(event.at_ns, "refused", key, event.seq, None, "failed", str(error))
    return Happening(event.at_ns, "started", key, event.seq, name, "running")


def ended_by(key: WorkflowKey, event: Event, type_name: str | None) -> Happening:
    """What an end is. One whose key is missing is no error."""
    end = decode_end(event.data)
    value = None if end.next_start or end.closed else end.value()
    why = str(value) if isinstance(value, Failure) else None
    return Happening(event.at_ns, end.status, key, event.run, type_name, end.status, why)


class Feed:
    """What happens from now on to workflows of some queues, or of one type of them."""

    def __init__(self, client: Client, queues: Sequence[str], type_name: str | None = None) -> None:
        self._client = client
        self._queues = list(queues)
        self._type = type_name
        self._types: OrderedDict[WorkflowKey, str] = OrderedDict()
        self._waiting: deque[_News] = deque(maxlen=WAITING_MAX)
        self._some = anyio.Event()
        self.ends_alone = False  # this user may not see starts

    async def start(self, tasks: anyio.abc.TaskGroup) -> None:
        """Begin to follow, in tasks of this group: what is stored after this has returned is told."""
        for queue in self._queues:
            last = (await self._client.js.stream_info(stream_name(queue))).last_seq
            await self._begin(tasks, queue, last + 1)
        await self._client.conn.flush()

    async def find_new(self, tasks: anyio.abc.TaskGroup, queues: Callable[[], Awaitable[Iterable[str]]]) -> None:
        """Follow queues that come later, too, until cancelled. queues: what there is now.

        From their first event: on a queue that had no worker nothing could be started.
        """
        followed = set(self._queues)
        while True:
            await anyio.sleep(NEW_QUEUES_EVERY_S)
            with suppress(MeshError):  # asked again a moment later
                for queue in sorted(set(await queues()) - followed):
                    with suppress(NotPermitted):
                        await self._client.js.stream_info(stream_name(queue))
                        await self._begin(tasks, queue, 1)
                    followed.add(queue)

    async def _begin(self, tasks: anyio.abc.TaskGroup, queue: str, from_seq: int) -> None:
        await tasks.start(self._follow, queue, from_seq)
        # A suspended run writes nothing.
        self._client.conn.subscribe_direct(f"mesh.note.{token(queue)}.*.suspended", self._on_suspended)

    async def _follow(
        self, queue: str, from_seq: int, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Follow a queue's starts and ends; a user who may not follow its stream hears of ends alone."""
        filters = [f"mesh.log.{token(queue)}.*.*.{kind}" for kind in ("start", "end.*")]
        follower = Follower(
            self._client.conn, self._client.js, stream_name(queue), filters, from_seq, self._on_stored,
            consumer_prefix="watch",
        )  # fmt: skip
        try:
            await follower.run(task_status=task_status)
        except NotPermitted:
            self.ends_alone = True
            self._client.conn.subscribe_direct(f"mesh.wf.{token(queue)}.*.end.*", self._on_published)
            task_status.started()

    async def happenings(self) -> AsyncIterator[Happening]:
        """What happens, as it happens."""
        while True:
            while self._waiting:
                happening = await self._happening(self._waiting.popleft())
                if happening is not None and self._type in (None, happening.type):
                    yield happening
            self._some = anyio.Event()
            await self._some.wait()

    def _on_stored(self, message: Delivered) -> None:
        self._hear(message.subject, message.seq, message.timestamp_ns, message.data, message.raw_headers)

    def _on_published(self, subject: str, _reply: str, data: bytes, raw_headers: bytes | None) -> None:
        # As it will be stored; in which partition matters to nobody here.
        queue, _, rest = subject.removeprefix("mesh.wf.").partition(".")
        data = self._client.conn.opened(subject, data)
        self._hear(f"mesh.log.{queue}.0.{rest}", 0, time.time_ns(), data, raw_headers)

    def _hear(self, stored: str, seq: int, time_ns: int, data: bytes, raw_headers: bytes | None) -> None:
        event = parse(stored, seq, time_ns, data, raw_headers)
        if event is not None:
            key = WorkflowKey(untoken(stored.split(".")[2]), untoken(event.id_token))
            self._waiting.append(_News(key, event.at_ns, event))
            self._some.set()

    def _on_suspended(self, subject: str, _reply: str, data: bytes, _raw_headers: bytes | None) -> None:
        parts = subject.split(".")
        try:
            reason = str(codec.decode(self._client.conn.opened(subject, data)))
        except Undecodable:
            reason = "for a reason that cannot be read"
        self._waiting.append(_News(WorkflowKey(untoken(parts[2]), untoken(parts[3])), time.time_ns(), None, reason))
        self._some.set()

    async def _happening(self, news: _News) -> Happening | None:
        key, event = news.key, news.event
        if event is None:
            return Happening(news.time_ns, "suspended", key, None, await self._type_of(key), "suspended", news.reason)
        if is_reference(event.data):
            subject = key.subject(event.kind, *event.args)
            event = event._replace(data=await self._client.js.objects.fetched(subject, event.data))
        if event.kind == "start":
            started = started_by(key, event)
            if started.type is not None:
                self._know(key, started.type)
            return started
        return ended_by(key, event, await self._type_of(key))

    def _know(self, key: WorkflowKey, name: str) -> None:
        self._types[key] = name
        self._types.move_to_end(key)
        if len(self._types) > TYPES_MAX:
            self._types.popitem(last=False)

    async def _type_of(self, key: WorkflowKey) -> str | None:
        """The type of a workflow: from its start if that was seen, else it is looked up."""
        if key not in self._types:
            try:
                found = await self._client.history(key.queue).last_run(key)
            except MeshError:
                return None
            if found is None:
                return None
            self._know(key, workflow_name(found[0]))
        return self._types[key]


@dataclass(frozen=True, slots=True)
class _News:
    """What was heard. event: None for a notice that a run is suspended, with its reason."""

    key: WorkflowKey
    time_ns: int
    event: Event | None
    reason: str = ""
