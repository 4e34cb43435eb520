"""Asking the control API (`mesh.api.<verb>`, docs/api.md): a JSON object out, a record back.

For what only a node knows, and for whoever may do nothing but ask. Which verbs there are is in `node.api.endpoints`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from mesh.connection import Connection
from mesh.errors import MeshError, NoResponders, Undecodable
from mesh.subjects import api_request
from mesh.wire import parse_headers

TIMEOUT_S: Final = 10.0
_CODE: Final = "Nats-Service-Error-Code"


class ApiError(MeshError):
    """Raised when the control API refused a request. status: as docs/api.md lists them. error: the rest of it."""

    code = "api-error"

    def __init__(self, verb: str, status: int, error: Mapping[str, Any]) -> None:
        self.verb = verb
        self.status = status
        self.error = dict(error)
        super().__init__(str(error.get("message") or f"mesh.api.{verb} was refused with {status}"))


class NoApi(MeshError):
    """Raised when no node serves a verb of the control API."""

    code = "no-api"

    def __init__(self, verb: str) -> None:
        super().__init__(f"no node serves mesh.api.{verb}; start one with `mesh node APP`")


async def ask_api(conn: Connection, verb: str, fields: Mapping[str, Any], *, timeout_s: float = TIMEOUT_S) -> Any:
    """Ask for a verb and return its record. Raises ApiError, NoApi, RequestTimeout, Disconnected."""
    subject = api_request(verb)
    try:
        reply = await conn.request(subject, json.dumps(fields).encode(), timeout_s=timeout_s)
    except NoResponders:
        raise NoApi(verb) from None
    try:
        answer = json.loads(reply.data)
    except ValueError:
        raise Undecodable(f"{subject}: the answer is no JSON: {reply.data[:80]!r}") from None
    headers = parse_headers(reply.raw_headers) if reply.raw_headers else {}
    if _CODE in headers:
        error = answer.get("error") if isinstance(answer, dict) else None
        status = int(headers[_CODE]) if headers[_CODE].isdecimal() else 500
        raise ApiError(verb, status, error if isinstance(error, dict) else {})
    return answer
