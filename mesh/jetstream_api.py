"""Requests to the JSON API of JetStream, and what the server's refusals mean to us.

Everything is a raw request, because nats-py's own layer drops fields it does not know, lacks batched reads and writes,
and misreads keys whose time is over.

Not here: what is asked for. What only reads is `mesh.stream_reads`, what writes `mesh.jetstream`.

Invariants: server errors become our classes in one place, `error_of`. An answer is JSON of the server and its fields
are the server's business: whoever asks makes typed values of them, and nothing untyped goes further.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from mesh.connection import Connection
from mesh.errors import (
    Conflict,
    MeshError,
    NotFound,
    NotReady,
    PayloadTooLarge,
    RequestTimeout,
    ServerRefused,
    Undecodable,
)

TIMEOUT_S = 5.0
ASK_AGAIN_S = 1.0
_READS = ("INFO", "STREAM.INFO.", "STREAM.NAMES", "STREAM.LIST", "STREAM.MSG.GET.", "CONSUMER.INFO.")

# err_code numbers of nats-server 2.15 (server/errors.json) that have a class of ours.
_CONFLICT = frozenset({10071, 10164})
_NOT_FOUND = frozenset({10014, 10037, 10043, 10057, 10059})
_NO_MESSAGE = frozenset({10037, 10043, 10057})
_TOO_LARGE = frozenset({10054})
# A message that is written again under its id while a cluster has not agreed on the first copy: it may come to nothing.
_NOT_YET = frozenset({10158})
_NO_PEERS = 10005  # for a stream's copies; that a server is away (`peer offline`) passes, other reasons do not
_ACCOUNT_HAS_NO_JETSTREAM = 10039  # said with a code of 503, but that will not change by itself
SERVER_AT_FAULT = 500  # `code` of an error, as in HTTP: from here on it is the server that cannot

Config = Mapping[str, Any]  # the server's JSON; its fields are the server's business


class JetStreamApi:
    """The API over one connection. timeout_s is per request, where a call does not say another."""

    def __init__(self, conn: Connection, *, timeout_s: float = TIMEOUT_S) -> None:
        self.conn = conn
        self.api_prefix = conn.js_api_prefix
        self.timeout_s = timeout_s

    async def api(self, request: str, body: Config | None = None, *, timeout_s: float | None = None) -> Config:
        """Call `$JS.API.<request>` and return the answer's JSON; its `error` is raised as ours (`error_of`)."""
        answer = await self._ask(request, body, timeout_s)
        if "error" in answer:
            raise error_of(f"{self.api_prefix}.{request}", answer["error"])
        return answer

    async def ask_for_message(self, request: str, body: Config) -> Config | None:
        """Return the answer, None if the stream has no such message. Raises NotFound if there is no such stream."""
        answer = await self._ask(request, body)
        if "error" not in answer:
            return answer
        if answer["error"].get("err_code") in _NO_MESSAGE:
            return None
        raise error_of(f"{self.api_prefix}.{request}", answer["error"])

    async def _ask(self, request: str, body: Config | None = None, timeout_s: float | None = None) -> Config:
        """Return the answer, which may be an `error`.

        A cluster without a leader does not answer at all. What only reads is therefore asked again and again, so that
        it is answered as soon as there is a leader, and not a time limit later.
        """
        subject = f"{self.api_prefix}.{request}"
        payload = b"" if body is None else dump(body)
        timeout_s = timeout_s or self.timeout_s
        left_s = timeout_s
        if request.startswith(_READS):
            while left_s > ASK_AGAIN_S:
                with suppress(RequestTimeout):
                    return json_answer(subject, (await self.conn.request(subject, payload, timeout_s=ASK_AGAIN_S)).data)
                left_s -= ASK_AGAIN_S
        try:
            return json_answer(subject, (await self.conn.request(subject, payload, timeout_s=left_s)).data)
        except RequestTimeout:
            raise RequestTimeout(subject, timeout_s) from None


def error_of(subject: str, error: Config, *, expected: int = -1, size: int = 0, limit: int = 0) -> MeshError:
    """Map the `error` object of a server's answer to one of our errors. expected: what a Conflict is about."""
    err_code = int(error.get("err_code", 0))
    description = str(error.get("description", ""))
    if err_code in _CONFLICT:
        return Conflict(subject, expected, description)
    if err_code in _NOT_FOUND:
        return NotFound(f"{subject}: {description}")
    if err_code in _TOO_LARGE:
        return PayloadTooLarge(subject, size, limit)
    if err_code in _NOT_YET or (err_code == _NO_PEERS and "offline" in description):
        return NotReady(subject, err_code, description)
    if int(error.get("code", 0)) >= SERVER_AT_FAULT and err_code != _ACCOUNT_HAS_NO_JETSTREAM:
        return NotReady(subject, err_code, description)
    return ServerRefused(subject, err_code, description)


def dump(body: Config) -> bytes:
    """A request as the API takes it."""
    return json.dumps(body).encode()


def json_answer(subject: str, data: bytes) -> dict[str, Any]:
    """What an answer to a request on this subject says. Raises Undecodable."""
    try:
        answer = json.loads(data)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise Undecodable(f"{subject}: the answer is no JSON object: {data[:80]!r}")
    return answer
