"""Erase type annotations from Lua source, so that plain Lua 5.4 can load it.

Responsible for: finding every piece of typed syntax in a file and blanking it (`erase`); making every `..` a call, so
that the machine can see how long texts get (`erase_for_machine`). Not responsible for: what a type looks like
(`node.machine.type_grammar`), checking types, reading files, judging plain Lua (a wrong escape, an unknown label, a
`break` outside a loop are left to Lua).

Invariants:

* The result of `erase` has the length of the source, and every character of it is the source's own, or a blank
  (rarely a `;`, see below) where typed syntax stood. So tokens keep line and column, comments stay, and plain Lua comes
  out as it is.
* The only exception that leaves this module is `TypedSyntaxError`.
* Time is linear in the length of the source: nothing is read twice to find out what it means; at most four tokens of
  lookahead decide. Python's stack does not grow with the nesting of the source (`node.machine.descent`).

How doubtful cases are decided. "Closed" means that no statement can begin after the expression: inside brackets, in the
conditions of `if` and `while`, in the head of `for`, after `return`.

* `type X` and `export type X` begin no statement of plain Lua, so that is all it takes; `type(x)`, `type = f` and
  `type.x = 1` stay.
* `x :: name ::` is a label after `x`, unless the expression is closed or another `name ::` follows: `x :: T ::label::`
  is a cast and then a label. Two casts in a row need parentheses.
* `x as ...` is a cast if a type can begin there. Plain Lua allows `x = y as(z)`, meaning two statements. Such a call of
  the function `as` is seen when `as` begins a line and `(`, `{` or a string follows; on one line it is a cast.
* `<` after the name of a type opens type arguments, except `<const>` and `<close>`: write `(x as T) < y` to compare.
  `|` and `&` after a cast belong to the type too.
* A `(` that begins the statement after a cast or a type statement would become a call of what stood before, once the
  types are gone. The erased text then holds a `;`.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

from node.machine.descent import Walk
from node.machine.lua_tokens import EOF, LOOKAHEAD, NAME, NUMBER, STRING
from node.machine.source_edits import JOIN, Edits
from node.machine.type_grammar import TYPE_BEGIN, TypeGrammar


def erase_for_machine(source: str, name: str) -> str:
    """The same as `erase`, and `a .. b .. c` becomes a call `(JOIN(a , b , (c)))`. Lines stay, columns do not.

    `..` is the one thing in Lua that makes long texts without a call, so the one that a limit could not see.
    The operands are evaluated in the same order. In parentheses: a tail call would hide the line an error is about.
    """
    if ".." not in source:
        return erase(source, name)
    return _Eraser(source, name).run().text(joins_called=True)


def erase(source: str, name: str) -> str:
    """Return `source` with its typed syntax blanked; plain Lua comes back unchanged.

    name: how messages call the file, `name:line: reason`.
    Raises TypedSyntaxError if the source cannot be read or is nested deeper than Lua would allow.
    """
    return _Eraser(source, name).run().text()


_BLOCK_END: Final = frozenset({"end", "else", "elseif", "until", EOF})
_UNARY: Final = frozenset({"not", "-", "#", "~"})
_ARITHMETIC: Final = frozenset({"+", "-", "*", "/", "//", "%", "^", "..", "<<", "&", "|", "~"})
_BINARY: Final = _ARITHMETIC | {"==", "~=", "<", "<=", ">", "and", "or"}
# What binds as tightly as `..` or more; a chain of joins ends where any other operator stands.
_IN_JOIN: Final = frozenset({"+", "-", "*", "/", "//", "%", "^", ".."})
_LITERALS: Final = frozenset({NUMBER, STRING, "nil", "true", "false", "..."})
_CALL_BEGIN: Final = frozenset({"(", "{", STRING})


class _Eraser(TypeGrammar):
    """Reads one file from the first token to the last and marks the tokens to erase."""

    def __init__(self, source: str, name: str) -> None:
        super().__init__(source, name)
        self._edits = Edits(source, self._starts, self._ends)

    def run(self) -> Edits:
        self._walk(self._chunk())
        return self._edits

    def _erase_from(self, first: int) -> None:
        self._edits.erase(first, self._at)

    def _part_from_parenthesis(self, first: int) -> None:
        """Leave a semicolon in the text erased since token `first` if a call would come about otherwise."""
        if self._kinds[self._at] == "(":
            self._edits.part(first)

    # Statements

    def _chunk(self) -> Walk:
        yield self._block()
        if self._kinds[self._at] != EOF:
            self._fail(f"unexpected {self._text(self._at)!r}: no block is open")

    def _block(self) -> Walk:
        while (kind := self._kinds[self._at]) not in _BLOCK_END:
            if kind == ";":
                self._at += 1
            elif kind == "return":
                self._at += 1
                if self._kinds[self._at] not in _BLOCK_END and self._kinds[self._at] != ";":
                    yield from self._expressions(closed=True)
                self._accept(";")
                if self._kinds[self._at] not in _BLOCK_END:
                    self._fail(f"the block should end after 'return', but goes on {self._near()}")
                return
            else:
                yield from self._statement(kind)

    def _statement(self, kind: str) -> Walk:
        opener = self._at
        match kind:
            case "local":
                self._at += 1
                yield from self._local()
            case "if":
                while self._kinds[self._at] in ("if", "elseif"):
                    self._at += 1
                    yield self._expression(closed=True)
                    self._expect("then")
                    yield self._block()
                if self._accept("else"):
                    yield self._block()
                self._expect_closing("end", opener)
            case "for":
                yield from self._for()
            case "function":
                self._at += 1
                self._expect(NAME)
                while self._accept("."):
                    self._expect(NAME)
                if self._accept(":"):
                    self._expect(NAME)
                yield from self._function_body(opener)
            case "while":
                self._at += 1
                yield self._expression(closed=True)
                self._expect("do")
                yield self._block()
                self._expect_closing("end", opener)
            case "do":
                self._at += 1
                yield self._block()
                self._expect_closing("end", opener)
            case "repeat":
                self._at += 1
                yield self._block()
                self._expect_closing("until", opener)
                yield self._expression(closed=False)
            case "break":
                self._at += 1
            case "goto":
                self._at += 1
                self._expect(NAME)
            case "::":
                self._at += 1
                self._expect(NAME)
                self._expect("::")
            case _ if (words := self._words_before_type_name()) > 0:
                self._at += words
                yield from self._type_statement(opener)
            case _:
                yield from self._call_or_assignment()

    def _words_before_type_name(self) -> int:
        """Return how many words (`type`, `export type`) precede the name if a type statement begins here, else 0."""
        words = 2 if self._is_word("export") else 1
        ahead = self._kinds[self._at : self._at + words + 1]
        return words if ahead == [NAME] * (words + 1) and self._text(self._at + words - 1) == "type" else 0

    def _type_statement(self, first: int) -> Walk:
        self._expect(NAME)
        if self._kinds[self._at] == "<":
            yield from self._type_parameters()
        self._expect("=", " in the type statement")
        yield self._type()
        self._erase_from(first)
        self._part_from_parenthesis(first)

    def _local(self) -> Walk:
        opener = self._at
        if self._accept("function"):
            self._expect(NAME)
            yield from self._function_body(opener)
            return
        while True:
            self._expect(NAME)
            has_attribute = self._attribute()
            yield from self._annotation()
            if not has_attribute:
                self._attribute()
            if not self._accept(","):
                break
        if self._accept("="):
            yield from self._expressions(closed=False)

    def _attribute(self) -> bool:
        if not self._accept("<"):
            return False
        self._expect(NAME)
        self._expect(">")
        return True

    def _annotation(self) -> Walk:
        """Erase `: T` if it is there."""
        first = self._at
        if self._accept(":"):
            yield self._type()
            self._erase_from(first)

    def _for(self) -> Walk:
        opener = self._at
        self._at += 1
        yield from self._names()
        if not self._accept("="):
            self._expect("in")
        yield from self._expressions(closed=True)
        self._expect("do")
        yield self._block()
        self._expect_closing("end", opener)

    def _names(self) -> Walk:
        while True:
            self._expect(NAME)
            yield from self._annotation()
            if not self._accept(","):
                return

    def _function_body(self, opener: int) -> Walk:
        first = self._at
        if self._kinds[self._at] == "<":
            yield from self._type_parameters()
            self._erase_from(first)
        self._expect("(")
        while self._kinds[self._at] != ")":
            if not self._accept("..."):
                self._expect(NAME, " as a parameter")
            yield from self._annotation()
            if not self._accept(","):
                break
        self._expect(")")
        first = self._at
        if self._accept(":"):
            yield from self._return_types()
            self._erase_from(first)
        yield self._block()
        self._expect_closing("end", opener)

    def _call_or_assignment(self) -> Walk:
        is_call = yield from self._suffixed()
        if self._kinds[self._at] in ("=", ","):
            while self._accept(","):
                yield from self._suffixed()
            self._expect("=")
            yield from self._expressions(closed=False)
        elif not is_call:
            self._fail(f"a statement cannot go on {self._near()}")

    # Expressions

    def _expressions(self, *, closed: bool) -> Walk:
        yield self._expression(closed=closed)
        while self._accept(","):
            yield self._expression(closed=closed)

    def _expression(self, *, closed: bool) -> Walk:
        """Read operands and operators in a row; who binds tighter makes no difference to what is erased."""
        kinds = self._kinds
        chain = self._at
        joins: list[int] = []
        while True:
            while kinds[self._at] in _UNARY:
                self._at += 1
            kind = kinds[self._at]
            if kind in _LITERALS:
                self._at += 1
            elif kind == "{":
                yield from self._table()
            elif kind == "function":
                self._at += 1
                yield from self._function_body(self._at - 1)
            else:
                yield from self._suffixed()
            cast = None
            while True:
                if kinds[self._at] == "!":
                    self._non_nil()
                elif self._is_cast(closed=closed):
                    cast = self._at
                    self._at += 1
                    yield self._type()
                    self._erase_from(cast)
                else:
                    break
            if cast is not None and not closed:
                self._part_from_parenthesis(cast)
            kind = kinds[self._at]
            if joins and kind not in _IN_JOIN:
                self._edits.join(chain, self._at - 1, joins)
                joins = []
            if kind not in _BINARY:
                return
            if kind == "..":
                joins.append(self._at)
            self._at += 1
            if kind == ">" and kinds[self._at] in (">", "=") and self._touches_previous():
                self._at += 1
            if kind not in _IN_JOIN:
                chain = self._at

    def _is_cast(self, *, closed: bool) -> bool:
        """Tell whether the token after an operand begins a cast; the module's docstring has the rules."""
        kind, second, third, fourth, fifth = self._kinds[self._at : self._at + LOOKAHEAD + 1]
        if kind == "::":
            return closed or not (second == NAME and third == "::" and not (fourth == NAME and fifth == "::"))
        if kind != NAME or self._text(self._at) != "as":
            return False
        if closed:
            return True
        return second in TYPE_BEGIN and (second not in _CALL_BEGIN or self._is_on_line_of(self._at - 1))

    def _non_nil(self) -> None:
        first = self._at
        self._at += 1
        if self._kinds[self._at] == "=" and self._touches_previous():
            self._fail("'!=' is not an operator of Lua: write '~='")
        self._erase_from(first)

    def _suffixed(self) -> Generator[Walk, None, bool]:
        """Read a name or parenthesis and all that is attached to it; return whether the last of it is a call."""
        opener = self._at
        if self._accept("("):
            yield self._expression(closed=True)
            self._expect_closing(")", opener)
        elif not self._accept(NAME):
            self._fail(f"an expression or a statement cannot begin {self._near()}")
        elif self._text(opener) == JOIN:
            self._at = opener
            self._fail(f"{JOIN} is a name of the machine's own")
        is_call = False
        while True:
            kind = self._kinds[self._at]
            if kind == ".":
                self._at += 1
                self._expect(NAME)
                is_call = False
            elif kind == "[":
                opener = self._at
                self._at += 1
                yield self._expression(closed=True)
                self._expect_closing("]", opener)
                is_call = False
            elif kind in _CALL_BEGIN:
                yield from self._arguments()
                is_call = True
            elif kind == ":":
                self._at += 1
                self._expect(NAME)
                if self._kinds[self._at] not in _CALL_BEGIN:
                    self._fail(f"call of method {self._text(self._at - 1)!r} expected (only local names take a type)")
                yield from self._arguments()
                is_call = True
            elif kind == "!":
                self._non_nil()
            else:
                return is_call

    def _arguments(self) -> Walk:
        opener = self._at
        if self._accept("("):
            if self._kinds[self._at] != ")":
                yield from self._expressions(closed=True)
            self._expect_closing(")", opener)
        elif not self._accept(STRING):
            yield from self._table()

    def _table(self) -> Walk:
        opener = self._at
        self._expect("{")
        while self._kinds[self._at] != "}":
            bracket = self._at
            if self._accept("["):
                yield self._expression(closed=True)
                self._expect_closing("]", bracket)
                self._expect("=")
            elif self._kinds[self._at] == NAME and self._kinds[self._at + 1] == "=":
                self._at += 2
            yield self._expression(closed=True)
            if not self._accept(",") and not self._accept(";"):
                break
        self._expect_closing("}", opener)
