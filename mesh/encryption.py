"""Encrypting payloads end to end: AES-256-GCM with keys that have names and are replaced one after the other.

A *keyring* holds keys by their id. One of them, the primary, encrypts; all of them decrypt. Mostly it comes from a file
(`mesh.key_files`). A process that serves several workers has one for each and one for the rest (`Keys`).

What is encrypted with a key is not the payload itself under that key: each keyring in memory draws a salt, and the key
of AES-GCM is HKDF-SHA256 of the named key and the salt. So the 2^32 messages that a key with random nonces of 96 bits
is good for (NIST SP 800-38D) are counted per keyring and not per key; a salt is drawn anew long before.

The associated data of a ciphertext are the head of its envelope (key id and salt) and its context: a ciphertext that
was moved to another subject does not open.

The only importer of `cryptography` in `mesh/`; import it only where there are keys, as that takes its time.

Invariants: `seal` and `open` never raise; no key gets into a text, a log line or an error.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mesh.envelopes import (
    KEY_ID_BYTES_MAX,
    NONCE_BYTES,
    SALT_BYTES,
    Closed,
    encrypted_head,
    queue_token_of,
    read_encrypted,
)
from mesh.errors import MeshError, Undecodable

KEY_BYTES: Final = 32
# Of 2^28 random nonces two are the same with a probability of 2^-41.
MESSAGES_PER_SALT: Final = 2**28
# Ciphers kept for opening: one for each salt, that is for each process that has written.
CIPHERS_MAX: Final = 4096
FINGERPRINT_DIGITS: Final = 8
_INFO: Final = b"moonmesh payload 1"


class BadKeys(MeshError, ValueError):
    """Raised when a key file cannot be used. where: the file."""

    code = "bad-keys"

    def __init__(self, where: str, reason: str) -> None:
        self.where = where
        self.reason = reason
        super().__init__(f"{where}: {reason}")


class Keyring:
    """Keys by their id, one of which encrypts. Shared by all that a process connects with.

    primary: None = nothing is encrypted, everything can be read.
    """

    def __init__(self, keys: Mapping[str, bytes], primary: str | None) -> None:
        self._keys: dict[str, bytes] = {}
        self._primary: str | None = None
        self._salt = b""
        self._head = b""
        self._cipher: AESGCM | None = None
        self._left = 0
        self._ciphers: OrderedDict[tuple[str, bytes], AESGCM] = OrderedDict()
        self._listeners: list[Callable[[], None]] = []
        self.replace(keys, primary)

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self.key_ids)}; primary {self._primary})"

    @property
    def key_ids(self) -> list[str]:
        """The names of the keys."""
        return sorted(self._keys)

    @property
    def fingerprints(self) -> dict[str, str]:
        """What tells two keys of one name apart, by name; it says nothing of a key."""
        return {key_id: fingerprint(secret) for key_id, secret in sorted(self._keys.items())}

    @property
    def primary(self) -> str | None:
        """The name of the key that encrypts."""
        return self._primary

    def replace(self, keys: Mapping[str, bytes], primary: str | None) -> None:
        """Hold these keys instead, and tell those who wait for one. Raises BadKeys and changes nothing."""
        check_keys("the keyring", keys, primary)
        changed = dict(keys) != self._keys or primary != self._primary
        self._keys, self._primary = dict(keys), primary
        if changed:
            self._ciphers.clear()
            self._cipher = None
            for listener in list(self._listeners):
                listener()

    def on_change(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call listener() whenever the keys have changed; return a function that ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def holds_key_of(self, envelope: bytes) -> bool:
        """Whether the key with which an envelope was encrypted is here."""
        try:
            return read_encrypted(envelope).key_id in self._keys
        except Undecodable:
            return False

    def seal(self, context: str, payload: bytes) -> bytes:
        """The encrypted envelope of a payload; the payload itself when the keyring has no primary."""
        if self._left <= 0 or self._cipher is None:
            if self._primary is None:
                return payload
            self._draw_salt(self._primary)
        self._left -= 1
        cipher, head, nonce = self._cipher, self._head, os.urandom(NONCE_BYTES)
        if cipher is None:
            raise RuntimeError("a salt was drawn and there is no cipher")
        return head + nonce + cipher.encrypt(nonce, payload, head + context.encode("utf-8", "surrogateescape"))

    def open(self, context: str, envelope: bytes) -> bytes:
        """The payload of an encrypted envelope; the envelope as `Closed`, with the reason, if it does not open."""
        try:
            parts = read_encrypted(envelope)
        except Undecodable as error:
            return Closed.because(envelope, str(error))
        cipher = self._ciphers.get((parts.key_id, parts.salt))
        if cipher is None:
            secret = self._keys.get(parts.key_id) or self._looked_for(parts.key_id)
            if secret is None:
                return Closed.because(
                    envelope, f"encrypted with key {parts.key_id}, and key {parts.key_id} is not in the keyring"
                )
            cipher = self._ciphers[parts.key_id, parts.salt] = _cipher(secret, parts.salt)
            if len(self._ciphers) > CIPHERS_MAX:
                self._ciphers.popitem(last=False)
        try:
            return cipher.decrypt(
                parts.nonce, parts.ciphertext, parts.head + context.encode("utf-8", "surrogateescape")
            )
        except InvalidTag:
            return Closed.because(
                envelope,
                f"encrypted with key {parts.key_id} and does not open: it was changed or moved here from elsewhere, or "
                f"the keyring has another key of that name",
            )

    def _looked_for(self, _key_id: str) -> bytes | None:
        """A key that is not held, from wherever keys come from."""
        return None

    def _draw_salt(self, primary: str) -> None:
        self._salt = secrets.token_bytes(SALT_BYTES)
        self._head = encrypted_head(primary.encode("ascii"), self._salt)
        self._cipher = _cipher(self._keys[primary], self._salt)
        self._left = MESSAGES_PER_SALT


class Keys:
    """The keyrings of a process: one by default, and those of workers that have their own.

    by_queue: by the token of a worker's queue; None = what concerns that queue is not encrypted. At least one of all
    these has to be a keyring.
    """

    def __init__(self, default: Keyring | None, by_queue: Mapping[str, Keyring | None]) -> None:
        self._default = default
        self._by_queue = dict(by_queue)

    @property
    def rings(self) -> list[Keyring]:
        """All of them, each once."""
        return list({id(ring): ring for ring in (self._default, *self._by_queue.values()) if ring is not None}.values())

    def seal(self, context: str, payload: bytes) -> bytes:
        """As a keyring, with that of the queue that is concerned."""
        ring = self._ring_of(context)
        return ring.seal(context, payload) if ring is not None else payload

    def open(self, context: str, envelope: bytes) -> bytes:
        """As a keyring; whichever has the key. Where several have one of that name, that of the queue."""
        own = self._ring_of(context) or self.rings[0]
        opened = own.open(context, envelope)
        if isinstance(opened, Closed) and not own.holds_key_of(envelope):
            for ring in self.rings:
                if ring.holds_key_of(envelope):
                    return ring.open(context, envelope)
        return opened

    def ring_of_queue(self, queue_token: str) -> Keyring | None:
        """What encrypts for a queue; None = nothing does."""
        return self._by_queue.get(queue_token, self._default)

    def _ring_of(self, context: str) -> Keyring | None:
        if not self._by_queue:
            return self._default
        return self.ring_of_queue(queue_token_of(context))


def _cipher(secret: bytes, salt: bytes) -> AESGCM:
    return AESGCM(HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=_INFO).derive(secret))


def fingerprint(secret: bytes) -> str:
    """What two people compare to see that they have the same key; it says nothing of the key."""
    return hashlib.sha256(b"moonmesh key fingerprint" + secret).hexdigest()[:FINGERPRINT_DIGITS]


def check_keys(where: str, keys: Mapping[str, bytes], primary: str | None) -> None:
    """Refuse keys that cannot be used. Raises BadKeys."""
    for key_id, secret in keys.items():
        if not key_id or len(key_id) > KEY_ID_BYTES_MAX or not (key_id.isascii() and key_id.isprintable()):
            raise BadKeys(where, f"{key_id[:80]!r} is no key id: 1 to {KEY_ID_BYTES_MAX} printable ASCII characters")
        if len(secret) != KEY_BYTES:
            raise BadKeys(where, f"key {key_id} has {len(secret)} bytes; a key has {KEY_BYTES}, written in base64")
    if primary is not None and primary not in keys:
        known = ", ".join(sorted(keys)) or "none"
        raise BadKeys(where, f"primary names key {primary!r}, which is not there; the keys are: {known}")
