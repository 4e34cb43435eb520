"""The intake: what others have happen to workflows is looked at and passed on to the stream.

The account of clients imports `mesh.wf.<queue>.<id>.start`, `.signal.<topic>` and `.cancel` as `mesh.in....` of ours
(`deploy.make_accounts`), which all nodes serve in one queue group. Services outside of the mesh (`function.nats`) are
asked with `mesh.in....ret....` as the reply, and their answers come in here, too.

What may be in such a message is decided by `node.admission`; its payload goes on as it came, and the answer of the
stream goes back to whoever has asked. A server lets nobody hand on the reply subject of another account's request, so
the answer comes by way of us.

Invariants:
  * nothing is acknowledged that the stream has not acknowledged;
  * what came one after the other to one node is passed on in that order;
  * no more than UNDER_WAY_MAX wait for the stream; more are refused, not queued;
  * an answer of a service, which is given once, is published again until the stream has it, for RECORD_FOR_S.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Final

import anyio
import anyio.abc

from mesh.connection import Connection, DirectSubscription
from mesh.errors import Disconnected, InvalidName, MeshError, PayloadTooLarge
from mesh.subjects import EVERY_INTAKE, OUTCOME_INTAKE, may_be_answered
from mesh.wire import is_no_responders
from node.admission import NotAdmitted, admit
from node.refusals import Refusals

GROUP: Final = "mesh.intake"
UNDER_WAY_MAX: Final = 10_000
# Whoever has asked waits for 5 s (`mesh.jetstream_api.TIMEOUT_S`) and asks again; a later answer is heard by nobody.
FORGOTTEN_AFTER_S: Final = 10.0
DRAIN_S: Final = 0.5
RECORD_AGAIN_S: Final = 1.0
RECORD_FOR_S: Final = 60.0

# What the server says of a message that is too large, and so what a client understands as that.
_TOO_LARGE: Final = 10054
_REFUSED, _BUSY = 400, 503

_log = logging.getLogger(__name__)


class Intake:
    """Takes what others publish, on one node."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self._subscriptions: list[DirectSubscription] = []
        self._under_way: dict[str, float] = {}  # until when an answer is waited for, by request; the oldest first
        self._idle = anyio.Event()
        self._refusals = Refusals(_log)

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. Ready once the server knows the subscriptions."""
        try:
            for subject in (*EVERY_INTAKE, OUTCOME_INTAKE):
                self._subscriptions.append(self._conn.subscribe_direct(subject, self._on_message, queue=GROUP))
            await self._conn.flush()
            task_status.started()
            while True:
                await anyio.sleep(FORGOTTEN_AFTER_S)
                self._forget_silent()
        finally:
            self._stop()

    async def drain(self) -> None:
        """Take nothing more, and give the answers that are still to come."""
        self._stop()
        with anyio.move_on_after(DRAIN_S):
            while self._under_way:
                self._idle = anyio.Event()
                await self._idle.wait()

    def _stop(self) -> None:
        for subscription in self._subscriptions:
            subscription.unsubscribe()
        self._subscriptions.clear()

    def _on_message(self, subject: str, reply: str, data: bytes, raw_headers: bytes | None) -> None:
        if reply and not may_be_answered(reply, outcomes=False):
            text = "a message for a workflow that is to be answered on %s is ignored: nobody's inbox"
            self._refusals.note(text, reply)
            return
        if len(self._under_way) >= UNDER_WAY_MAX:
            self._refuse(reply, _BUSY, f"this node waits for {len(self._under_way)} answers of streams; try again")
            return
        try:
            if not reply and subject.split(".", 5)[4] == "ret":
                self._on_outcome(subject, data, raw_headers)
                return
            admitted = admit(subject, data, raw_headers)
            if reply:
                self._ask(admitted.subject, reply, data, admitted.headers)
            else:
                self._conn.publish_nowait(admitted.subject, data, headers=admitted.headers, as_it_came=True)
        except NotAdmitted as error:
            self._refusals.note("not passed on from another account, %s: %s", subject, error)
            self._refuse(reply, _REFUSED, f"not passed on: {error}")
        except PayloadTooLarge as error:
            self._refuse(reply, _REFUSED, str(error), _TOO_LARGE)
        except (Disconnected, InvalidName) as error:
            _log.info("not passed on: %s: %s", subject, error)

    def _on_outcome(self, subject: str, data: bytes, raw_headers: bytes | None) -> None:
        """Take the answer of a service, which it gives once. Raises NotAdmitted and as `publish_nowait`."""
        if is_no_responders(data, raw_headers):
            return  # a request of this node's own; whoever made it hears that
        admitted = admit(subject, data, raw_headers)
        self._record(admitted.subject, data, admitted.headers, until_s=anyio.current_time() + RECORD_FOR_S)

    def _record(self, subject: str, data: bytes, headers: bytes | None, *, until_s: float) -> None:
        """Have an outcome stored, however often that has to be tried: of several of an op the first one counts."""
        loop = asyncio.get_running_loop()

        def on_answer(answer: bytes, raw: bytes | None) -> None:
            self._forget(token)
            if not is_no_responders(answer, raw) and b'"error"' not in answer:
                again.cancel()

        def try_again() -> None:
            self._forget(token)
            if anyio.current_time() < until_s and self._subscriptions:
                self._record(subject, data, headers, until_s=until_s)
            else:
                _log.error("the answer of a service is lost, no stream has taken it: %s", subject)

        try:
            token = self._conn.request_nowait(
                subject, data, on_answer, headers, on_error=lambda _error: None, as_it_came=True
            )
        except Disconnected:
            token = ""
        else:
            self._under_way[token] = until_s
        again = loop.call_later(RECORD_AGAIN_S, try_again)

    def _ask(self, subject: str, reply: str, data: bytes, headers: bytes | None) -> None:
        """Publish and hand the stream's answer back; whoever gets none knows no more than without us."""

        def on_answer(answer: bytes, raw: bytes | None) -> None:
            self._forget(token)
            try:
                self._conn.publish_nowait(reply, answer, headers=raw)
            except Disconnected as error:
                _log.info("an acknowledgement was not handed back: %s: %s", subject, error)

        def on_error(error: MeshError) -> None:
            self._forget(token)
            _log.info("passed on and not acknowledged: %s: %s", subject, error)

        token = self._conn.request_nowait(subject, data, on_answer, headers, on_error=on_error, as_it_came=True)
        self._under_way[token] = anyio.current_time() + FORGOTTEN_AFTER_S

    def _forget(self, token: str) -> None:
        self._conn.forget(token)
        self._under_way.pop(token, None)
        if not self._under_way:
            self._idle.set()

    def _forget_silent(self) -> None:
        now = anyio.current_time()
        for token in [token for token, until_s in self._under_way.items() if until_s <= now]:
            self._forget(token)

    def _refuse(self, reply: str, code: int, text: str, err_code: int = 0) -> None:
        """Answer as a stream does that refuses a message."""
        if reply:
            try:
                error = {"code": code, "err_code": err_code, "description": text}
                self._conn.publish_nowait(reply, json.dumps({"error": error}).encode())
            except Disconnected as error_:
                _log.info("a refusal was not answered: %s", error_)
