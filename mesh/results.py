"""Waiting for the result of a workflow, through retries, continued runs, and servers that go away meanwhile.

The server says when it has stored the end of a run, and so most waits end at once. That may be missed; the history
decides, and is looked into as well (`mesh.looks`).

Not here: what a workflow does meanwhile (`mesh.states`).
"""

from __future__ import annotations

from typing import Any, Final, Protocol

import anyio

from mesh import codec
from mesh.connection import Connection
from mesh.envelopes import Unopened
from mesh.errors import Disconnected, MeshError, NotFound, NotReady, RequestTimeout, Undecodable
from mesh.events import decode_end
from mesh.failure import Failure
from mesh.history import History, RunOutcome
from mesh.looks import Looks
from mesh.states import Reach, describe
from mesh.subjects import WorkflowKey

RUN_AFTER_S: Final = 0.02  # between two looks for the run that follows one
STREAM_PATIENCE_S: Final = 15.0  # an election of nats-server takes 4 to 9 s
STREAM_AGAIN_S: Final = 0.1


class WorkflowFailed(MeshError):
    """Raised when a workflow ended without a result. `failure` says why, `status` how."""

    code = "workflow-failed"

    def __init__(self, workflow_id: str, status: str, failure: Failure) -> None:
        self.workflow_id = workflow_id
        self.status = status
        self.failure = failure
        super().__init__(f"workflow {workflow_id!r} {status}: {failure}")


class WorkflowSuspended(MeshError):
    """Raised when a workflow cannot go on until code fits its history, or a key opens it. Look again later."""

    code = "workflow-suspended"

    def __init__(self, workflow_id: str, reason: str) -> None:
        self.workflow_id = workflow_id
        self.reason = reason
        super().__init__(
            f"workflow {workflow_id!r} is suspended: {reason}. Nothing is lost; "
            "it goes on by itself once a node with fitting code, and the keys, owns it"
        )


class Awaited(Protocol):
    """A workflow whose end is waited for. run: 0 for whichever is newest; was_seen: whether it is known to be there.

    last_run: the run that its end was waited for last, and so whose end the result is.
    """

    key: WorkflowKey
    run: int
    last_run: int
    was_seen: bool


async def wait_for_result(reach: Reach, awaited: Awaited) -> Any:
    """Wait for a workflow's end; see `WorkflowHandle.result`. A server that goes away is waited for, too."""
    doubted_since_s: float | None = None
    while True:
        epoch, begun_s = reach.conn.epoch, anyio.current_time()
        try:
            return await _wait(reach, awaited)
        except (Disconnected, RequestTimeout):
            await reach.conn.wait_connected()
        except (NotFound, NotReady):
            # While a cluster elects a leader, a stream looks as if it was not there, or its server says that it cannot
            # serve it. That of a run that we have seen is there.
            now_s = anyio.current_time()
            if doubted_since_s is None or epoch != reach.conn.epoch or now_s - begun_s > STREAM_PATIENCE_S:
                doubted_since_s = now_s  # it was there since the last doubt: this is another election
            if not awaited.was_seen or now_s - doubted_since_s > STREAM_PATIENCE_S:
                raise
            await anyio.sleep(STREAM_AGAIN_S)


async def _wait(reach: Reach, awaited: Awaited) -> Any:
    key, history = awaited.key, reach.history(awaited.key.queue)
    news = _News(reach.conn, history)
    if await history.tells_ends():
        ends = reach.conn.subscribe_direct(key.ended(), news.on_stored_end)
    else:
        # Whoever ends the run publishes that, and so we hear of it; the log decides.
        ends = reach.conn.subscribe_direct(key.subject("end", "*"), news.on_end)
    notes = reach.conn.subscribe_direct(key.note("suspended"), news.on_suspended)
    try:
        run = awaited.run or (await history.newest_run(key))[0].run
        awaited.was_seen, awaited.last_run = True, run
        looks, asked = Looks(), False
        while True:
            if looks.pause_s and not await news.wait(looks.pause_s):
                looks.heard_nothing()
            if news.take():
                looks.heard()
            ended = news.end_of(run) or await history.end_of(key, run)
            if ended is not None:
                record = decode_end(ended.data)
                if record.closed:
                    raise Unopened(record.closed, f"workflow {key.id!r} has ended; its result")
                if not record.next_start:
                    return _result(key, record.status, record.value())
                run, looks = await _run_after(history, key, ended), Looks()
                awaited.last_run = run
                continue
            if news.suspended is not None:
                raise WorkflowSuspended(key.id, news.suspended)
            looks.found_nothing()
            if looks.pause_s:
                await history.partition_of(key)  # looked up while there is time
            if looks.long_silent and not asked:
                asked = True
                state = await describe(reach, key)
                if state.status == "suspended":
                    raise WorkflowSuspended(key.id, str(state.detail.get("reason", "")))
    finally:
        ends.unsubscribe()
        notes.unsubscribe()


async def _run_after(history: History, key: WorkflowKey, ended: RunOutcome) -> int:
    delay_s = 0.001
    while True:
        following = await history.start_after(key, ended.seq)
        if following is not None:
            return following.run
        await anyio.sleep(delay_s)
        delay_s = min(2 * delay_s, RUN_AFTER_S)


class _News:
    """What is heard about a workflow while its result is waited for."""

    def __init__(self, conn: Connection, history: History) -> None:
        self._conn = conn
        self._history = history
        self.suspended: str | None = None
        self._stored: dict[int, RunOutcome] = {}  # the effective ends of runs that the server has told
        self._run = 0  # the newest one that was asked after; a workflow may go on as thousands of runs
        self._has_ended = False
        self._event = anyio.Event()

    def on_end(self, _subject: str, _reply: str, _data: bytes, _raw_headers: bytes | None) -> None:
        self._has_ended = True
        self._event.set()

    def on_stored_end(self, subject: str, _reply: str, data: bytes, raw_headers: bytes | None) -> None:
        ended = self._history.told_end(subject, data, raw_headers)
        if ended is not None and ended.run >= self._run:
            self._stored[ended.run] = ended
        self._has_ended = True
        self._event.set()

    def on_suspended(self, subject: str, _reply: str, data: bytes, _raw_headers: bytes | None) -> None:
        try:
            self.suspended = str(codec.decode(self._conn.opened(subject, data)))
        except Unopened as error:
            self.suspended = f"the reason is {error.reason}"
        except Undecodable:
            self.suspended = "for a reason that cannot be read"
        self._event.set()

    def end_of(self, run: int) -> RunOutcome | None:
        """The end of a run, if the server has told it; nobody asks after older runs from then on."""
        if run > self._run:
            self._run = run
            self._stored = {later: ended for later, ended in self._stored.items() if later >= run}
        return self._stored.get(run)

    async def wait(self, timeout_s: float) -> bool:
        """Wait for news that were not taken yet; False when none came in time."""
        if not self._event.is_set():
            with anyio.move_on_after(timeout_s):
                await self._event.wait()
        return self._event.is_set()

    def take(self) -> bool:
        """Whether a run has ended, as was heard since this was asked before. What comes later is news again."""
        has_ended, self._has_ended = self._has_ended, False
        if self._event.is_set():
            self._event = anyio.Event()
        return has_ended


def _result(key: WorkflowKey, status: str, value: Any) -> Any:
    if isinstance(value, Failure):
        raise WorkflowFailed(key.id, status, value)
    return value
