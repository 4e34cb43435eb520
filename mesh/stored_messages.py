"""A message as a stream keeps it, read from what the server answers to whoever asks for one.

There are two answers: that of any copy of the stream, which has the message as it is and puts what it knows of it into
headers behind the message's own (ADR-31), and that of the stream's leader, which is JSON. What a stream publishes once
it is stored has such headers, too.

Pure. Not here: asking (`mesh.stream_reads`), and opening what is encrypted or lies in an object store.

Invariants: headers that the message was stored with are never taken for those that the server adds, whatever their
names; what is no such answer raises Undecodable and nothing else.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from mesh.errors import Undecodable
from mesh.instants import timestamp_ns_of
from mesh.wire import parse_headers

# The server puts these lines, in this order, behind the headers of the stored message; anchored at the end, so that
# headers of the same names in the message cannot be taken for them.
_DIRECT = re.compile(
    rb"Nats-Subject: ([^\r]*)\r\nNats-Sequence: (\d{1,20})\r\nNats-Time-Stamp: ([^\r]*)\r\n"
    rb"(?:Nats-Num-Pending: (\d{1,20})\r\nNats-Last-Sequence: \d+\r\n)?\r\n\Z"
)
_STORED = re.compile(
    rb"Nats-Stream: [^\r]*\r\nNats-Subject: ([^\r]*)\r\nNats-Sequence: (\d{1,20})\r\nNats-Time-Stamp: [^\r]*\r\n"
    rb"Nats-Last-Sequence: (\d{1,20})\r\n\r\n\Z"
)
_STREAM_LINE = re.compile(rb"Nats-Stream: [^\r]*\r\n\Z")
_MARKER = re.compile(rb"\r\n(?:KV-Operation: (?:DEL|PURGE)|Nats-Marker-Reason: [^\r]*)\r\n", re.IGNORECASE)
_NO_HEADERS = b"NATS/1.0\r\n"


class StoredMessage(NamedTuple):
    """A message of a stream. After a direct read raw_headers end with the server's Nats-Subject and so on."""

    subject: str
    seq: int
    timestamp_ns: int
    data: bytes
    raw_headers: bytes | None


class StoredAs(NamedTuple):
    """What the server says of a message that a stream publishes once it is stored.

    last_seq: the sequence that the last message of the subject had before, 0 = there was none.
    """

    subject: str
    seq: int
    last_seq: int


def stored_as(raw_headers: bytes | None) -> StoredAs | None:
    """Return what the server has added to a message that it publishes once it is stored; None if it has not."""
    said = _STORED.search(raw_headers or b"")
    if said is None:
        return None
    return StoredAs(said[1].decode("utf-8", "surrogateescape"), int(said[2]), int(said[3]))


def direct_message(data: bytes, raw_headers: bytes | None) -> tuple[StoredMessage, int]:
    """Return a message that any copy of a stream has answered with, and how many come after it in its batch."""
    raw = raw_headers or b""
    found = _DIRECT.search(raw)
    if found is None:
        raise Undecodable(f"a direct read without the server's headers: {parse_headers(raw)}")
    subject, seq, time, pending = found.groups()
    try:
        at_ns = timestamp_ns_of(time.decode())
    except ValueError as error:
        raise Undecodable(f"a direct read with a time that is none: {time!r}") from error
    message = StoredMessage(subject.decode("utf-8", "surrogateescape"), int(seq), at_ns, data, raw)
    return message, int(pending or 0)


def leaders_message(message: Mapping[str, Any]) -> StoredMessage:
    """Return the message that a stream's leader has answered with: the `message` of its JSON."""
    headers = message.get("hdrs")
    return StoredMessage(
        str(message["subject"]),
        int(message["seq"]),
        timestamp_ns_of(str(message["time"])),
        base64.b64decode(message.get("data", "")),
        base64.b64decode(headers) if headers else None,
    )


def is_marker(raw_headers: bytes | None) -> bool:
    """Whether a message of a bucket says that the key is gone: deleted, purged or expired."""
    return raw_headers is not None and _MARKER.search(raw_headers) is not None


def own_headers(raw_headers: bytes | None) -> bytes | None:
    """The headers a message was stored with, without those that a direct read has added; None when it had none."""
    if raw_headers is None:
        return None
    added = _DIRECT.search(raw_headers)
    if added is None:
        return raw_headers
    own = raw_headers[: added.start()]
    stream = _STREAM_LINE.search(own)
    if stream is not None:
        own = own[: stream.start()]
    return own + b"\r\n" if own != _NO_HEADERS else None
