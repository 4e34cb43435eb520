"""Calls of functions by functions, by processes and by a node itself: a request, and its reply if there is one.

Nothing of such a call is kept: it lives as long as its caller. A workflow's calls are `node.workflows.calls`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import anyio

from mesh import codec
from mesh.calls import call_function
from mesh.client import Client
from mesh.connection import parse_headers
from mesh.errors import (
    Disconnected,
    InvalidName,
    NoResponders,
    PayloadTooLarge,
    RequestTimeout,
    ServerRefused,
    Undecodable,
)
from mesh.failure import Kind
from mesh.tracecontext import TraceContext
from node.functions.call_bodies import foreign_body
from node.machine.vm import Op
from node.units.outcomes import failed
from node.units.retry_option import decode_retry, merged_retry
from node.workflows.outcomes import service_error_kind

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

    async def call(
        self, function_id: str, request: bytes, stop: Stop | None = None, trace: TraceContext | None = None,
        serves: str = "",
    ) -> bytes:  # fmt: skip
        """One attempt of a call by request and reply; a host that is lost is found out by asking.

        trace: the span that it is made in. serves: as `mesh.calls.call_function` has it.
        """
        try:
            foreign = self._foreign(function_id)
            if foreign is not None:
                return await self._call_foreign(foreign, request, trace)
            outcome = await call_function(
                self._client.conn,
                function_id,
                request,
                stop_on_cancel=lambda: stop is not None and stop.asked,
                trace=trace,
                serves=serves,
            )
            codec.decode_outcome(outcome)
        except InvalidName as error:
            return failed(str(error), Kind.INVALID)
        except PayloadTooLarge as error:
            return failed(f"the arguments are too large: {error}", Kind.INVALID)
        except Undecodable as error:
            return codec.encode_failure(codec.undecodable_failure("outcome", error))
        except (Disconnected, ServerRefused) as error:
            return failed(str(error), Kind.UNAVAILABLE, retryable=True)
        else:
            return outcome

    async def call_with_retries(self, op: Op, stop: Stop, trace: TraceContext | None = None, serves: str = "") -> bytes:
        """Make the call that an op asks for, and again while it fails and its `retry` option says so; the outcome."""
        given = codec.unpack(op.options) if op.options else {}
        try:
            retry = decode_retry(merged_retry(self._call_defaults(str(op.target)).get("retry"), given.get("retry")))
        except ValueError as error:
            return failed(str(error), Kind.INVALID)
        attempt = 1
        while True:
            outcome = await self.call(str(op.target), op.payload or b"", stop, trace, serves)
            ok, failure = codec.decode_outcome(outcome)
            if ok or retry is None or not retry.again(attempt, failure):
                return outcome
            await anyio.sleep(retry.delay_s(attempt, random.random()))  # noqa: S311 - jitter
            attempt += 1

    async def _call_foreign(self, foreign: tuple[str, str], request: bytes, trace: TraceContext | None) -> bytes:
        subject, encoding = foreign
        try:
            reply = await self._client.conn.request(
                subject, foreign_body(request, encoding), timeout_s=600.0,
                headers=trace.headers if trace is not None else None,
            )  # fmt: skip
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
