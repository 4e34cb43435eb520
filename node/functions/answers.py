"""Answers: what a call has come to, told to whoever waits for it.

The outcome of a workflow's call is an event of its history: it is repeated until the server acknowledges it, and until
then the call is one that this host can be asked after. Anybody else waits in an inbox and is told once.

Not here: what runs calls, and which call has the place that becomes free (`node.functions.host`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from anyio.abc import TaskGroup

from mesh import codec
from mesh.connection import Connection
from mesh.envelopes import outcome_context
from mesh.errors import Disconnected, NotPermitted, PayloadTooLarge, Undecodable
from mesh.events import HEADER_NODE, HEADER_TOOK
from mesh.outbox import Ack, Outbox
from mesh.wire import encode_headers
from node.functions.job import WORKFLOW_REPLY, Job
from node.functions.large_calls import LargeCalls
from node.units.farewells import Farewells
from node.workflows.outcomes import result_too_large

UNRECORDED_KEPT_S: Final = 60.0  # as long as an owner may take to be found and to ask

_log = logging.getLogger(__name__)


class Answers:
    """The outcomes of one host's calls.

    unrecorded: those that their owner is to record, with their headers, by subject.
    leave: called when a call runs no more; forget: when nobody needs to ask after it any more, either.
    """

    def __init__(
        self,
        *,
        conn: Connection,
        outbox: Outbox,
        large: LargeCalls,
        farewells: Farewells,
        node_id: str,
        tasks: Callable[[], TaskGroup],
        leave: Callable[[Job], None],
        forget: Callable[[Job], None],
    ) -> None:
        self.unrecorded: dict[str, tuple[bytes, bytes]] = {}
        self._conn = conn
        self._outbox = outbox
        self._large = large
        self._farewells = farewells
        # The end of the block is the time, which each outcome has for itself.
        self._headers = encode_headers({HEADER_NODE: node_id.replace("%", "%%"), HEADER_TOOK: "%.3f"})
        self._tasks = tasks
        self._leave = leave
        self._forget = forget
        self._loop = asyncio.get_running_loop()

    def publish(self, job: Job, outcome: bytes) -> None:
        """Tell whoever waits in an inbox. Raises Disconnected, PayloadTooLarge."""
        self._conn.publish_nowait(job.reply, outcome, context=outcome_context(job.identity))

    def give(self, job: Job, outcome: bytes) -> None:
        """A call has ended so. Only the first outcome of a call counts."""
        if job.ended:
            return
        job.ended = True
        if job.unit is not None:
            self._farewells.ended(job.unit, outcome)
        took_s, failed = time.monotonic() - job.begun_s, outcome[:3] == codec.FAILURE_PREFIX
        if job.span is not None:
            job.span.end(failure_text(outcome) if failed else None)
        counts = job.function.counts
        (counts.failed if failed else counts.completed).observe(took_s)
        if function_endpoint := job.function.endpoint:
            function_endpoint.note(took_s, failed=failed, outcome=outcome)
        if job.reply.startswith(WORKFLOW_REPLY):
            headers = self._headers % (took_s * 1e3)

            def on_ack(ack: Ack) -> None:
                if isinstance(ack.error, NotPermitted):
                    # The server lets us answer what it has seen delivered to us, and after a reconnect it has seen
                    # nothing. Whoever owns the workflow asks after the call in a second.
                    self.unrecorded[job.reply] = outcome, headers
                    self._loop.call_later(UNRECORDED_KEPT_S, self.unrecorded.pop, job.reply, None)
                    _log.info("the outcome of %s waits for its owner to ask for it: %s", job.reply, ack.error)
                elif isinstance(ack.error, PayloadTooLarge):
                    failure = codec.encode_failure(result_too_large(ack.error))
                    self._outbox.write(job.reply, failure, headers, lambda _ack: self._forget(job))
                    return
                elif ack.error is not None:
                    _log.error("the outcome of %s is not recorded: %s", job.reply, ack.error, extra=job.about())
                self._forget(job)

            self._outbox.write(job.reply, outcome, headers, on_ack)
            # Its place is free: what is still to be done is the server's. It is asked after here until that is done.
            self._leave(job)
            return
        try:
            try:
                self.publish(job, outcome)
            except PayloadTooLarge as error:
                self._tasks().start_soon(self._give_large, job, outcome, error)
                return
        except Disconnected:
            self._log_unreached(job)
        self._leave(job)
        self._forget(job)

    async def _give_large(self, job: Job, outcome: bytes, refused: PayloadTooLarge) -> None:
        """Tell whoever waits in an inbox what is too large for a message."""
        answer = await self._large.outcome_instead(job, outcome, refused)
        try:
            self.publish(job, answer)
        except Disconnected:
            self._log_unreached(job)
        self._leave(job)
        self._forget(job)

    @staticmethod
    def _log_unreached(job: Job) -> None:
        _log.info("the caller of %s is not reached: the connection is down", job.function.id, extra=job.about())


def failure_text(outcome: bytes) -> str:
    """What a failed outcome says, for people."""
    try:
        return str(codec.decode_outcome(outcome)[1])
    except Undecodable as error:
        return str(error)
