"""Ciphers, tokens, derived keys and randomness from a seed, for the Lua module `crypto`.

Responsible for: pure functions over bytes, called by the kernel through `node.machine.host_functions`. Arguments were
checked in `node/lua/crypto.lua`. What can fail answers `(value, None, None)` or `(None, kind, text)`; nothing raises.
Not responsible for: where seeds, nonces and the time come from; they are arguments.

Importing this module takes a tenth of a second (cryptography, jwt): `node.machine.host_functions` does it on first use.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final, TypeAlias

import jwt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from jwt.algorithms import HMACAlgorithm, RSAAlgorithm

Answer: TypeAlias = "tuple[bytes, None, None] | tuple[None, bytes, bytes]"

NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
_INVALID: Final = b"Invalid"
_INTERNAL: Final = b"Internal"

_CIPHERS: Final[dict[bytes, type[AESGCM] | type[ChaCha20Poly1305]]] = {b"aes": AESGCM, b"chacha20": ChaCha20Poly1305}


# -- randomness ----------------------------------------------------------------------------------------------------


def random_bytes(seed: bytes, number: int, n: int) -> bytes:
    """Draw n bytes: the same for the same seed and number, and no way from them to those of another number."""
    return hashlib.shake_256(b"moonmesh crypto %d %d\0" % (len(seed), number) + seed).digest(n)


def random_text(seed: bytes, number: int, n: int, charset: bytes) -> bytes:
    """Draw n characters of a charset of 1 to 256 characters (single bytes when it is no UTF-8)."""
    characters = charset.decode("utf-8", "surrogateescape")
    size = len(characters)
    # Bytes beyond the last multiple of the size are thrown away: else the first characters would be likelier.
    fair = 256 - 256 % size
    beyond = bytes(range(fair, 256))
    as_index = bytes(i % size for i in range(256))
    enough = n * 256 // fair + 64
    drawn = b""
    while len(drawn) < n:
        drawn = random_bytes(seed, number, enough).translate(as_index, beyond)
        enough *= 2
    text = drawn[:n].decode("latin-1").translate(dict(enumerate(characters)))
    return text.encode("utf-8", "surrogateescape")


# -- ciphers -------------------------------------------------------------------------------------------------------


def encrypt(cipher: bytes, key: bytes, nonce: bytes, data: bytes, aad: bytes) -> Answer:
    """Encrypt and authenticate; the nonce stands in front of the result."""
    return nonce + _CIPHERS[cipher](key).encrypt(nonce, data, aad or None), None, None


def decrypt(cipher: bytes, key: bytes, data: bytes, aad: bytes) -> Answer:
    """Undo `encrypt`."""
    if len(data) < NONCE_BYTES + TAG_BYTES:
        text = f"the data is too short: nonce and tag take {NONCE_BYTES + TAG_BYTES} bytes, it has {len(data)}"
        return None, _INVALID, text.encode()
    try:
        return _CIPHERS[cipher](key).decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], aad or None), None, None
    except InvalidTag:
        return None, _INTERNAL, b"the check failed: another key or aad, or the data was changed"


# -- derived keys --------------------------------------------------------------------------------------------------


def pbkdf2(digest: bytes, password: bytes, salt: bytes, iterations: int, length: int) -> bytes:
    """Derive a key. Takes about 0.3 s per million iterations and lets other threads run meanwhile."""
    return hashlib.pbkdf2_hmac(digest.decode(), password, salt, iterations, length)


# -- tokens --------------------------------------------------------------------------------------------------------


class _Hmac(HMACAlgorithm):
    """Takes keys of any length, without the library's warning: how long a secret is, is its owner's affair."""

    def check_key_length(self, _key: bytes) -> str | None:
        return None


class _Rsa(RSAAlgorithm):
    def check_key_length(self, _key: object) -> str | None:
        return None

    def verify(self, msg: bytes, key: Any, sig: bytes) -> bool:
        # Whoever holds the private key may check with it.
        return super().verify(msg, key.public_key() if isinstance(key, RSAPrivateKey) else key, sig)


def _signer() -> jwt.PyJWS:
    signer = jwt.PyJWS(algorithms=[])
    for name, algorithm in (
        ("HS256", _Hmac(_Hmac.SHA256)),
        ("HS384", _Hmac(_Hmac.SHA384)),
        ("HS512", _Hmac(_Hmac.SHA512)),
        ("RS256", _Rsa(_Rsa.SHA256)),
    ):
        if name in signer.get_algorithms():
            signer.unregister_algorithm(name)
        signer.register_algorithm(name, algorithm)
    return signer


# The half of the library that signs and checks bytes. Claims are checked here: the library's half for them knows only
# the process' clock, and refuses whole numbers as `sub`.
_SIGNER: Final = _signer()


def jwt_encode(claims: bytes, key: bytes, algorithm: bytes, header: bytes) -> Answer:
    """Sign claims (a JSON object). header: a JSON object of more header fields; `alg` in it is ignored."""
    fields: dict[str, Any] = json.loads(header)
    # `alg` says what was done; `b64` and `crit` would change the form of the token.
    for name in ("alg", "b64", "crit"):
        fields.pop(name, None)
    try:
        token = _SIGNER.encode(claims, key, algorithm=algorithm.decode(), headers=fields)
    except (jwt.PyJWTError, TypeError, ValueError, AttributeError) as error:  # what bad keys and headers raise
        return None, _INVALID, _unusable(algorithm, error)
    return token.encode(), None, None


def jwt_verify(token: bytes, key: bytes, algorithm: bytes, require_exp: bool, now_ns: int) -> Answer:
    """Check a token and answer its claims as JSON. `exp` and `nbf` are held against the given time."""
    try:
        _SIGNER.get_algorithm_by_name(algorithm.decode()).prepare_key(key)
    except (jwt.PyJWTError, TypeError, ValueError) as error:
        return None, _INVALID, _unusable(algorithm, error)
    try:
        payload: bytes = _SIGNER.decode(token, key, algorithms=[algorithm.decode()])
        claims = json.loads(payload)
    except (jwt.PyJWTError, TypeError, ValueError, RecursionError, AttributeError) as error:
        return None, _INTERNAL, f"the token is not valid: {error}".encode("utf-8", "replace")
    problem = _claims_problem(claims, require_exp, now_ns / 1e9)
    if problem:
        return None, _INTERNAL, f"the token is not valid: {problem}".encode()
    return payload, None, None


def _claims_problem(claims: object, require_exp: bool, now_s: float) -> str | None:
    if not isinstance(claims, dict):
        return "its claims are no object"
    for name in ("exp", "nbf"):
        value = claims.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            return f"{name} must be a number of seconds"
    exp, nbf = claims.get("exp"), claims.get("nbf")
    if exp is None and require_exp:
        return "it has no exp, which is required"
    if exp is not None and now_s >= exp:
        return "it has expired"
    if nbf is not None and now_s < nbf:
        return "it is not valid yet (nbf)"
    return None


def _unusable(algorithm: bytes, error: Exception) -> bytes:
    return f"the key or header cannot be used with {algorithm.decode()}: {error}".encode("utf-8", "replace")
