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
from mesh.errors import Disconnected, MeshError, PayloadTooLarge, Undecodable
from mesh.failure import Failure, Kind
from mesh.subjects import node_request

AGAIN_S: Final = 0.25
ANSWER_S: Final = 10.0  # an answer that got lost with somebody's connection
SILENT_S: Final = 2.0  # a notice without an answer is repeated

_log = logging.getLogger(__name__)

Done = Callable[[bytes], None]
Handler = Callable[[str, list[Any], Done], None]  # verb, arguments, where the outcome goes

LOST: Final = "NodeLost"


class Peers:
    """This node's conversation with the others. handle(verb, args, done) answers what they ask."""

    def __init__(self, conn: Connection, node_id: str, *, is_up: Callable[[str], bool], handle: Handler) -> None:
        self._conn = conn
        self._node_id = node_id
        self._is_up = is_up
        self._handle = handle
        self._numbers = itertools.count()
        self._waiting: dict[str, dict[int, Done]] = {}
        self._loop = asyncio.get_running_loop()
        self._subscription = conn.subscribe_direct(node_request(node_id, "unit"), self._on_request)

    def close(self) -> None:
        """Answer nothing any more."""
        self._subscription.unsubscribe()

    def ask(self, node: str, verb: str, args: list[Any], done: Done) -> None:
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
                data = lost(node)
            answer(data)

        def on_error(error: MeshError) -> None:
            answer(codec.encode_failure(Failure(f"node {node} was not reached: {error}", Kind.UNAVAILABLE)))

        def late() -> None:
            text = f"node {node} did not answer within {ANSWER_S:g} s"
            answer(codec.encode_failure(Failure(text, Kind.UNAVAILABLE)))

        waiting[number] = done
        token = ""
        timeout = self._loop.call_later(ANSWER_S, late)
        try:
            payload = codec.encode([verb, *args])
            token = self._conn.request_nowait(node_request(node, "unit"), payload, on_reply, on_error=on_error)
        except PayloadTooLarge as error:
            answer(codec.encode_failure(Failure(f"too large to be sent: {error}", Kind.INVALID, False)))
        except Disconnected as error:
            on_error(error)

    def tell(self, node: str, verb: str, args: list[Any]) -> None:
        """Say something until it was heard or the node is lost."""
        heard = False

        def again() -> None:
            if not heard and self._is_up(node) and not self._loop.is_closed():
                self.ask(node, verb, args, done)
                self._loop.call_later(SILENT_S, again)

        def done(outcome: bytes) -> None:
            nonlocal heard
            ok, failure = codec.decode_outcome(outcome)
            if ok or failure.kind != Kind.UNAVAILABLE:
                heard = True
            else:
                self._loop.call_later(AGAIN_S, again)

        again()

    def node_lost(self, node: str) -> None:
        """Answer what a node was asked and will never answer."""
        waiting = self._waiting.pop(node, {})
        asked = list(waiting.values())
        waiting.clear()
        for done in asked:
            done(lost(node))

    def _on_request(self, _subject: str, reply: str, data: bytes, _raw_headers: bytes | None) -> None:
        def done(outcome: bytes) -> None:
            if reply:
                try:
                    self._conn.publish_nowait(reply, outcome)
                except PayloadTooLarge as error:
                    failure = Failure(f"the answer is too large to be sent: {error}", Kind.INVALID, False)
                    self._conn.publish_nowait(reply, codec.encode_failure(failure))
                except Disconnected:
                    return  # they find out when it does not come

        try:
            request = codec.decode(data)
            if not isinstance(request, list) or not request or not isinstance(request[0], str):
                raise Undecodable("not a list that begins with a verb")
            self._handle(request[0], request[1:], done)
        except (Undecodable, ValueError, TypeError, LookupError, AttributeError) as error:
            _log.warning("a request that cannot be read is refused: %s", error)
            done(codec.encode_failure(Failure(f"the request cannot be read: {error}", Kind.INVALID, False)))


def lost(node: str) -> bytes:
    """The outcome of what a node that is gone was asked."""
    return codec.encode_failure(Failure(f"node {node} is gone", LOST, False))
