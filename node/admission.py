"""What somebody outside of the mesh may have stored of a workflow: which headers, and nothing else than what it says.

A header can do more than its message: with `Nats-Rollup: all` the server deletes all else in the stream, others make
schedules, let messages expire, or keep back those of others (`Nats-Msg-Id`); and those of ours say who has sent a
message or that it happened elsewhere. Permissions of NATS see subjects only. So clients, and services that answer a
workflow's call (`function.nats`), do not reach the stream: what they publish is looked at here, by a list of what may
pass.

Pure. Not here: taking and passing on (`node.intake`).
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Final, NamedTuple

from mesh import codec
from mesh.errors import MeshError, Undecodable
from mesh.events import HEADER_HOST, HEADER_INTAKE, HEADER_ONCE, HEADER_WORKFLOW, NotForOthers, decode_start
from mesh.subjects import of_intake, token
from mesh.wire import CRLF, REQUEST_INFO

# Whatever begins so means something to a server, now or in a later version, or to us; upper and lower case alike.
_RESERVED: Final = (b"nats-", b"mesh-")
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_SEQUENCE: Final = re.compile(rb"\d{1,20}")

_EXPECTED: Final = b"Nats-Expected-Last-Subject-Sequence"
_MSG_ID: Final = b"Nats-Msg-Id"
# Of the reserved ones, what each kind may have.
_ADMITTED: Final = {
    "start": frozenset({_EXPECTED, _MSG_ID, HEADER_WORKFLOW.encode(), HEADER_HOST.encode()}),
    "signal": frozenset({_MSG_ID, HEADER_ONCE.encode()}),
    "cancel": frozenset({_MSG_ID}),
    "ret": frozenset({b"Nats-Service-Error", b"Nats-Service-Error-Code"}),
}
# Where all others are left out instead of refused: a service that answers hears of no refusal and does not answer
# again, and some send back the headers of the request.
_LEFT_OUT: Final = frozenset({"ret"})
_FROM_OUTSIDE: Final = f"{HEADER_INTAKE}: 1".encode()
# So that no identity of outside is one of a workflow's messages (`<queue>/<id>/<run>/<n>`), or of another account's.
OUTSIDE: Final = "outside"
_ID_BYTES: Final = 16
_ACCOUNT_LETTERS_MAX: Final = 64  # the public key of an account has 56


class NotAdmitted(MeshError):
    """Raised when a message is not passed on. reason: why, as a clause without what varies."""

    code = "not-admitted"

    def __init__(self, reason: str, what: str) -> None:
        self.reason = reason
        self.what = what
        super().__init__(f"{what!r} {reason}")


class Admitted(NamedTuple):
    """A message as it may be stored: where, and with which headers. Its payload is what came."""

    subject: str
    headers: bytes | None


def admit(subject: str, data: bytes, raw_headers: bytes | None) -> Admitted:
    """What a message on a `mesh.in` subject becomes. Raises NotAdmitted."""
    target = of_intake(subject)
    if target is None:
        raise NotAdmitted("is no start, signal, cancel or outcome, or its id is not written as ids are", subject)
    kind = target.split(".", 5)[4]
    lines = _admitted_lines(kind, target, raw_headers)
    if kind == "start":
        if data[:1] == codec.MARKER:
            _check_start(data)
        lines.append(_FROM_OUTSIDE)
    return Admitted(target, CRLF.join((b"NATS/1.0", *lines, b"", b"")) if lines else None)


def _check_start(data: bytes) -> None:
    """Refuse early what would be refused by whoever reads the start; what cannot be read here he will judge."""
    try:
        decode_start(data, {HEADER_INTAKE: "1"})
    except NotForOthers as error:
        raise NotAdmitted(f"is no start for others: {error}", "start") from error
    except Undecodable:
        return


def _admitted_lines(kind: str, target: str, raw_headers: bytes | None) -> list[bytes]:
    lines: list[bytes] = []
    given = _read(raw_headers) if raw_headers is not None else []
    infos = [value for name, value in given if name == REQUEST_INFO]
    author = f"{OUTSIDE}/{_account(infos[-1])}" if infos else OUTSIDE
    reserved: set[bytes] = set()
    for name, value in given:
        if name == REQUEST_INFO:
            continue
        if not name.lower().startswith(_RESERVED):
            lines.append(b"%s: %s" % (name, value))
            continue
        if name not in _ADMITTED[kind] and kind in _LEFT_OUT:
            continue
        if name not in _ADMITTED[kind] or name in reserved:
            raise NotAdmitted(f"is no header that others may set, or set twice, in a {kind}", name.decode())
        reserved.add(name)
        lines.append(b"%s: %s" % (name, _value_of_reserved(name, value, target, author)))
    return lines


def _read(raw_headers: bytes) -> list[tuple[bytes, bytes]]:
    given = []
    for line in raw_headers.split(CRLF)[1:]:
        if not line:
            continue
        name, colon, value = line.partition(b":")
        if not colon or _NAME.fullmatch(name) is None or _CONTROL.search(value) is not None:
            raise NotAdmitted("cannot be read as a header", line[:80].decode("utf-8", "replace"))
        given.append((name, value.strip()))
    return given


def _account(info: bytes) -> str:
    """The account that the server names, as one token; "" when it names none."""
    try:
        said = json.loads(info)
    except (ValueError, RecursionError):
        return ""
    account = said.get("acc") if isinstance(said, dict) else None
    return token(account) if isinstance(account, str) and 0 < len(account) <= _ACCOUNT_LETTERS_MAX else ""


def _value_of_reserved(name: bytes, value: bytes, target: str, author: str) -> bytes:
    if name == _EXPECTED and _SEQUENCE.fullmatch(value) is None:
        raise NotAdmitted("is no sequence that could be expected", value[:80].decode("utf-8", "replace"))
    if name == HEADER_ONCE.encode():
        return b"%s/%s" % (author.encode(), value)
    if name == _MSG_ID:
        # The server keeps one list of them for the whole stream: bound to account and subject, none holds back others.
        bound = f"{author} {target} ".encode("utf-8", "surrogateescape") + value
        return f"{OUTSIDE}/{hashlib.blake2b(bound, digest_size=_ID_BYTES).hexdigest()}".encode()
    return value
