"""Going down into a Lua file, token by token: where one is, what has to come, and what is said if it does not. Pure.

Not here: what may stand where (`node.machine.typed_lua`, `node.machine.type_grammar`).

Invariant: Python's stack does not grow with the nesting of the source, see `Descent._walk`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NoReturn, TypeAlias

from node.machine.lua_tokens import EOF, LINE_BREAK, NAME, TypedSyntaxError, line_of, tokenize

# Lua's own parser gives up at 200 (LUAI_MAXCCALLS) and counts at least what is counted here, minus the chunk itself.
NESTING_LEVELS_MAX: Final = 201
_EXCERPT_CHARS_MAX: Final = 40

# A walk reads one construct and yields the walks of the constructs nested in it, see `Descent._walk`.
Walk: TypeAlias = "Iterator[Walk]"


class Descent:
    """The tokens of one file and how many of them have been read."""

    def __init__(self, source: str, name: str) -> None:
        self._source = source
        self._name = name
        self._kinds, self._starts, self._ends = tokenize(source, name)
        self._at = 0

    def _walk(self, root: Walk) -> None:
        """Run a walk and all it yields, innermost first.

        This is recursive descent with the call stack on the heap. Only expressions, blocks and types nest without
        bound, so they are yielded and counted here; all else is `yield from`, of constant depth.
        """
        stack = [root]
        while stack:
            child = next(stack[-1], None)
            if child is None:
                stack.pop()
            elif len(stack) >= NESTING_LEVELS_MAX:
                self._fail(f"nested too deep: more than {NESTING_LEVELS_MAX} levels of blocks, expressions and types")
            else:
                stack.append(child)

    def _fail(self, reason: str) -> NoReturn:
        raise TypedSyntaxError(self._name, line_of(self._source, self._starts[self._at]), reason)

    def _near(self) -> str:
        if self._kinds[self._at] == EOF:
            return "near the end of the file"
        text = self._text(self._at)
        return f"near {text if len(text) <= _EXCERPT_CHARS_MAX else text[:_EXCERPT_CHARS_MAX] + '...'!r}"

    def _text(self, index: int) -> str:
        return self._source[self._starts[index] : self._ends[index]]

    def _is_word(self, word: str) -> bool:
        return self._kinds[self._at] == NAME and self._text(self._at) == word

    def _accept(self, kind: str) -> bool:
        if self._kinds[self._at] != kind:
            return False
        self._at += 1
        return True

    def _expect(self, kind: str, where: str = "") -> None:
        if not self._accept(kind):
            wanted = "a name" if kind == NAME else repr(kind)
            self._fail(f"{wanted} expected{where} {self._near()}")

    def _expect_closing(self, kind: str, opener: int) -> None:
        if self._kinds[self._at] == kind:
            self._at += 1
            return
        line = line_of(self._source, self._starts[opener])
        self._fail(f"{kind!r} expected to close {self._text(opener)!r} of line {line} {self._near()}")

    def _touches_previous(self) -> bool:
        return self._starts[self._at] == self._ends[self._at - 1]

    def _is_on_line_of(self, index: int) -> bool:
        return LINE_BREAK.search(self._source, self._ends[index], self._starts[self._at]) is None
