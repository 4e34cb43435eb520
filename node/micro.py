"""A NATS micro service (ADR-32): what `nats micro ls`, `info` and `stats` ask about, and how it answers with an error.

Only the discovery side. Requests themselves are taken by whoever owns the endpoints; nats-py's own service framework
handles one request at a time, sends replies that fail the official schemas, and cannot drain.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from mesh import codec
from mesh.connection import Connection, DirectSubscription
from mesh.errors import Disconnected, Undecodable
from mesh.subjects import may_be_answered

API_PREFIX: Final = "io.nats.micro.v1"
QUEUE_GROUP: Final = "q"  # the default of ADR-32
HEADER_ERROR: Final = "Nats-Service-Error"
HEADER_ERROR_CODE: Final = "Nats-Service-Error-Code"
ERROR_CHARACTERS_MAX: Final = 200


@dataclass(slots=True)
class Endpoint:
    """One endpoint and its statistics. Times in ns, as ADR-32 has them. metadata: what callers may want to know."""

    name: str
    subject: str
    queue_group: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    requests: int = 0
    errors: int = 0
    last_error: str = ""
    processing_ns: int = 0

    def note(self, took_s: float, *, failed: bool, outcome: bytes) -> None:
        """Count one request by its outcome."""
        self.requests += 1
        self.processing_ns += int(took_s * 1e9)
        if failed:
            try:
                error = str(codec.decode_outcome(outcome)[1])
            except Undecodable:
                error = "?"
            self._failed(error)

    def count(self, took_s: float, error: str = "") -> None:
        """Count one request. error: why it failed, "" when it did not."""
        self.requests += 1
        self.processing_ns += int(took_s * 1e9)
        if error:
            self._failed(error)

    def _failed(self, error: str) -> None:
        self.errors += 1
        self.last_error = error[:ERROR_CHARACTERS_MAX]


class MicroService:
    """Answers PING, INFO and STATS for one service instance."""

    def __init__(
        self, conn: Connection, *, name: str, version: str, description: str, metadata: Mapping[str, str]
    ) -> None:
        self._conn = conn
        self.name = name
        self.id = secrets.token_hex(11)
        self._version = version
        self._description = description
        self._metadata = dict(metadata)
        self._started = datetime.now(UTC)
        self._endpoints: list[Endpoint] = []
        self._subscriptions: list[DirectSubscription] = []

    def add(
        self, what: str, subject: str, queue_group: str = QUEUE_GROUP, *, metadata: Mapping[str, str] | None = None
    ) -> Endpoint:
        """Announce an endpoint. Its name is what it serves (a function's id), in characters that ADR-32 allows."""
        name = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in what)
        endpoint = Endpoint(name, subject, queue_group, dict(metadata or {}))
        self._endpoints.append(endpoint)
        return endpoint

    def start(self) -> None:
        """Begin to answer."""
        for verb, answer in (("PING", self._ping), ("INFO", self._info), ("STATS", self._stats)):
            for subject in (f"$SRV.{verb}", f"$SRV.{verb}.{self.name}", f"$SRV.{verb}.{self.name}.{self.id}"):

                def on_request(
                    _subject: str, reply: str, _data: bytes, _raw_headers: bytes | None, answer: Any = answer
                ) -> None:
                    if reply and may_be_answered(reply, outcomes=False):
                        try:
                            self._conn.publish_nowait(reply, json.dumps(answer()).encode())
                        except Disconnected:
                            return

                self._subscriptions.append(self._conn.subscribe_direct(subject, on_request))

    def stop(self) -> None:
        """Answer no more."""
        for subscription in self._subscriptions:
            subscription.unsubscribe()
        self._subscriptions.clear()

    def _base(self, kind: str) -> dict[str, Any]:
        return {
            "type": f"{API_PREFIX}.{kind}", "name": self.name, "id": self.id, "version": self._version,
            "metadata": self._metadata,
        }  # fmt: skip

    def _told(self, error: str) -> str:
        """An error as everybody may hear it: where payloads are encrypted, not what users wrote."""
        return error if self._conn.codec is None else "encrypted" * bool(error)

    def _ping(self) -> dict[str, Any]:
        return self._base("ping_response")

    def _info(self) -> dict[str, Any]:
        endpoints = [
            {"name": e.name, "subject": e.subject, "queue_group": e.queue_group, "metadata": dict(e.metadata)}
            for e in self._endpoints
        ]
        return {**self._base("info_response"), "description": self._description, "endpoints": endpoints}

    def _stats(self) -> dict[str, Any]:
        endpoints = [
            {
                "name": e.name, "subject": e.subject, "queue_group": e.queue_group, "num_requests": e.requests,
                "num_errors": e.errors, "last_error": self._told(e.last_error), "processing_time": e.processing_ns,
                "average_processing_time": e.processing_ns // e.requests if e.requests else 0,
            }
            for e in self._endpoints
        ]  # fmt: skip
        return {
            **self._base("stats_response"),
            "started": self._started.isoformat().replace("+00:00", "Z"),
            "endpoints": endpoints,
        }


def error_headers(code: int, text: str) -> dict[str, str]:
    """The headers of an answer that is an error. The text goes on one line."""
    line = " ".join(text.split())
    shown = "".join(c if c.isprintable() and c.isascii() else "?" for c in line)
    return {HEADER_ERROR: shown or "error", HEADER_ERROR_CODE: str(code)}
