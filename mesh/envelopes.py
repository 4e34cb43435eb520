"""Envelopes: payloads that are not what they say on the wire, but hold it in another form.

A payload that begins with the bytes C1 C1 is an envelope: 0xC1 never begins a msgpack value, so no payload of ours
(0xC1 and one msgpack value) begins so, and neither does JSON or text. The third byte says what kind it is:

    01  encrypted:  C1 C1 01 <length of the key id> <key id> <salt, 16> <nonce, 12> <AES-GCM ciphertext and tag>
    02  reference:  C1 C1 02 <where the payload is>, for payloads that are too large for a message

Envelopes are made and opened where bytes enter and leave: `Connection.publish_nowait` makes those that are encrypted,
`Follower`, `JetStream` and whoever takes requests open them. What decides sees plain payloads only; should it come
across an envelope all the same, nobody here could open it, and `codec.decode` says so.

What an encrypted payload is bound to (its *context*, the associated data of AES-GCM) follows from the subject by
`context_of`, in one place for both sides: `mesh.wf.<queue>.<id>.<kind...>` for all that is stored of a workflow,
whatever the stream calls it. Subjects that have no context carry no values of users and are not encrypted.

Pure.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from mesh.errors import Undecodable

ENVELOPE: Final = b"\xc1\xc1"
ENCRYPTED: Final = ENVELOPE + b"\x01"
REFERENCE: Final = ENVELOPE + b"\x02"

KEY_ID_BYTES_MAX: Final = 64
SALT_BYTES: Final = 16
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
_FIXED: Final = SALT_BYTES + NONCE_BYTES + TAG_BYTES

# What an encrypted envelope takes besides its payload, with the longest key id.
ENVELOPE_BYTES: Final = len(ENCRYPTED) + 1 + KEY_ID_BYTES_MAX + _FIXED

# What is compared with a header in plain, and is nobody's value: who brought a history in (`mesh.imported`).
_RESUMED: Final = ".resume"
# Of what happens to a workflow, what has a body with values in it. The others name things, or have none.
_WITH_VALUES: Final = frozenset({"start", "signal", "ret", "exit", "mark", "attrs", "kill", "end"})


class Unopened(Undecodable):
    """Raised when a payload is an envelope that could not be opened here. reason: why, as a clause; what: of what."""

    code = "unopened"

    def __init__(self, reason: str, what: str = "it") -> None:
        self.reason = reason
        super().__init__(f"{what} is {reason}")


class Opened(bytes):
    """A payload that came in encrypted: whoever has sent it has the key."""


class Closed(bytes):
    """An envelope that somebody has tried to open, with the reason why that was not possible.

    for_ever: nobody will ever open it, as it is none of ours.
    """

    reason: str
    for_ever: bool

    @classmethod
    def because(cls, data: bytes, reason: str, *, for_ever: bool = False) -> Closed:
        """The same bytes, with the reason."""
        closed = cls(data)
        closed.reason, closed.for_ever = reason, for_ever
        return closed


class PayloadCodec(Protocol):
    """What encrypts the payloads of a connection (`mesh.encryption.Keyring`)."""

    def seal(self, context: str, payload: bytes) -> bytes:
        """The envelope of a payload, bound to its context; the payload itself where nothing is to be encrypted."""

    def open(self, context: str, envelope: bytes) -> bytes:
        """The payload in an encrypted envelope; the envelope as `Closed` when that is not possible."""


class EncryptedEnvelope(NamedTuple):
    """An encrypted envelope, taken apart. head: all that stands before the nonce, which is authenticated, too."""

    key_id: str
    head: bytes
    salt: bytes
    nonce: bytes
    ciphertext: bytes


def read_encrypted(data: bytes) -> EncryptedEnvelope:
    """Take an encrypted envelope apart. Raises Undecodable."""
    if data[:3] != ENCRYPTED:
        raise Undecodable("no encrypted envelope: it does not begin with C1 C1 01")
    length = data[3] if len(data) > 3 else 0
    if not 0 < length <= KEY_ID_BYTES_MAX or len(data) < 4 + length + _FIXED:
        raise Undecodable(f"a damaged envelope: {len(data)} bytes, with a key id of {length}")
    try:
        key_id = data[4 : 4 + length].decode("ascii")
    except UnicodeDecodeError:
        key_id = ""
    if not key_id.isprintable() or not key_id:
        raise Undecodable("a damaged envelope: its key id is no printable ASCII")
    salt_at = 4 + length
    nonce_at = salt_at + SALT_BYTES
    body_at = nonce_at + NONCE_BYTES
    return EncryptedEnvelope(key_id, data[:nonce_at], data[salt_at:nonce_at], data[nonce_at:body_at], data[body_at:])


def encrypted_head(key_id: bytes, salt: bytes) -> bytes:
    """How an encrypted envelope begins: all that stands before its nonce."""
    return ENCRYPTED + bytes((len(key_id),)) + key_id + salt


def why_closed(data: bytes) -> str | None:
    """Why bytes cannot be read: they are an envelope that was not opened. None when they are no envelope."""
    if data[:2] != ENVELOPE:
        return None
    if isinstance(data, Closed):
        return data.reason
    if data[:3] == REFERENCE:
        return "kept in an object store and was not fetched"
    try:
        return f"encrypted with key {read_encrypted(data).key_id}"
    except Undecodable as error:
        return str(error)


def why_unread(data: bytes) -> str | None:
    """The same of bytes that had to be opened here: nobody has tried to where there are no keys, and that is why."""
    reason = why_closed(data)
    if data[:3] == ENCRYPTED and not isinstance(data, Closed):
        return f"{reason}, and there are no keys here; give the node --keys FILE"
    return reason


def may_open_later(data: bytes) -> bool:
    """Whether bytes are an envelope that another keyring would open, or a reference to what can be fetched."""
    if data[:3] != ENCRYPTED:
        return data[:3] == REFERENCE and not (isinstance(data, Closed) and data.for_ever)
    try:
        read_encrypted(data)
    except Undecodable:
        return False
    return True


def context_of(subject: str, reply: str = "") -> str:
    """What a payload on this subject is bound to; "" when payloads there are not encrypted.

    reply: of a function's request, or what the call is asked after by. A schedule is bound to the start it makes.
    """
    if subject.startswith("mesh.log."):
        parts = subject.split(".", 6)
        if len(parts) < 6 or parts[5] not in _WITH_VALUES:
            return ""
        return _of_workflow(f"mesh.wf.{parts[2]}.{parts[4]}.{'.'.join(parts[5:])}", parts[5])
    if subject.startswith("mesh.wf."):
        parts = subject.split(".", 5)
        return _of_workflow(subject, parts[4]) if len(parts) > 4 and parts[4] in _WITH_VALUES else ""
    if subject.startswith("mesh.fn."):
        return request_context(subject, reply)
    if subject.startswith("mesh.at."):
        parts = subject.split(".")
        return f"mesh.wf.{parts[2]}.{parts[4]}.start" if len(parts) == 5 and parts[3] in ("cron", "paused") else ""
    if subject.startswith("mesh.node."):
        return subject if subject.endswith(".unit") else ""
    if subject.startswith("mesh.note."):
        return subject if subject.endswith(".suspended") else ""
    if subject.startswith(("mesh.mq.", "mesh.events.", "mesh.logs.", "mesh.api.")):
        return subject
    return ""


def _of_workflow(subject: str, kind: str) -> str:
    return "" if kind == "mark" and subject.endswith(_RESUMED) else subject


def request_context(subject: str, identity: str) -> str:
    """What the request of a call is bound to: the function and what the call is asked after by."""
    return f"{subject} {identity}"


def outcome_context(identity: str) -> str:
    """What the outcome of a call is bound to: what the call is asked after by, which for a workflow is its subject."""
    return identity if identity.startswith("mesh.wf.") else f"outcome {identity}"


def answer_context(subject: str) -> str:
    """What the answer to a request on this subject is bound to."""
    return f"answer {subject}"


def queue_token_of(context: str) -> str:
    """The token of the queue that a context names; "" when it names none."""
    for part in context.split(" "):
        if part.startswith(("mesh.wf.", "mesh.note.", "mesh.queue.")):
            return part.split(".", 3)[2]
    return ""
