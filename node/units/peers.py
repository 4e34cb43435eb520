"""Requests from node to node about units: `mesh.node.<node>.unit`, [verb, arguments...], answered with an outcome.

A request is answered while its node lives; when the node is lost, by us. What must arrive (`tell`) is repeated until
it is acknowledged or its node is lost: whoever takes it must not mind hearing it twice.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from typing import Any, Final

from mesh import codec
from mesh.connection import Connection
from mesh.envelopes import answer_context
from mesh.errors import Disconnected, MeshError, PayloadTooLarge, Undecodable
from mesh.failure import Failure, Kind
from mesh.subjects import may_be_answered, node_request
from node.refusals import Refusals

AGAIN_S: Final = 0.25
ANSWER_S: Final = 10.0  # an answer that got lost with somebody's connection
SILENT_S: Final = 2.0  # a notice without an answer is repeated

_log = logging.getLogger(__name__)

Done = Callable[[bytes], None]
Handler = Callable[[str, list[Any], Done], None]  # verb, arguments, where the outcome goes

LOST: Final = "NodeLost"


class Peers:
    """This node's conversation with the others. handle(verb, args, done) answers what they ask, if it listens."""

    def __init__(
        self,
        conn: Connection,
        node_id: str,
        *,
        is_up: Callable[[str], bool],
        handle: Handler,
        listens: bool = True,
    ) -> None:
        self._conn = conn
        self._node_id = node_id
        self._is_up = is_up
        self._handle = handle
        self._numbers = itertools.count()
        self._waiting: dict[str, dict[int, Done]] = {}
        self._loop = asyncio.get_running_loop()
        self._refusals = Refusals(_log)
        subject = node_request(node_id, "unit")
        self._subscription = conn.subscribe_direct(subject, self._on_request) if listens else None

    def close(self) -> None:
        """Answer nothing any more."""
        if self._subscription is not None:
            self._subscription.unsubscribe()

    @property
    def outcome_bytes_max(self) -> int:
        """How large an outcome may be that is told to another node together with whom it concerns."""
        return self._conn.max_payload * 3 // 4

    def ask(self, node: str, verb: str, args: list[Any], done: Done, *, timeout_s: float = ANSWER_S) -> None:
        """Ask another node; done gets an outcome, once. Requests to one node arrive in the order they were made."""
        waiting = self._waiting.setdefault(node, {})
        number = next(self._numbers)

        def answer(outcome: bytes) -> None:
            if waiting.pop(number, None) is not None:
                timeout.cancel()
                self._conn.forget(token)
                done(outcome)

        def on_reply(data: bytes, raw_headers: bytes | None) -> None:
            if not data and raw_headers is not None and raw_headers.startswith(b"NATS/1.0 503"):
                # While its member key stands it is only coming back to its server, or we were quicker than that.
                data = _unreached(node, "it does not listen at the moment") if self._is_up(node) else lost(node)
            opened = self._conn.opened(answer_context(subject), data)
            answer(opened if _is_outcome(opened) else _unreadable(node))

        def on_error(error: MeshError) -> None:
            answer(_unreached(node, str(error)))

        def late() -> None:
            answer(_unreached(node, f"it did not answer within {timeout_s:g} s"))

        waiting[number] = answer
        subject = node_request(node, "unit")
        token = ""
        timeout = self._loop.call_later(timeout_s, late)
        try:
            payload = codec.encode([verb, *args])
            token = self._conn.request_nowait(subject, payload, on_reply, on_error=on_error)
        except PayloadTooLarge as error:
            answer(codec.encode_failure(Failure(f"too large to be sent: {error}", Kind.INVALID, False)))
        except Disconnected as error:
            on_error(error)

    def tell(self, node: str, verb: str, args: list[Any], *, still: Callable[[], bool] = lambda: True) -> None:
        """Say something until it was heard or the node is lost, as long as it still holds."""

        def again() -> None:
            if self._is_up(node) and still() and not self._loop.is_closed():
                self.ask(node, verb, args, done, timeout_s=SILENT_S)

        def done(outcome: bytes) -> None:
            ok, failure = codec.decode_outcome(outcome)
            if not ok and failure.kind == Kind.UNAVAILABLE:
                self._loop.call_later(AGAIN_S, again)
            elif not ok and failure.kind != LOST:
                _log.error("node %s does not understand %s: %s", node, verb, failure)

        again()

    def node_lost(self, node: str) -> None:
        """Answer what a node was asked and will never answer."""
        for answer in list(self._waiting.pop(node, {}).values()):
            answer(lost(node))

    def _on_request(self, subject: str, reply: str, data: bytes, _raw_headers: bytes | None) -> None:
        def done(outcome: bytes) -> None:
            if reply:
                try:
                    self._conn.publish_nowait(reply, outcome, context=answer_context(subject))
                except PayloadTooLarge as error:
                    failure = Failure(f"the answer is too large to be sent: {error}", Kind.INVALID, False)
                    self._conn.publish_nowait(reply, codec.encode_failure(failure), context=answer_context(subject))
                except Disconnected:
                    return  # they find out when it does not come

        if not may_be_answered(reply, outcomes=False):
            self._refusals.note("a request to be answered on %s is ignored: nobody's inbox", reply)
            return
        try:
            request = codec.decode(self._conn.opened(subject, data))
            if not isinstance(request, list) or not request or not isinstance(request[0], str):
                raise Undecodable("not a list that begins with a verb")
            self._handle(request[0], request[1:], done)
        except (MeshError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            self._refusals.note("a request that cannot be read is refused: %s", error)
            done(codec.encode_failure(Failure(f"the request cannot be read: {error}", Kind.INVALID, False)))


def _is_outcome(data: bytes) -> bool:
    try:
        codec.decode_outcome(data)
    except Undecodable:
        return False
    return True


def _unreached(node: str, why: str) -> bytes:
    return codec.encode_failure(Failure(f"node {node} was not reached: {why}", Kind.UNAVAILABLE, False))


def _unreadable(node: str) -> bytes:
    return codec.encode_failure(Failure(f"nobody can read what node {node} has answered", Kind.INTERNAL, False))


def lost(node: str) -> bytes:
    """The outcome of what a node that is gone was asked."""
    return codec.encode_failure(Failure(f"node {node} is gone", LOST, False))
