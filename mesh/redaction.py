"""What is left of a text that may hold secrets, before people see it: the one place where that is decided.

Addresses and URLs lose user, password and token, and the values of their query; a text that quotes what a placeholder
stood for gets the placeholder instead. Not responsible for: who shows what (nobody logs headers, bodies or options).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

# Shorter values are looked for in quotes only: a 1 that came from a variable is no secret, and is everywhere.
_LOOSE_CHARACTERS_MIN: Final = 6
_USER = re.compile(r"(?<=//)[^/?#\s]*@")
_QUERY = re.compile(r"\?[^#\s'\"]*")
_QUOTED = re.compile(r"b?'(?:[^'\\]|\\.)*'|b?\"(?:[^\"\\]|\\.)*\"")


def with_scheme(address: str) -> str:
    """Return the address with `nats://` before it if it has no scheme."""
    return address if "://" in address else f"nats://{address}"


def without_secrets(address: str) -> str:
    """Return the address of a server without user, password and token, fit for logs and messages."""
    parts = urlsplit(with_scheme(address))
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def shown_url(url: str) -> str:
    """Return a URL, well formed or not, without user, password and the values of its query."""
    return _QUERY.sub("?...", _USER.sub("", url))


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
