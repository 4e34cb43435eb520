"""Writing recorded histories into a mesh: to look at with all the tools, or to let an open one go on there.

The number of a run is the sequence of its start, so the start is written first and the rest, which names the run, when
that is known. Until the end is there, a run with an imported start is held (`mesh.imported`): no owner runs it. The end
of a history comes in one piece with its last events, so nobody sees it ended and incomplete; an import that broke off
is recognised by its count of events, and the next one of the same id takes its place.

Only ended histories are written unless the caller says that an open one goes on: then the last thing written is the
mark that lets it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import anyio

from mesh.envelopes import ENVELOPE, why_closed
from mesh.errors import Conflict, MeshError, NotFound, NotPermitted, PayloadTooLarge, Undecodable
from mesh.events import EndRecord, Event, decode_end, start_spec_of
from mesh.history import History, OpenRun
from mesh.history_files import RUNNING, HistoryHeader
from mesh.imported import (
    HEADER_EVENTS,
    HEADER_IMPORTED,
    HEADER_ORIGIN,
    RESUME_MARK,
    Origin,
    import_of,
    is_held,
    read_origin,
)
from mesh.jetstream import BatchMessage, JetStream
from mesh.subjects import WorkflowKey
from mesh.wire import parse_headers

BATCH_MESSAGES: Final = 500
BATCH_BYTES: Final = 1024 * 1024
WATCHED_S: Final = 0.5  # of an import that is not whole; one that goes on writes a batch every few milliseconds
_NAME_A_RUN: Final = frozenset({"ret", "claim", "tick", "exit", "mark", "attrs", "end"})
# What the server was told when a message was published is not told again; what a service has answered is kept.
_NATS: Final = "nats-"
_NATS_KEPT: Final = "nats-service-"


class CannotImport(MeshError):
    """Raised when a history cannot be written into a mesh."""

    code = "cannot-import"

    def __init__(self, header: HistoryHeader, reason: str) -> None:
        super().__init__(f"workflow {header.id!r} (run {header.run}) is not imported: {reason}")


class AlreadyImported(CannotImport):
    """Raised when a history is in the mesh from an earlier import of it. run: which one it is there."""

    code = "already-imported"

    def __init__(self, header: HistoryHeader, key: WorkflowKey, run: int) -> None:
        self.run = run
        super().__init__(header, f"it is there already, as run {run} of workflow {key.id!r} on queue {key.queue!r}")


@dataclass(slots=True)
class Importer:
    """Imports histories into the queues of a mesh.

    Of an id that this importer has brought in, or has found brought in, further runs may follow, oldest first.
    """

    js: JetStream
    _brought: dict[WorkflowKey, int] = field(default_factory=dict)

    async def add(
        self, header: HistoryHeader, events: Iterator[Event], key: WorkflowKey, *, resume: bool = False
    ) -> int:
        """Write one history under a key; return its run there. resume: one that has not ended goes on.

        Raises CannotImport, AlreadyImported, NotFound when there is no such queue, PayloadTooLarge, OutcomeUnknown.
        """
        if header.status == RUNNING and not resume:
            raise CannotImport(
                header, "it has not ended; with --resume it goes on in this mesh, while the original goes on in its own"
            )
        events = _opened(header, events)
        start = next(events, None)
        if start is None or start.kind != "start" or start.seq != header.run:
            raise CannotImport(header, "its first event is not the start of the run")
        headers, at_ns = _start_headers(header, start)
        expected = await self._room_for(header, key, headers)
        name = secrets.token_hex(8)
        try:
            run = (
                await self.js.publish(
                    key.start(), start.data, headers={**headers, HEADER_IMPORTED: f"{name} {at_ns}"},
                    expect_last_subject_seq=expected,
                )
            ).seq  # fmt: skip
        except Conflict:
            raise CannotImport(
                header, f"there is a workflow {key.id!r} on queue {key.queue!r} since a moment"
            ) from None
        try:
            await self._write_rest(header, events, key, run, name)
        except (CannotImport, PayloadTooLarge):
            await self._remove(key, run)
            raise
        except NotPermitted as error:
            with suppress(MeshError):  # who may start and may write no outcomes, mostly may not remove either
                await self._remove(key, run)
            raise CannotImport(
                header, f"this user may start workflows, not write histories ({error.subject}); import it as one "
                "who may, which also removes what was begun here",
            ) from None  # fmt: skip
        self._brought[key] = run
        return run

    async def _write_rest(
        self, header: HistoryHeader, events: Iterator[Event], key: WorkflowKey, run: int, name: str
    ) -> None:
        batch: list[BatchMessage] = []
        size = 0
        ends = False
        for event in events:
            # One behind: what comes last must come together with its end, and so must the attributes after it.
            if not ends and batch and (len(batch) >= BATCH_MESSAGES or size >= BATCH_BYTES):
                await self.js.publish_batch(batch)
                batch, size = [], 0
            message = _message(header, event, key, run, name)
            batch.append(message)
            size += len(message.payload) + 200
            ends = event.run == header.run and (event.kind == "end" or (ends and event.kind == "attrs"))
        if header.status != RUNNING and not ends:
            raise CannotImport(header, f"it says that it has ended ({header.status}), but its last event is no end")
        if header.status == RUNNING:
            if ends:
                raise CannotImport(header, "it says that it has not ended, but its last event is the end")
            batch.append(BatchMessage(key.mark(run, RESUME_MARK), name.encode()))
        await self.js.publish_batch(batch)

    async def _room_for(self, header: HistoryHeader, key: WorkflowKey, headers: Mapping[str, str]) -> int:
        """The last start under this key that there may be, 0 for none. An import that broke off is removed.

        headers: of the start that is to be written.
        """
        history = History(self.js, key.queue)
        try:
            last = await history.last_run(key)
        except NotFound:
            raise NotFound(
                f"no queue {key.queue!r}; a node makes it when it starts, or say which with --queue"
            ) from None
        if last is None:
            return 0
        opened, ended = last
        newest = await history.last_start(key)
        if ended is None and await self._is_broken_off(history, key, opened):
            if not await self._goes_on(history, key, opened):
                await self._remove(key, opened.run)
            return await self._room_for(header, key, headers)
        earlier = await self._earlier(history, key, headers)
        if earlier:
            status = decode_end(ended.data).status if ended is not None and earlier == opened.run else header.status
            if header.status not in (RUNNING, status):
                raise CannotImport(
                    header, f"an import of it as {key.id!r} broke off and was then ended ({status}); import it "
                    "under another id with --as",
                )  # fmt: skip
            self._brought[key] = earlier
            raise AlreadyImported(header, key, earlier)
        if ended is None or self._brought.get(key) != opened.run or newest is None:
            state = "runs" if ended is None else "is there already"
            raise CannotImport(
                header, f"a workflow {key.id!r} {state} on queue {key.queue!r}; import it under another id with --as"
            )
        return newest.run

    @staticmethod
    async def _earlier(history: History, key: WorkflowKey, headers: Mapping[str, str]) -> int:
        """The run that an import of the same history has made, 0 for none."""
        opened = await history.start_after(key, 0)
        while opened is not None:
            there = parse_headers(opened.start.raw_headers)
            if all(there.get(name) == headers[name] for name in (HEADER_ORIGIN, HEADER_EVENTS)):
                return opened.run
            opened = await history.start_after(key, opened.run)
        return 0

    @staticmethod
    async def _is_broken_off(history: History, key: WorkflowKey, opened: OpenRun) -> bool:
        """Whether an open run is an import of which the last batch, with its end or its resumption, is not there."""
        return import_of(opened.start.raw_headers) is not None and is_held(
            opened.run, await history.events(key, opened.run)
        )

    @staticmethod
    async def _goes_on(history: History, key: WorkflowKey, opened: OpenRun) -> bool:
        """Whether somebody else is importing it at this moment: both would write into one history."""
        before = len(await history.events(key, opened.run))
        await anyio.sleep(WATCHED_S)
        return len(await history.events(key, opened.run)) != before

    async def _remove(self, key: WorkflowKey, run: int) -> None:
        """Take an import that is not whole away: what is stored under the key from its start on."""
        history = History(self.js, key.queue)
        partition = await history.partition_of(key)
        for event in await history.events(key, run):
            await self.js.delete_message(history.stream, event.seq)
        if partition is not None and await history.last_start(key) is None:
            await self.js.purge(history.stream, subject=key.stored(partition, ">"))
        # Whoever keeps lists would go on listing it as running.
        self.js.conn.publish_nowait(key.note("purged"), str(run).encode())


def _opened(header: HistoryHeader, events: Iterator[Event]) -> Iterator[Event]:
    """The events, all of which must be readable: what is encrypted is bound to where it was, and is written anew."""
    for event in events:
        if event.data[:2] == ENVELOPE:
            closed = why_closed(event.data)
            raise CannotImport(header, f"an event of it ({event.kind}) is {closed}; import it with --keys FILE")
        yield event


def _start_headers(header: HistoryHeader, start: Event) -> tuple[dict[str, str], int]:
    """The headers of an imported start, and when the clock of its code began."""
    given = start.headers
    origin = read_origin(given)
    at_ns = start.at_ns
    try:
        spec = start_spec_of(start)
    except Undecodable:
        spec = None
    base = spec.base if spec is not None else None
    if origin is None:
        origin = Origin(header.queue, header.id, header.run, base.origin if base is not None else header.run)
        if base is not None:
            at_ns = base.started_ns
    return {**_kept(given), HEADER_ORIGIN: origin.header(), HEADER_EVENTS: str(header.events)}, at_ns


def _message(header: HistoryHeader, event: Event, key: WorkflowKey, run: int, name: str) -> BatchMessage:
    args: Sequence[str] = event.args
    if event.kind in _NAME_A_RUN:
        # One that names another run did nothing, and must not come to name this one.
        named = run if event.run == header.run else 0 if event.run == run else event.run
        args = [str(named), *args[1:]]
    data = event.data
    if event.kind == "end":
        record = decode_end(data)
        if record.next_start:
            # What followed stays where it was: an owner here would start it.
            data = EndRecord(record.status, record.outcome).encode()
    headers = {**_kept(event.headers), HEADER_IMPORTED: f"{name} {event.at_ns}"}
    return BatchMessage(key.subject(event.kind, *args), data, headers)


def _kept(headers: dict[str, str]) -> dict[str, str]:
    ours = {HEADER_IMPORTED, HEADER_ORIGIN, HEADER_EVENTS}
    return {
        name: value
        for name, value in headers.items()
        if name not in ours and (not name.lower().startswith(_NATS) or name.lower().startswith(_NATS_KEPT))
    }
