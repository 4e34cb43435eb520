"""A server's operator, an account with JetStream and a user of it, as JSON web tokens: what `nsc` makes, for one test."""

from __future__ import annotations

import base64
import json
import secrets
from pathlib import Path
from typing import Any

import nkeys

UNLIMITED = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1) | {"wildcards": True}
STORAGE = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)


class _Key:
    def __init__(self, prefix: int) -> None:
        self.seed: bytes = nkeys.encode_seed(secrets.token_bytes(32), prefix)
        self._pair: Any = nkeys.from_seed(bytearray(self.seed))
        self.public: str = self._pair.public_key.decode()

    def token(self, subject: str, kind: str, claims: dict[str, Any]) -> str:
        """A token about a subject, signed by this key."""
        payload = {
            "jti": secrets.token_hex(16), "iat": 1_700_000_000, "iss": self.public, "name": kind, "sub": subject,
            "nats": {**claims, "type": kind, "version": 2},
        }  # fmt: skip
        text = f"{_encoded({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{_encoded(payload)}"
        return f"{text}.{_base64(self._pair.sign(text.encode()))}"


def write_credentials(creds: Path) -> str:
    """Write the credentials file of a user; return the lines of the server's configuration that go with it."""
    operator, account, system, user = (
        _Key(prefix)
        for prefix in (
            nkeys.PREFIX_BYTE_OPERATOR,
            nkeys.PREFIX_BYTE_ACCOUNT,
            nkeys.PREFIX_BYTE_ACCOUNT,
            nkeys.PREFIX_BYTE_USER,
        )
    )
    token = account.token(user.public, "user", {"subs": -1, "data": -1, "payload": -1})
    creds.write_text(
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
    )
    accounts = {
        account.public: operator.token(account.public, "account", {"limits": UNLIMITED | STORAGE}),
        system.public: operator.token(system.public, "account", {"limits": UNLIMITED}),
    }
    preloaded = "\n".join(f"{public}: {text}" for public, text in accounts.items())
    return f"""
operator: {operator.token(operator.public, "operator", {})}
system_account: {system.public}
resolver: MEMORY
resolver_preload {{
{preloaded}
}}
"""


def _encoded(value: dict[str, Any]) -> str:
    return _base64(json.dumps(value).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
