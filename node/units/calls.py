"""Calls of functions by functions, by processes and by a node itself: a request, and its reply if there is one.

Nothing of such a call is kept: it lives as long as its caller. A workflow's calls are `node.workflows.calls`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, Final

import anyio

from mesh import codec
from mesh.client import Client
from mesh.connection import parse_headers
from mesh.errors import Disconnected, InvalidName, MeshError, NoResponders, PayloadTooLarge, RequestTimeout, Undecodable
from mesh.failure import Kind
from mesh.subjects import function_request, function_stop, function_who
from node.machine.vm import Op
from node.units.outcomes import failed
from node.units.retry_option import decode_retry, merged_retry
from node.workflows.calls import encode_foreign
from node.workflows.outcomes import service_error_kind

CALL_LOOK_EVERY_S: Final = 1.0
ANSWER_S: Final = 0.3

Foreign = Callable[[str], tuple[str, str] | None]


class Stop:
    """Whether somebody asks for the end of a call, rather than just not waiting for it any more."""

    asked = False


class LiveCalls:
    """Makes the calls of a node's live units.

    foreign: subject and encoding of a function that a service outside of the mesh serves, None for ours.
    call_defaults: the options that a function's registry entry sets.
    """

    def __init__(self, client: Client, *, foreign: Foreign, call_defaults: Callable[[str], Mapping[str, Any]]) -> None:
        self._client = client
        self._foreign = foreign
        self._call_defaults = call_defaults

    async def call(self, function_id: str, request: bytes, stop: Stop | None = None) -> bytes:
        """One attempt of a call by request and reply; a host that is lost is found out by asking."""
        try:
            foreign = self._foreign(function_id)
            if foreign is not None:
                return await self._call_foreign(foreign, request)
            answers: list[bytes] = []
            arrived = anyio.Event()

            def on_reply(data: bytes, raw_headers: bytes | None) -> None:
                if not data and raw_headers is not None and raw_headers.startswith(b"NATS/1.0 503"):
                    data = failed(f"no handler registered for target {function_id}", Kind.NOT_FOUND)
                answers.append(data)
                arrived.set()

            def on_error(error: MeshError) -> None:
                answers.append(failed(str(error), Kind.UNAVAILABLE, retryable=True))
                arrived.set()

            token = self._client.conn.request_nowait(
                function_request(function_id), request, on_reply, on_error=on_error
            )
            try:
                while not answers:
                    with anyio.move_on_after(CALL_LOOK_EVERY_S):
                        await arrived.wait()
                    if not answers and not await self._somebody_has(
                        function_id, self._client.conn.reply_subject(token)
                    ):
                        return failed(f"the host that ran {function_id} is gone", "HostLost", retryable=True)
            except anyio.get_cancelled_exc_class():
                if stop is not None and stop.asked:
                    self._ask_to_stop(function_id, self._client.conn.reply_subject(token))
                raise
            finally:
                self._client.conn.forget(token)
            codec.decode_outcome(answers[0])
            return answers[0]
        except InvalidName as error:
            return failed(str(error), Kind.INVALID)
        except PayloadTooLarge as error:
            return failed(f"the arguments are too large: {error}", Kind.INVALID)
        except Undecodable as error:
            return codec.encode_failure(codec.undecodable_failure("outcome", error))
        except Disconnected as error:
            return failed(str(error), Kind.UNAVAILABLE, retryable=True)

    async def call_with_retries(self, op: Op, stop: Stop) -> bytes:
        """Make the call that an op asks for, and again while it fails and its `retry` option says so; the outcome."""
        given = codec.unpack(op.options) if op.options else {}
        try:
            retry = decode_retry(merged_retry(self._call_defaults(str(op.target)).get("retry"), given.get("retry")))
        except ValueError as error:
            return failed(str(error), Kind.INVALID)
        attempt = 1
        while True:
            outcome = await self.call(str(op.target), op.payload or b"", stop)
            ok, failure = codec.decode_outcome(outcome)
            if ok or retry is None or not retry.again(attempt, failure):
                return outcome
            await anyio.sleep(retry.delay_s(attempt, random.random()))  # noqa: S311 - jitter
            attempt += 1

    def _ask_to_stop(self, function_id: str, reply: str) -> None:
        try:
            self._client.conn.publish_nowait(function_stop(function_id), codec.encode([reply]))
        except Disconnected:
            return  # it goes on to its end, and nobody hears of it

    async def _somebody_has(self, function_id: str, reply: str) -> bool:
        replies = await self._client.conn.request_many(
            function_who(function_id),
            codec.encode([reply]),
            timeout_s=ANSWER_S,
            stop=lambda r: bool(codec.decode(r.data)),
        )
        return any(codec.decode(reply.data) for reply in replies)

    async def _call_foreign(self, foreign: tuple[str, str], request: bytes) -> bytes:
        subject, encoding = foreign
        args, _context = codec.decode(request)
        value = args[0] if len(args) == 1 else (args or None)
        try:
            reply = await self._client.conn.request(subject, encode_foreign(value, encoding), timeout_s=600.0)
        except NoResponders:
            return failed(f"nobody serves {subject}", Kind.UNAVAILABLE, retryable=True)
        except RequestTimeout as error:
            return failed(str(error), Kind.TIMEOUT)
        headers = parse_headers(reply.raw_headers) if reply.raw_headers else {}
        code = headers.get("Nats-Service-Error-Code")
        if code is not None:
            return failed(
                headers.get("Nats-Service-Error") or f"service error {code}", service_error_kind(code), retryable=True
            )
        ok, value = codec.decode_outcome(reply.data)
        return codec.encode_success(value) if ok else codec.encode_failure(value)
