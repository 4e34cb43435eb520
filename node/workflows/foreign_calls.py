"""Calls of services outside of the mesh (`function.nats`), which know nothing of us and cannot be asked about a call.

Invariant: one that may run only once is claimed in the history before it is asked for, as hosts of ours do it for
themselves (`node.functions.claims`).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping

from anyio.abc import TaskGroup

from mesh.connection import Connection
from mesh.errors import Conflict, MeshError
from mesh.failure import Failure, Kind
from mesh.jetstream import JetStream
from mesh.subjects import claim_of_ret, to_intake
from mesh.wire import is_no_responders
from node.functions.call_bodies import foreign_body
from node.functions.call_headers import HEADER_CLAIM
from node.functions.claims import is_claim_named
from node.workflows.background import insist
from node.workflows.call_watch import Watch


class ForeignCalls:
    """The calls of one engine to such services.

    functions: subject and encoding of each. is_due: whether a call still is this owner's to make; publish: makes it,
    once it is claimed; fail: ends it.
    """

    def __init__(
        self,
        conn: Connection,
        js: JetStream,
        functions: Mapping[str, tuple[str, str]],
        *,
        is_due: Callable[[Watch], bool],
        publish: Callable[[Watch], object],
        fail: Callable[[Watch, Failure], None],
        tasks: Callable[[], TaskGroup],
    ) -> None:
        self.functions = functions
        self._conn = conn
        self._js = js
        self._is_due = is_due
        self._publish = publish
        self._fail = fail
        self._tasks = tasks

    def request(self, watch: Watch) -> None:
        """Ask the service, or claim the call first. Raises as `Connection.publish_nowait`, and what encoding raises."""
        if watch.once_only and not watch.claimed:
            watch.claiming, watch.published = True, False
            self._tasks().start_soon(self._claim, watch)
            return
        self._send(watch)
        watch.published = True

    async def _claim(self, watch: Watch) -> None:
        """Write into the history that a service is asked which may be asked once, as hosts do it for themselves.

        Nobody can find out whether it has the call. So who finds the claim of another owner there waits for the answer,
        which is stored whoever has asked, until the time for it is over.
        """
        subject, mine = claim_of_ret(watch.ret), secrets.token_hex(8)

        async def claim() -> bool:
            try:
                await self._js.publish(subject, b"", headers={HEADER_CLAIM: mine}, expect_last_subject_seq=0)
            except Conflict:
                return await is_claim_named(self._js, subject, mine)
            return True

        try:
            watch.claimed = await insist(claim, f"claim {subject}", watch.run.about())
        except MeshError as error:
            self._fail(watch, Failure(f"the call cannot be claimed: {error}", Kind.UNAVAILABLE, True))
            return
        finally:
            watch.claiming = False
        watch.published = not watch.claimed
        if watch.claimed and self._is_due(watch):
            self._publish(watch)  # else it is looked after once it is clear who owns what

    def _send(self, watch: Watch) -> None:
        """Publish a request to a service that knows nothing of us.

        It answers into the intake (`node.intake`): a header of its answer could delete the stream, or have the server
        write anything. Whether anybody listens is told by the server to a subscription of the reply subject only, so
        there is one for the first message that comes.
        """
        if watch.run.spec.encrypted:
            text = f"{watch.op.target} is a service outside of the mesh, which cannot read what has to be encrypted"
            self._fail(watch, Failure(text, Kind.INVALID, False))
            return
        subject, encoding = self.functions[watch.op.target]
        reply, body = to_intake(watch.ret), foreign_body(watch.op.payload, encoding)

        def on_first(_subject: str, _reply: str, data: bytes, raw_headers: bytes | None) -> None:
            subscription.unsubscribe()
            if is_no_responders(data, raw_headers):
                self._fail(watch, Failure(f"nobody serves {subject}", Kind.UNAVAILABLE, True))

        trace = watch.run.trace
        headers = trace.step(watch.op.n, watch.attempt).headers if trace is not None else None
        subscription = self._conn.subscribe_direct(reply, on_first)
        watch.unlisten = subscription.unsubscribe
        try:
            self._conn.publish_nowait(subject, body, reply, headers)
        except MeshError:
            subscription.unsubscribe()
            raise
