"""The NATS text protocol: encoding what is sent, parsing what comes in, and the header block of a message.

Not here: sockets, subscriptions, reconnecting (`mesh.connection`). Nothing here waits or keeps time; a `Parser` is a
value that bytes are pushed into. It parses many messages out of one buffer and calls plain functions: no task, no
queue and no message object per message. That is what makes it several times faster than the client's own parser,
which runs up to seven regular expressions and moves the rest of the buffer for every message.

Invariants: bytes split at any place give the same calls in the same order. A handler that raises is logged and
does no harm to the messages after it. Headers are parsed only when somebody asks.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping

from mesh.errors import InvalidName, Undecodable

# Called as handler(subject, reply, data, raw_headers): reply is "" for none, raw_headers None for none. Bytes of a
# subject that are no UTF-8 are surrogates, as in the ids and topics that are read from it.
Handler = Callable[[str, str, bytes, bytes | None], None]

# Headers of a message: a mapping, or a block already made by `encode_headers` for what is sent more than once.
Headers = Mapping[str, str] | bytes

# The server's own limit for a control line is 4 KiB, but an INFO line with the addresses of a large cluster is longer.
CONTROL_LINE_BYTES_MAX = 1024 * 1024

# And by default it hangs up on whoever writes a longer one; the rest of the line is short.
SUBJECT_BYTES_MAX = 3900  # of a subject and its reply together

CRLF = b"\r\n"
PING = b"PING\r\n"
PONG = b"PONG\r\n"

# The server says in it from which account a request came, and removes what the sender has written there.
REQUEST_INFO = b"Nats-Request-Info"

_VERSION = b"NATS/1.0"
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_DENIED = re.compile(r"Permissions Violation for (Publish|Subscription) to \"([^\"]+)\"", re.IGNORECASE)
_LETTER_M = ord("M")
_LETTER_H = ord("H")

_log = logging.getLogger(__name__)


class Parser:
    """Parses the server's half of a connection and hands each message to the handler of its subscription.

    handlers: by subscription id as it stands on the wire. The dict is shared with its owner, who adds and removes
    while messages are parsed; a message for an id that is not in it is dropped.
    on_line: called with every other line (PING, PONG, INFO ..., +OK, -ERR ...), without its end.
    """

    __slots__ = ("_chunks", "_handlers", "_have", "_need", "_on_line")

    def __init__(self, handlers: Mapping[bytes, Handler], on_line: Callable[[bytes], None]) -> None:
        self._handlers = handlers
        self._on_line = on_line
        self._chunks: list[bytes] = []
        self._have = 0
        self._need = 0

    def feed(self, data: bytes) -> None:
        """Parse what has come in. Raises Undecodable when the other side does not speak NATS."""
        if self._chunks:
            # Chunks are joined once there is enough, so that a large payload in many reads costs linear time.
            self._chunks.append(data)
            self._have += len(data)
            if self._have < self._need:
                return
            data = b"".join(self._chunks)
            self._chunks.clear()
        try:
            position, need = self._parse(data)
        except (ValueError, IndexError) as error:
            raise Undecodable(f"the server sent something that is no NATS protocol: {error}") from error
        if position < len(data):
            self._chunks.append(data[position:])
            self._have = len(data) - position
            self._need = need

    def _parse(self, data: bytes) -> tuple[int, int]:
        """Parse all complete messages; return where the incomplete one begins and how many bytes it needs at least."""
        position = 0
        size = len(data)
        find = data.find
        get_handler = self._handlers.get
        while position < size:
            line_end = find(CRLF, position)
            if line_end < 0:
                if size - position > CONTROL_LINE_BYTES_MAX:
                    raise ValueError(f"a line of more than {CONTROL_LINE_BYTES_MAX} bytes")
                return position, size - position + 1
            letter = data[position]
            if letter == _LETTER_M:
                parts = data[position + 4 : line_end].split(b" ")
                start = line_end + 2
                body = start
                if len(parts) == 4:
                    subject, sid, reply, length = parts
                else:
                    subject, sid, length = parts
                    reply = b""
            elif letter == _LETTER_H:
                parts = data[position + 5 : line_end].split(b" ")
                start = line_end + 2
                if len(parts) == 5:
                    subject, sid, reply, header_length, length = parts
                else:
                    subject, sid, header_length, length = parts
                    reply = b""
                body = start + int(header_length)
            else:
                line = data[position:line_end]
                position = line_end + 2
                self._on_line(line)
                continue
            end = start + int(length)
            if end + 2 > size:
                return position, end + 2 - position
            position = end + 2
            handler = get_handler(sid)
            if handler is None:
                continue
            try:
                # The server delivers subjects of any bytes. What is no text is passed on all the same: who follows a
                # stream must not miss a message. On a reply subject that nobody may write there is nobody to answer.
                answer_to = reply.decode("utf-8", "surrogateescape")
                if len(reply) > SUBJECT_BYTES_MAX or not answer_to.isprintable():
                    answer_to = ""
                text = subject.decode("utf-8", "surrogateescape")
                handler(text, answer_to, data[body:end], None if body == start else data[start:body])
            except Exception:
                _log.exception("a message handler failed, subject %r", subject)
        return position, 0


def check_subject(subject: str) -> None:
    """Raise InvalidName if the text could break a protocol line. The shape of tokens is left to `mesh.subjects`."""
    size = len(subject.encode("utf-8", "surrogatepass"))
    if size > SUBJECT_BYTES_MAX:
        raise InvalidName(f"{subject[:80]!r}... is too long for a subject: {size} bytes, at most {SUBJECT_BYTES_MAX}")
    if not subject or " " in subject or not subject.isprintable():
        raise InvalidName(f"{subject!r} is no subject: it is empty or has a blank or a control character in it")


def encode_headers(headers: Mapping[str, str]) -> bytes:
    """Encode a header block (ADR-4). Raises InvalidName for a name or value that cannot stand in one."""
    lines = [_VERSION]
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise InvalidName(f"{name!r} is no header name")
        if "\r" in value or "\n" in value:
            raise InvalidName(f"header {name}: a value is one line, this has a line break: {value[:80]!r}")
        lines.append(f"{name}: {value}".encode("utf-8", "surrogateescape"))
    lines.append(b"\r\n")
    return CRLF.join(lines)


def parse_headers(raw: bytes | None) -> dict[str, str]:
    """Decode a header block. Of a name that comes twice the first value counts; broken UTF-8 becomes U+FFFD."""
    headers: dict[str, str] = {}
    if raw is None:
        return headers
    for line in raw.split(CRLF)[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            headers.setdefault(name.decode("utf-8", "replace").strip(), value.decode("utf-8", "replace").strip())
    return headers


def status_of(raw: bytes | None) -> tuple[int | None, str]:
    """Return the inline status of a header block as (code, description), (None, "") if it has none."""
    if raw is None or not raw.startswith(b"NATS/1.0 "):
        return None, ""
    code, _, description = raw[len(_VERSION) + 1 : raw.find(CRLF)].strip().partition(b" ")
    if len(code) != 3 or not code.isdigit():  # anybody may write a header block
        return None, ""
    return int(code), description.decode("utf-8", "replace").strip()


def is_no_responders(data: bytes, raw: bytes | None) -> bool:
    """Whether a reply is the server's notice that nobody listens on the subject of the request."""
    return raw is not None and not data and raw.startswith(b"NATS/1.0 503")


def is_from_another_account(raw_headers: bytes | None) -> bool:
    """Whether a message came by way of an import into another account; the server has said so in its headers."""
    return raw_headers is not None and b"\r\n%s:" % REQUEST_INFO in raw_headers


def denied_subject(error: str) -> tuple[str, str] | None:
    """Return ("publish" or "subscription", subject) if the server's error text is a refusal of permission."""
    found = _DENIED.search(error)
    return (found[1].lower(), found[2]) if found else None
