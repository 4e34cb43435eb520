"""What is left of a text that may hold secrets, before people see it: the one place where that is decided.

Addresses and URLs lose user, password and token, and the values of their query; a text that quotes what a placeholder
stood for gets the placeholder instead. Not responsible for: who shows what (nobody logs headers, bodies or options).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

# Shorter values are looked for in quotes only: a 1 that came from a variable is no secret, and is everywhere.
_LOOSE_CHARACTERS_MIN: Final = 6
_USER = re.compile(r"(?<=//)[^/?#\s]*@")
_END_OF_HOST = re.compile(r"[/?#\s]")
_QUERY = re.compile(r"\?[^#\s'\"]*")
_QUOTED = re.compile(r"b?'(?:[^'\\]|\\.)*'|b?\"(?:[^\"\\]|\\.)*\"")


def with_scheme(address: str) -> str:
    """Return the address with `nats://` before it if it has no scheme."""
    return address if "://" in address else f"nats://{address}"


def without_secrets(address: str) -> str:
    """Return the address of a server without user, password and token, fit for logs and messages."""
    scheme, _, rest = with_scheme(address).partition("://")
    # An address has nothing behind its host: whatever stands before the last @ is a user, escaped as it must be or not.
    host = _END_OF_HOST.split(rest.rpartition("@")[2], maxsplit=1)[0]
    return f"{scheme}://{host if _has_sound_port(host) else host.rpartition(':')[0]}"


def shown_url(url: str) -> str:
    """Return a URL, well formed or not, without user, password and the values of its query."""
    scheme, slashes, rest = url.partition("//")
    host = _END_OF_HOST.split(rest, maxsplit=1)[0]
    if "@" not in host and not _has_sound_port(host):
        # No port, but a password with characters that should have been escaped.
        rest = rest.rpartition("@")[2]
    return _QUERY.sub("?...", _USER.sub("", f"{scheme}{slashes}{rest}"))


def _has_sound_port(host: str) -> bool:
    _, colon, port = host.rpartition(":")
    return not colon or port.isdecimal() or host.endswith("]")


def shown_text(text: str) -> str:
    """Return a text of a library with the URLs in it as `shown_url` shows one."""
    return _QUERY.sub("?...", _USER.sub("", text))


def without_quotes(reason: str) -> str:
    """Return a library's message without what it quotes: a header that cannot be sent, say."""
    return _QUOTED.sub("'...'", reason)


def unresolved(text: str, placeholders: Mapping[str, str]) -> str:
    """Return a text with the placeholder in place of each value that it quotes. placeholders: by value."""
    for value in sorted(placeholders, key=len, reverse=True):
        if value:
            text = text.replace(repr(value), repr(placeholders[value]))
            if len(value) >= _LOOSE_CHARACTERS_MIN:
                text = text.replace(value, placeholders[value])
    return text
