"""What a type of typed Lua looks like: reads one from the tokens of a file. Pure.

Not here: where types stand (`node.machine.typed_lua`). Nothing is erased here: whoever asked for a type erases it with
what introduced it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

from node.machine.descent import Descent, Walk
from node.machine.lua_tokens import NAME, NUMBER, STRING

LITERAL_TYPES: Final = frozenset({NUMBER, STRING, "nil", "true", "false"})
TYPE_BEGIN: Final = LITERAL_TYPES | {NAME, "(", "{", "-", "|", "&"}


class TypeGrammar(Descent, ABC):
    """Reads types. What of Lua itself may stand in one, whoever reads the rest of the file reads."""

    @abstractmethod
    def _expression(self, *, closed: bool) -> Walk:
        """Read an expression, as in `typeof(x)`; closed: no statement can begin after it."""

    @abstractmethod
    def _arguments(self) -> Walk:
        """Read the arguments of a call, as an `@attribute(...)` of a type has them."""

    def _type(self, *, may_be_many: bool = False) -> Walk:
        """Read a union or intersection; may_be_many: a list in parentheses or `...T` will do as well."""
        if self._accept("..."):
            if not may_be_many:
                self._fail("'...' cannot begin a type here")
            if self._kinds[self._at] not in TYPE_BEGIN:
                return
        if not self._accept("|"):
            self._accept("&")
        while True:
            yield from self._type_term(may_be_many=may_be_many)
            while True:
                opener = self._at
                if self._accept("["):
                    if self._kinds[self._at] != "]":
                        yield self._type()
                    self._expect_closing("]", opener)
                elif self._accept("@"):
                    self._expect(NAME)
                    if self._kinds[self._at] == "(":
                        yield from self._arguments()
                elif not self._accept("?"):
                    break
            if not self._accept("|") and not self._accept("&"):
                return

    def _type_term(self, *, may_be_many: bool) -> Walk:
        kind = self._kinds[self._at]
        if kind == NAME:
            yield from self._named_type()
        elif kind == "{":
            yield from self._table_type()
        elif kind == "(":
            yield from self._parenthesised_type(may_be_many=may_be_many)
        elif kind in LITERAL_TYPES:
            self._at += 1
        elif kind == "-" and self._kinds[self._at + 1] == NUMBER:
            self._at += 2
        else:
            self._fail(f"a type expected {self._near()}")

    def _named_type(self) -> Walk:
        opener = self._at
        self._at += 1
        if self._kinds[self._at] == "(" and self._text(opener) == "typeof":
            opener = self._at
            self._at += 1
            yield self._expression(closed=True)
            self._expect_closing(")", opener)
            return
        while self._accept("."):
            self._expect(NAME)
        opener = self._at
        if self._kinds[opener] == "<" and not (
            self._kinds[opener + 2] == ">" and self._text(opener + 1) in ("const", "close")
        ):
            self._at += 1
            yield self._type(may_be_many=True)
            while self._accept(","):
                yield self._type(may_be_many=True)
            if not self._accept(">"):
                self._fail(
                    f"'>' expected to close the type arguments {self._near()} (a cast to compare needs parentheses)"
                )

    def _table_type(self) -> Walk:
        opener = self._at
        self._at += 1
        while self._kinds[self._at] != "}":
            bracket = self._at
            if self._accept("["):
                yield self._type()
                self._expect_closing("]", bracket)
                self._expect(":")
            else:
                self._label()
            yield self._type()
            if not self._accept(",") and not self._accept(";"):
                break
        self._expect_closing("}", opener)

    def _label(self) -> bool:
        """Read `name:` or `name?:` before a type if it is there."""
        ahead = self._kinds[self._at : self._at + 3]
        length = 2 if ahead[:2] == [NAME, ":"] else 3 if ahead == [NAME, "?", ":"] else 0
        self._at += length
        return length > 0

    def _parenthesised_type(self, *, may_be_many: bool) -> Walk:
        """Read `(T)`, `(T, U) -> R`, or `(T, U)` if may_be_many."""
        opener = self._at
        self._at += 1
        is_one = True
        count = 0
        while self._kinds[self._at] != ")":
            if self._label() or self._kinds[self._at] == "...":
                is_one = False
            count += 1
            # `...: T` as in the parameters of a function, besides `...T`.
            if self._kinds[self._at] == "..." and self._kinds[self._at + 1] == ":":
                self._at += 2
            yield self._type(may_be_many=True)
            if not self._accept(","):
                break
        self._expect_closing(")", opener)
        if self._accept("->"):
            yield self._type(may_be_many=True)
        elif not may_be_many and (count != 1 or not is_one):
            self._fail(f"'->' expected after the parameters of a function type {self._near()}")

    def _return_types(self) -> Walk:
        yield self._type(may_be_many=True)
        while self._accept(","):
            yield self._type(may_be_many=True)

    def _type_parameters(self) -> Walk:
        """Read `<T, U: Bound, V = Default, P...>`."""
        self._expect("<")
        while True:
            self._expect(NAME)
            self._accept("...")
            if self._accept(":"):
                yield self._type()
            if self._accept("="):
                yield self._type(may_be_many=True)
            if not self._accept(","):
                break
        self._expect(">", " to close the type parameters")
