"""The tokens of Lua source, typed or not. Pure.

Not here: what the tokens mean (`node.machine.typed_lua`). Wrong escapes and numbers that are none are left to Lua.

Invariant: time is linear in the length of the source.
"""

from __future__ import annotations

import re
from typing import Final

NAME: Final = "<name>"
NUMBER: Final = "<number>"
STRING: Final = "<string>"
EOF: Final = "<eof>"
LOOKAHEAD: Final = 4

# `>` is always a token of its own: `A<B<C>>` closes two types, `local x: A<B>=1` one. Expressions join `>>` and `>=`.
# The repetitions are possessive, so no text makes the matcher go back and forth.
_TOKEN: Final = re.compile(
    r"""[ \t\r\n\f\v]*+(?:
      (?P<keyword> (?:and|break|do|else|elseif|end|false|for|function|goto|if|in|local|nil|not|or|repeat|return|then
                 |true|until|while)(?![A-Za-z0-9_]) )
    | (?P<name>    [A-Za-z_][A-Za-z0-9_]*+ )
    | (?P<long>    (?:--)?\[(?P<level>=*+)\[ )
    | (?P<comment> --[^\r\n]*+ )
    | (?P<number>  0[xX](?:[pP][+-]?+|[0-9A-Fa-f.])*+[A-Za-z0-9_]*+
                 | \.?[0-9](?:[eE][+-]?+|[0-9A-Fa-f.])*+[A-Za-z0-9_]*+ )
    | (?P<string>  "(?:[^"\\\r\n]|\\z[ \t\r\n\f\v]*+|\\(?:\r\n|\n\r|[\s\S]))*+"
                 | '(?:[^'\\\r\n]|\\z[ \t\r\n\f\v]*+|\\(?:\r\n|\n\r|[\s\S]))*+' )
    | (?P<symbol>  \.\.\.?+ | :: | -> | << | // | [=~<]= | [-+*/%^\#&~|<>=(){}\[\];:,.?!@] )
    | (?P<eof>     \Z )
    )""",
    re.VERBOSE,
)
_SPACE: Final = re.compile(r"[ \t\r\n\f\v]*+")
_FIRST_LINE_COMMENT: Final = re.compile(r"#[^\r\n]*+")
LINE_BREAK: Final = re.compile(r"\r\n|\n\r|\r|\n")


class TypedSyntaxError(ValueError):
    """Raised when the source is neither plain Lua nor Lua with well-formed types."""

    def __init__(self, name: str, line: int, reason: str) -> None:
        self.name = name
        self.line = line
        self.reason = reason
        super().__init__(f"{name}:{line}: {reason}")


def line_of(source: str, offset: int) -> int:
    """The number of the line that an offset is in, from 1."""
    return len(LINE_BREAK.findall(source, 0, offset)) + 1


def tokenize(source: str, name: str) -> tuple[list[str], list[int], list[int]]:
    """Return kinds, starts and ends of all tokens; the kind of a keyword or symbol is its text."""
    kinds: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    shebang = _FIRST_LINE_COMMENT.match(source)
    offset = shebang.end() if shebang else 0
    while True:
        match = _TOKEN.match(source, offset)
        if match is None:
            begin = _SPACE.match(source, offset)
            offset = begin.end() if begin else offset
            what = "unfinished string" if source[offset] in "\"'" else "unexpected symbol"
            raise TypedSyntaxError(name, line_of(source, offset), f"{what} near {source[offset]!a}")
        group = match.lastgroup or ""
        start, offset = match.span(group)
        kind = match[group]
        match group:
            case "comment":
                continue
            case "long":
                closing = f"]{match['level']}]"
                found = source.find(closing, offset)
                if found < 0:
                    what = "comment" if kind.startswith("--") else "string"
                    raise TypedSyntaxError(
                        name, line_of(source, start), f"unfinished long {what}: no {closing!r} follows"
                    )
                offset = found + len(closing)
                if kind.startswith("--"):
                    continue
                kind = STRING
            case "name":
                kind = NAME
            case "number":
                kind = NUMBER
            case "string":
                kind = STRING
            case "eof":
                # Repeated, so that looking ahead needs no care at the end.
                kinds += [EOF] * (LOOKAHEAD + 1)
                starts += [start] * (LOOKAHEAD + 1)
                ends += [start] * (LOOKAHEAD + 1)
                return kinds, starts, ends
        kinds.append(kind)
        starts.append(start)
        ends.append(offset)
