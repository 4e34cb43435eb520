"""Placeholders in registry values: `${env:NAME}`, `${env:NAME|fallback}`, `${NAME|fallback}` and the escape `$${`.

Pure, and about single texts: variables come through a function. Texts like `${lower}` that are none of these forms
stay as they are. What a placeholder gives is not looked at again.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from mesh.errors import MeshError

Lookup = Callable[[str], str | None]

_PLACEHOLDER = re.compile(
    r"""
      (?P<escape> \$\$\{ )
    | \$\{ env: (?P<name> [^}|]* ) (?: \| (?P<fallback> [^}]* ) )? \}
    | \$\{ (?P<short> [A-Z][A-Z0-9_]* ) (?: \| (?P<short_fallback> [^}]* ) )? \}
    | (?P<unclosed> \$\{ env: )
    """,
    re.VERBOSE,
)


class BadPlaceholder(MeshError, ValueError):
    """Raised when a placeholder has neither a value nor a fallback, or is written wrongly."""

    code = "bad-placeholder"


class Substituted(str):
    """The text of a value that was one placeholder and nothing else: it may be read as a number, bool or duration."""

    __slots__ = ()


def substitute(text: str, lookup: Lookup) -> str:
    """Replace the placeholders of one text. Raises BadPlaceholder."""
    if "${" not in text:
        return text
    whole = _PLACEHOLDER.fullmatch(text)
    if whole is not None and whole["escape"] is None:
        return Substituted(_replacement(whole, lookup))
    return _PLACEHOLDER.sub(lambda found: _replacement(found, lookup), text)


def _replacement(found: re.Match[str], lookup: Lookup) -> str:
    if found["escape"]:
        return "${"
    if found["unclosed"]:
        raise BadPlaceholder("placeholder ${env: has no closing brace; write $${ for a literal ${")
    short = found["short"] is not None
    name: str = (found["short"] if short else found["name"]).strip()
    fallback: str | None = found["short_fallback"] if short else found["fallback"]
    if not name:
        raise BadPlaceholder(f"placeholder {found[0]} names no variable")
    value = lookup(name) or fallback
    if value is None:
        raise BadPlaceholder(f"variable {name!r} has no value; set it, or write ${{env:{name}|fallback}}")
    return value
