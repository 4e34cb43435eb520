"""What becomes of the tokens of a Lua file: they stay, become blank, or are written otherwise for the machine. Pure.

Not here: which ones (`node.machine.typed_lua`).

Invariant: without the edits for the machine, a text has the length and the lines of its source.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

JOIN: Final = "_MOONMESH_JOIN"  # the function that stands for `..`; the machine makes it known to the code

_BLANK, _SEMICOLON = 1, 2  # marks of tokens; 0 = stays
_ERASED: Final = bytes((_BLANK,))
_ALL_BUT_LINE_BREAKS: Final = re.compile(r"[^\r\n]")


class Edits:
    """The edits of one source, whose tokens begin and end at these offsets."""

    def __init__(self, source: str, starts: Sequence[int], ends: Sequence[int]) -> None:
        self._source = source
        self._starts = starts
        self._ends = ends
        self._marks = bytearray(len(starts))
        # Per token: what stands before it and after it in the text for the machine; `..` tokens that become commas.
        self._before: dict[int, str] = {}
        self._after: dict[int, str] = {}
        self._commas: set[int] = set()

    def erase(self, first: int, end: int) -> None:
        """Make the tokens from `first` to the one before `end` blank."""
        self._marks[first:end] = _ERASED * (end - first)

    def part(self, first: int) -> None:
        """Let an erased token leave a semicolon: what stands before and after it is not one statement."""
        self._marks[first] = _SEMICOLON

    def join(self, first: int, last: int, joins: Sequence[int]) -> None:
        """Call JOIN for a chain of `..`, those tokens, which reaches from token `first` to `last`."""
        while self._marks[last]:
            last -= 1  # a cast that was erased
        for index in (first, joins[-1] + 1):
            self._before.setdefault(index, "")
        # The chain inside of another one begins later and ends earlier, except where both begin with one token.
        self._before[first] = f"({JOIN}({self._before[first]}"
        self._before[joins[-1] + 1] = "(" + self._before[joins[-1] + 1]
        self._after[last] = self._after.get(last, "") + ")))"
        self._commas.update(joins)

    def text(self, *, joins_called: bool = False) -> str:
        """The edited text; joins_called: with what is only for the machine."""
        pieces: list[str] = []
        done = 0
        edited = self._commas | self._before.keys() | self._after.keys() if joins_called else set()
        for index, mark in enumerate(self._marks):
            if mark or index in edited:
                start, end = self._starts[index], self._ends[index]
                text = self._source[start:end]
                if mark:
                    blank = _ALL_BUT_LINE_BREAKS.sub(" ", text)
                    text = blank if mark == _BLANK else ";" + blank[1:]
                elif index in self._commas:
                    text = ","
                if index in edited:
                    text = self._before.get(index, "") + text + self._after.get(index, "")
                pieces += (self._source[done:start], text)
                done = end
        return "".join(pieces) + self._source[done:]
