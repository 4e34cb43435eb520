"""Typed syntax is erased, plain Lua is not touched, and real Lua has the last word on every result."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

import pytest
from hypothesis import example, given, note
from hypothesis import strategies as st
from lupa.lua54 import LuaRuntime

from node.machine.descent import NESTING_LEVELS_MAX
from node.machine.lua_tokens import TypedSyntaxError
from node.machine.typed_lua import erase

# Typed syntax in tables and generated programs stands between these two; `«;` = a semicolon takes its first place.
OPEN, CLOSE = "«", "»"


def typed(marked: str) -> str:
    """The source as a user writes it."""
    return marked.replace("«;", "«").replace(OPEN, "").replace(CLOSE, "")


def blanked(marked: str) -> str:
    """The source with each marked part replaced by blanks, or by a semicolon and blanks if it begins with one."""

    def blank(match: re.Match[str]) -> str:
        text = match[1]
        semicolon = text.startswith(";")
        spaces = re.sub(r"[^\n]", " ", text[1:] if semicolon else text)
        return ";" + spaces[1:] if semicolon else spaces

    return re.sub(f"{OPEN}([^{CLOSE}]*){CLOSE}", blank, marked)


@cache
def _lua() -> Any:
    return LuaRuntime(encoding=None)


def why_not_lua(source: str) -> str:
    """Lua's complaint about a chunk, empty if it loads."""
    load = _lua().eval(b"function(s) local f, e = load(s, '@f.lua') return f and '' or e end")
    return bytes(load(source.encode())).decode(errors="replace")


def assert_loads(actual: str, expected: str) -> None:
    """The result is the expected one, and Lua loads it."""
    assert actual == expected
    assert why_not_lua(actual) == ""


@pytest.mark.parametrize(
    "marked",
    [
        # local names
        "local n«: number» = 1",
        "local n«:number»=1",
        "local n«: number»",
        "local a«: T», b«: U» = 1, 2",
        "local a, b«: U», c = 1, 2",
        "local a«: T» <const> = 1",
        "local a <const>«: T» = 1",
        "local a«: T?» <close>, b <const>«: A<B>» = nil, 2",
        "local a«: A<B>»=1",
        "local a«: A<B<C>>»=1",
        "local a«: A<B<C<D>>>» = 1",
        "local as«: type», type«: as», export«: export» = 1, 2, 3",
        # functions
        "function f(a«: T», b«: U?», ...«: V»)«: T» return a, b, ... end",
        "function f()«: (T, U)» return 1, 2 end",
        "function f()«: ()» end",
        "function f()«: T, U» return 1, 2 end",
        "function f()«: (T, ...U)» end",
        "function f()«: ...T» end",
        "function f()«: (A) -> (B, C)» return g end",
        "function f()«: (A) -> B | C» return g end",
        "function f()«: T»\n(g)()\nend",
        "function f()«: (T)»\n(g)()\nend",
        "function f()«: T» ::l:: goto l end",
        "function f«<T>»(a«: T»)«: U» return a end",
        "function f«<T: Bound, U = { x: T }, V...>»(a«: T») return a end",
        "function a.b.c«<T>»(x«: T»)«: T» return x end",
        "function a.b:c(x«: T»)«: T» return x end",
        "local function f«<T>»(a«: T»)«: T» return a end",
        "local f«: (number) -> number» = function«<T>»(x«: number»)«: number» return x end",
        "f(function(a«: T»)«: T» return a end, function()«: U» end)",
        "local t = { f = function(a«: T»)«: U» end, g = function() end }",
        # loops
        "for i«: number» = 1, 2 do end",
        "for k«: K», v«: { V }» in pairs(t) do end",
        "for k, v«: V?» in pairs(t) do end",
        # casts
        "local x = y« as T»",
        "local x = y «:: T»",
        "local x = y« as T» + z« as U», 1 «:: V»",
        "return x« as T»",
        "return (x «:: T»).y, (x« as A.B»):m()",
        "x.y[z« as T»] = (w« as T»)[1]",
        "local t = { a« as T», b = c« as T»; [d« as T»] = e «:: T», }",
        "if x« as T» then elseif y «:: U» then end",
        "while x« as T» do end",
        "repeat local x = 1 until x« as T»",
        "for i = 1« as T», n «:: T» do end",
        "return -x« as T» ^ 2, not y« as U», #z «:: V» == 1",
        "return {}« as {T}», function() end« as () -> ()», 'a'« as string», nil« as T?», ...",
        "return x« as A | B»",
        "return x« as T» > y, x« as A<B>» >= y, x« as A<B<C>>» >> y, x« as A<B>»>=y",
        "return (x« as T») < y",
        "return f(x\n  « as { T }»)",
        "local x = y« as (T) -> U»",
        "local x = y« as { T }»",
        "local x = y« as 'lit'»",
        "local x = as« as as»",
        # The one case where plain Lua means something else: two statements on a line, the second a call of `as`.
        "x = y« as (z)»",
        "return x« as typeof(y as T)»",
        "return x« :: A :: B»",
        "return (x« :: A» « :: B»)",
        # casts and the next statement
        "local x = y« as T»\nas = 1",
        "local x = y« :: T»\n::l::\ngoto l",
        "local x = y« :: T» ::l:: goto l",
        "local x = y« :: T» ::l:: ::m::",
        "local x = y« :: T» ::l:: f()",
        "x = y «;as T»\n(f)()",
        "x = y «;:: T»\n(f)()",
        "x = y «;as T»«!»\n(f)()",
        "repeat until y «;as T»\n(f)()",
        "g(function() x = y «;as T» (f)() end)",
        "local x«: T»\n(f)()",
        # non-nil
        "return x«!»",
        "return x«!».y«!».z, x«!»:m()«!», f(x«!»)«!», x«!»[1]«!», (x«!»).y",
        "return x«!» == y«!», x«!»~=y, x«!»==y",
        "x«!».y = z«!»",
        "x« !» = 1",
        "f()«!»",
        "return x«!»« as T», x« as T»«!»",
        # type statements
        "«type T = number»",
        "«export type T = number»",
        "«type T<K, V> = { [K]: V }»\nlocal x«: T<string, number>» = {}",
        "«type T = A\n  | B\n  | C»\nlocal x = 1",
        "«type T =\n  | 'a'\n  | 'b'»\nf()",
        "x = y\n«;type T = A»\n(f)()",
        "«type type = as»\n«type as = export»",
        "do «type T = {}» end",
        # `type`, `as`, `export` as names
        "local t = type(x)\ntype = t\ntype.x = 1\ntype 'x'\ntype {}\ntype:m()\ntype, x = 1, 2",
        "export = 1\nexport.type = 2\nexport()\nlocal export = type",
        "as = 1\nas.as = as\nas(as)\nas:as()\nas, x = 1, 2\nlocal t = { as = 1, type = as; export }",
        "x = y\nas(z)",
        "x = y\nas { z }",
        "x = y\nas 'z'",
        "x = y as = 1",
        "x = y as.z = 1",
        "x = y as[z] = 1",
        "x = y as:z()",
        "x = y as, z = 1, 2",
        "function as(as) end\nfunction t.as.type:export() end\ngoto as\n::as::",
        # labels and methods
        "x = y ::l::",
        "x = y\n::l::\nz = 1\ngoto l",
        "x = y ::l:: ::m:: z = 1",
        "do goto l; x = y\n::l:: end",
        "a:b()\na.b:c 'x'\na:b { c }\nx = a:b(c):d()",
    ],
)
def test_typed_syntax_becomes_blanks_and_the_rest_stays(marked: str) -> None:
    assert_loads(erase(typed(marked), "f.lua"), blanked(marked))


@pytest.mark.parametrize(
    "type_text",
    [
        "number",
        "nil",
        "true",
        "false",
        "'a'",
        '"b"',
        "[[c]]",
        "[==[d]]]==]",
        "42",
        "-1.5e3",
        "0x1F",
        "a.b.C",
        "A<B>",
        "A<B, C<D, E<F>>>",
        "A<(B) -> C, ...D>",
        "T?",
        "T??",
        "A | B",
        "| A | B",
        "A & B",
        "& A & B",
        "A | B & C?",
        "{}",
        "{ T }",
        "{T?}",
        "{ [string]: T }",
        "{ a: T }",
        "{ a: T, b: U }",
        "{ a: T; b: U; }",
        "{ a: T, }",
        "{ a?: T, b: U? }",
        "{ [string]: T, n: number }",
        "{ type: 'a', as: 1, export: {} }",
        "T[]",
        "T[][]",
        "{ T }[]",
        "(A | B)[]?",
        "T['field']",
        "() -> ()",
        "(T) -> U",
        "(a: T, U) -> R",
        "(T) -> (A, B)",
        "(T, ...U) -> ...V",
        "(a: T, ...: U) -> V",
        "(T) -> (U) -> V",
        "((T) -> U)?",
        "(T)",
        "((T))",
        "typeof(x)",
        "typeof(x.y[1](z, { a = 1 }))",
        "typeof(function(a: T): U return a as T end)",
        "typeof",
        "number @min(0)",
        "number @min(0) @max(x + 1)",
        "{ number @min(0) }",
        "string @email | number @min(1)",
        "{\n  a: T,\n\n  b: {\n    [string]: U\n  }\n}",
        "(\n  a: T,\n  b: U\n) -> (\n  V,\n  W\n)",
        "{\r\n  a: T,\r\n}",
        "[[a\r\n\nb]]",
    ],
)
def test_every_form_of_type_is_read_to_its_end(type_text: str) -> None:
    """A type that ended too early or too late would leave debris or eat what follows."""
    blank = re.sub(r"[^\r\n]", " ", type_text)
    for before, after in [
        ("local x: ", " = 1"),
        ("local x: ", "\nlocal y = 2"),
        ("local x: ", " <const> = 1"),
        ("type T = ", "\nx = 1"),
        ("local function f(a: ", ", b) end"),
        ("local function f(): ", " return 1 end"),
        ("local x = y as ", "\nz = 1"),
        ("return f(y :: ", ", z)"),
        ("for k: ", ", v in pairs(t) do end"),
        ("local x: A<", "> = 1"),
    ]:
        result = erase(before + type_text + after, "f.lua")
        kept = len(result) - len(after)
        erased_before = re.sub(r": $|\btype T = $|as $|:: $|: A<$", lambda m: " " * len(m[0]), before)
        expected_after = " " + after[1:] if before.endswith("<") else after
        assert result == erased_before + blank + expected_after
        assert kept == len(before + type_text)
        assert why_not_lua(result) == ""


@pytest.mark.parametrize(
    "source",
    [
        "",
        "\n",
        "-- local n: number\nlocal x = 1 -- x as T",
        "--[[ local n: number ]] local x --[==[ ]] x!\n]==] = 1",
        "--[==\nlocal x = 1",
        "local s = 'n: number' .. \"x as T\" .. [[ type T = x! ]] .. [==[ ]] :: T ]==]",
        "local s = '\\'' .. \"\\\"\" .. '\\\\' .. '\\z\n   x: T' .. '\\\n: T'",
        "local s = '\\z   \\'x'",
        "local s = 'a\\\r\nb\\\n\rc\\\rd'",
        "local a = [[]] local b = [=[]]]=]",
        "x = a < b, a > b, a <= b, a >= b, a << b, a >> b, a ~= b, ~a, a // b, a | b & c",
        "x = 0x.8p-3 + 3. + .5 + 1e+3 + 0xA - 3",
        "local x <const>, y <close> = 1, nil",
        "x = { a = b, [c] = d; e, f = { g } }",
        "return f{a}'b'[[c]](d).e:g()",
        "if a then elseif b then else end while c do break end repeat until d for i = 1, 2, 3 do end",
        "local function f(...) return ... end; ;; function g.h.i:j(a, b, ...) end",
        "local x = 1;(f or g)()",
        "local x = 1\r\nlocal y = 2\rlocal z = 3\n\rlocal w\t\f\v=1",
        "goto l do ::m:: end ::l::",
        "return",
        "return;",
        "local s = 'ünïcode 漢字' -- 漢字",
    ],
)
def test_plain_lua_stays_as_it_is(source: str) -> None:
    assert why_not_lua(source) == ""
    assert erase(source, "f.lua") == source


def test_shebang_line_is_left_alone() -> None:
    assert erase("#!/usr/bin/lua: x!\nlocal n: number = 1", "f") == "#!/usr/bin/lua: x!\nlocal n         = 1"


def test_comments_inside_erased_text_stay() -> None:
    source = "type T = { -- the shape\n  a: number, --[[ of it ]]\n}\nlocal x = 1"
    result = erase(source, "f.lua")
    assert result == "           -- the shape\n             --[[ of it ]]\n \nlocal x = 1"
    assert why_not_lua(result) == ""


def test_neighbouring_tokens_do_not_grow_together() -> None:
    """Erasing to nothing would turn `a!b = 1` into `ab = 1`."""
    assert erase("f()!g()", "f.lua") == "f() g()"
    assert erase("return (x)as{T}, y::T", "f.lua").split() == ["return", "(x)", ",", "y"]


@pytest.mark.parametrize(
    ("source", "line", "reason"),
    [
        ("local n: = 1", 1, "a type expected near '='"),
        ("local n:", 1, "a type expected near the end of the file"),
        ("\n\nlocal n: { a: } = 1", 3, "a type expected near '}'"),
        ("local n: {\n  a: T\n  b: U\n}", 3, "'}' expected to close '{' of line 1 near 'b'"),
        (
            "local n: A<B = 1",
            1,
            "'>' expected to close the type arguments near '=' (a cast to compare needs parentheses)",
        ),
        ("local n: A. = 1", 1, "a name expected near '='"),
        ("local n: (A, B) = 1", 1, "'->' expected after the parameters of a function type near '='"),
        ("local n: (a: A) = 1", 1, "'->' expected after the parameters of a function type near '='"),
        ("local n: () = 1", 1, "'->' expected after the parameters of a function type near '='"),
        ("local n: ...T = 1", 1, "'...' cannot begin a type here"),
        ("local n: A | = 1", 1, "a type expected near '='"),
        ("local n: typeof(1", 1, "')' expected to close '(' of line 1 near the end of the file"),
        ("local n: T @ = 1", 1, "a name expected near '='"),
        ("x: number = 1", 1, "call of method 'number' expected (only local names take a type)"),
        ("type T", 1, "'=' expected in the type statement near the end of the file"),
        ("type T: U", 1, "'=' expected in the type statement near ':'"),
        ("export type T<> = U", 1, "a name expected near '>'"),
        ("function f<T(a) end", 1, "'>' expected to close the type parameters near '('"),
        ("function f(a: T, 1) end", 1, "a name expected as a parameter near '1'"),
        ("return x as", 1, "a type expected near the end of the file"),
        ("return f(x as)", 1, "a type expected near ')'"),
        ("return x as T {}", 1, "the block should end after 'return', but goes on near '{'"),
        ("local x = y as T {}", 1, "an expression or a statement cannot begin near '{'"),
        ("return f(x as T (y))", 1, "')' expected to close '(' of line 1 near '('"),
        (
            "return f(x as T < y)",
            1,
            "'>' expected to close the type arguments near ')' (a cast to compare needs parentheses)",
        ),
        ("if a != b then end", 1, "'!=' is not an operator of Lua: write '~='"),
        ("f(a)\nx = ! a", 2, "an expression or a statement cannot begin near '!'"),
        ("x = a ? b : c", 1, "an expression or a statement cannot begin near '?'"),
        ("x", 1, "a statement cannot go on near the end of the file"),
        ("do\n  f()\n", 3, "'end' expected to close 'do' of line 1 near the end of the file"),
        ("f()\r\nend", 2, "unexpected 'end': no block is open"),
        ("f()\rf()\n\rf()\n\nend", 5, "unexpected 'end': no block is open"),
        ("x = 'a\n'", 1, 'unfinished string near "\'"'),
        ("x = 1\n  $", 2, "unexpected symbol near '$'"),
        ("x = 1 é", 1, "unexpected symbol near '\\xe9'"),
        ("x = [==[ ]]", 1, "unfinished long string: no ']==]' follows"),
        ("x = 1\n--[[ ]=]", 2, "unfinished long comment: no ']]' follows"),
        (
            "local n: 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' 1",
            1,
            "an expression or a statement cannot begin near '1'",
        ),
    ],
)
def test_malformed_source_is_refused_with_line_and_reason(source: str, line: int, reason: str) -> None:
    with pytest.raises(TypedSyntaxError) as caught:
        erase(source, "shop/order.lua")
    error = caught.value
    assert isinstance(error, ValueError)
    assert (error.name, error.line, error.reason) == ("shop/order.lua", line, reason)
    assert str(error) == f"shop/order.lua:{line}: {reason}"


def test_long_tokens_are_cut_short_in_messages() -> None:
    with pytest.raises(TypedSyntaxError) as caught:
        erase("f(" + "x " + "y" * 1000, "f.lua")
    assert caught.value.reason == f"')' expected to close '(' of line 1 near '{'y' * 40}...'"


# Nesting and speed

SHAPES: list[Callable[[int], str]] = [
    lambda n: "x = " + "(" * n + "1" + ")" * n,
    lambda n: "x = " + "{" * n + "}" * n,
    lambda n: "x = " + "f(" * n + ")" * n,
    lambda n: "x = " + "a[" * n + "1" + "]" * n,
    lambda n: "do " * n + "end " * n,
    lambda n: "while x do " * n + "end " * n,
    lambda n: "if x then elseif y then " * n + "end " * n,
    lambda n: "repeat " * n + "until x " * n,
    lambda n: "for i = 1, 2 do " * n + "end " * n,
    lambda n: "x = " + "function() return " * n + "1" + " end" * n,
    lambda n: "local function f() " * n + "end " * n,
    lambda n: "f(function() " * n + "end) " * n,
    lambda n: "x = " + "a .. " * n + "a",
    lambda n: "x = " + "- " * n + "1",
    lambda n: "x = " + "{ a = { f(" * n + ") } }" * n,
]


def why_refused(source: str) -> str:
    """Our complaint about a source, empty if it is erased."""
    try:
        erase(source, "f.lua")
    except TypedSyntaxError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("shape", SHAPES)
def test_whatever_nesting_lua_takes_is_taken(shape: Callable[[int], str]) -> None:
    """A tighter limit than Lua's would refuse plain Lua."""
    deepest = max(n for n in range(1, 260) if why_not_lua(shape(n)) == "")
    assert deepest < 259
    assert erase(shape(deepest), "f.lua") == shape(deepest)


@pytest.mark.parametrize(
    "shape",
    [
        lambda n: "x = " + "(" * n + "1" + ")" * n,
        lambda n: "local x: " + "{" * n + "}" * n,
        lambda n: "local x: " + "(" * n + "T" + ")" * n,
        lambda n: "local x: " + "A<" * n + "T" + ">" * n,
        lambda n: "local x: " + "() -> " * n + "T",
        lambda n: "local x: " + "T[" * n + "T" + "]" * n,
        lambda n: "x = " + "y as typeof(" * n + "1" + ")" * n,
        lambda n: "do " * n + "end " * n,
    ],
)
def test_nesting_ends_at_the_limit(shape: Callable[[int], str]) -> None:
    """One level too many is an error of ours, a hundred thousand are not one of Python's."""
    # Some shapes take two levels a step.
    fitting = max(n for n in range(1, NESTING_LEVELS_MAX + 1) if why_refused(shape(n)) == "")
    assert fitting in range(NESTING_LEVELS_MAX // 2 - 2, NESTING_LEVELS_MAX)
    refusal = "f.lua:1: nested too deep: more than 201 levels of blocks, expressions and types"
    assert why_refused(shape(fitting + 1)) == refusal
    assert why_refused(shape(100_000)) == refusal


@pytest.mark.parametrize(
    "source",
    [
        "local function f<T>(a: T, b: { x: number }): T? return (a as T)!.x end\n" * 10_000,
        "x = y as T\n" * 40_000,
        "x = y ::l::\n" * 40_000,
        "type T = A\n" * 40_000,
        "x = " + "y as T + " * 40_000 + "1",
        "x = " + "- " * 40_000 + "1",
        "x = a" + "!.b" * 40_000,
        "x = a" + ":b()" * 40_000,
        "local x: " + "A | " * 40_000 + "B",
        "local x: T" + "?" * 40_000,
        "local x: { " + "a: T, " * 40_000 + "}",
        "x = { " + "'\\z   ', " * 40_000 + "}",
        "x = '" + "\\z  " * 40_000,
        "x = [" + "=" * 400_000,
        "-- x\n" * 40_000 + "x = " + "\n" * 40_000 + "y as T",
        "x = " + "(" * 40_000,
        "x = " + "1" * 400_000,
        " " * 400_000 + "$",
    ],
    ids=lambda source: source[:24],
)
def test_time_grows_with_length_only(source: str) -> None:
    """Reading twice to find out would take minutes for these; they take well below a second each."""
    begin = time.perf_counter()
    try:
        result = erase(source, "f.lua")
    except TypedSyntaxError:
        pass
    else:
        assert len(result) == len(source)
    assert time.perf_counter() - begin < 10


# Properties


class Writer:
    """Writes random programs; with_types: with typed syntax between the marks."""

    def __init__(self, random: Random, *, with_types: bool) -> None:
        self._random = random
        self._with_types = with_types

    def _pick(self, *choices: str) -> str:
        return self._random.choice(choices)

    def _name(self) -> str:
        return self._pick("a", "b", "self", "as", "type", "export", "typeof", "const", "T")

    def _mark(self, form: str) -> str:
        """Nothing or, with types, perhaps a marked piece of syntax; a `#` in it becomes a type."""
        if not self._with_types or self._random.random() < 0.4:
            return ""
        return f"«{re.sub('#', lambda _: self._type(2), form)}»"

    def _type(self, depth: int) -> str:
        forms = ["T", "a.B", "nil", "true", "'s'", "-1", "as", "typeof(a as T)", "{}", "() -> ()", "number @min(0)"]
        if depth > 0:
            forms += ["(#)?", "# | #", "# & #", "A<#, ...#>", "A<B<#>>", "{ # }", "{ [#]: #, x: #; y?: # }", "(#)[]"]
            forms += ["(\n#, b: #) -> #", "(#) -> (#, ...#)"]
        return re.sub("#", lambda _: self._type(depth - 1), self._pick(*forms))

    def _prefix(self) -> str:
        return self._name() + self._mark("!")

    def expression(self, depth: int) -> str:
        def inner() -> str:
            return self.expression(depth - 1)

        if depth <= 0:
            return self._pick("1", "0x.8p1", "nil", "'as T'", '"\\"!"', "[==[ ]] : T]==]", "1.", "{}", self._name())
        match self._random.randrange(11):
            case 0:
                return f"({inner()} {self._mark('as #')})"
            case 1:
                return f"({inner()} {self._mark(':: #')})"
            case 2:
                operator = self._pick("+", "..", "<", ">", ">=", ">>", "<<", "~=", "~", "|", "&", "and", "or", "//")
                return f"{self._prefix()} {operator} ({inner()} {operator} {inner()})"
            case 3:
                return f"- {inner()} ^ not {inner()}"
            case 4:
                return f"{self._prefix()}[ {inner()} ].{self._name()}{self._mark('!')}"
            case 5:
                return f"{self._prefix()}({inner()}, {inner()}\n){self._mark('!')}"
            case 6:
                return f"{self._prefix()}:{self._name()}({inner()})"
            case 7:
                return f"{{ {self._name()} = {inner()}, [ {inner()} ] = {inner()}; {inner()} {self._mark('as #')} }}"
            case 8:
                head = f"function{self._mark('<T, U: #>')}({self._name()}{self._mark(': #')}, ...{self._mark(': #')})"
                return f"{head}{self._mark(': (#, #)')} {self.block(depth - 1)} end"
            case _:
                return inner()

    def statement(self, depth: int) -> str:
        def inner() -> str:
            return self.expression(depth)

        def block() -> str:
            return self.block(depth - 1)

        name, other, annotation = self._name(), self._name(), self._mark(": #")
        match self._random.randrange(16):
            case 0:
                return f"local {name}{annotation}, {other}{self._mark(': #')} = {inner()}"
            case 1:
                return f"do local {name}{annotation} <const> = {inner()} end"
            case 2:
                return f"{name}, {other} = {inner()}"
            case 3:
                # The `;` keeps the next statement apart, which may begin with a parenthesis.
                return f"{name}.{other} = {inner()} {self._mark('as #')};"
            case 4:
                return f"{name}({inner()})"
            case 5:
                return f"{name}:{other} {{}}"
            case 6:
                return f";({inner()}):{name}()"
            case 7:
                return f"if {inner()} {self._mark('as #')} then {block()} else {block()} end"
            case 8:
                return f"while {inner()} do {block()} end"
            case 9:
                return f"repeat {block()} until {inner()}"
            case 10:
                return f"for {name}{annotation} = {inner()}, {inner()} do {block()} end"
            case 11:
                return f"for {name}{annotation}, {other} in {inner()} do {block()} end"
            case 12:
                return f"function {name}.{other}:as({name}{annotation}){self._mark(': #')} {block()} end"
            case 13:
                return f"do {block()} return {inner()} {self._mark(':: #')} end"
            case 14:
                return self._pick("-- x: T", "--[[ x as\nT ]]", "do ::m:: goto m end", "do goto m ::m:: end")
            case _:
                return self._mark("type X<T> = #") + ";"

    def block(self, depth: int) -> str:
        if depth <= 0:
            return ""
        return "\n".join(["", *(self.statement(depth) for _ in range(self._random.randrange(4))), ""])


RANDOMS = st.randoms(use_true_random=False)


@given(RANDOMS)
def test_any_plain_program_comes_out_identical(random: Random) -> None:
    source = Writer(random, with_types=False).block(3)
    note(source)
    assert why_not_lua(source) == ""
    assert erase(source, "f.lua") == source


@given(RANDOMS)
def test_any_typed_program_loses_exactly_its_types(random: Random) -> None:
    marked = Writer(random, with_types=True).block(3)
    source = typed(marked)
    note(source)
    result = erase(source, "f.lua")
    assert result.count("\n") == source.count("\n")
    assert_loads(result, blanked(marked))


TOKENS = st.sampled_from(
    [
        *re.findall(
            r"\S+",
            """local function end if then else elseif for in do while repeat until return break goto nil true not and
            type as export typeof x T <const> = == ~= < > >> >= <= << ( ) { } [ ] . .. ... : :: , ; ! ? -> @ | & - + # 1
            'a' [[b]] -- --[[ ]] --[=[ ]=] " ' \\ $ é""",
        ),
        "\n",
        "\r",
        "\r\n",
    ]
)


@given(st.lists(TOKENS, max_size=40).map(" ".join) | st.lists(TOKENS, max_size=20).map("".join) | st.text(max_size=60))
@example("\x00")
@example("[")
@example("--[")
@example("'\\")
@example("::" * 9)
@example("x as")
@example("\ud800")
def test_garbage_raises_nothing_but_the_error_of_its_own(source: str) -> None:
    result, line = None, 0
    try:
        result = erase(source, "f.lua")
    except TypedSyntaxError as error:
        line = error.line
    if result is None:
        assert 1 <= line <= source.count("\n") + source.count("\r") + 1
    else:
        assert len(result) == len(source)
        assert all(new in (old, " ", ";") for new, old in zip(result, source, strict=True))


@given(st.data())
def test_a_program_with_a_hole_raises_nothing_but_the_error_of_its_own(data: st.DataObject) -> None:
    source = typed(WORKFLOW_MARKED)
    begin = data.draw(st.integers(0, len(source)))
    end = data.draw(st.integers(begin, min(len(source), begin + 20)))
    broken = source[:begin] + data.draw(TOKENS) + source[end:]
    if why_refused(broken) == "":
        assert len(erase(broken, "f.lua")) == len(broken)


# A whole file

WORKFLOW_MARKED = """-- Orders: charge, wait for approval, ship.
local workflow, funcs, time = require("workflow"), require("funcs"), require("time")

«export type State = "new" | "paid" | "shipped" | "expired"»
«type Item = { sku: string, count: number @min(1), price: number }»
«type Order = {
  id: string,
  items: { Item },
  note?: string,
  tags: { [string]: boolean };
  on_change: ((old: State, new: State) -> ())?,
}»
«type Result<T, E = string> = { ok: true, value: T } | { ok: false, error: E }»

local LIMIT«: string» <const> = "24h"
local total«: number» = 0

local function map«<T, U>»(list«: {T}», f«: (T) -> U»)«: {U}»
  local out«: {U}» = {}
  for i«: integer», v«: T» in ipairs(list) do
    out[i] = f(v)
  end
  return out
end

local Cart = {}
Cart.__index = Cart

function Cart.new(order«: Order»)«: Cart»
  return setmetatable({ order = order, type = "cart" }, Cart)«:: Cart»
end

function Cart:sum(rate«: number?», ...«: any»)«: (number, string?)»
  local prices = map(self.order.items, function(item«: Item»)«: number»
    return item.price * item.count
  end)
  local sum = 0
  for n«: integer» = 1, #prices do
    if prices[n] < 0 then goto continue end
    sum = sum + prices[n]«!»
    local seen = prices «:: {number}»
    ::continue::
  end
  return sum * (rate« as number» or 1), type(rate)
end

local function run(order«: Order»)«: (Result<State>?, error?)»
  local cart = Cart.new(order«!»)
  local sum, kind = cart:sum(order«!».rate« as number?»)
  local receipt, err = funcs.call("shop:charge", { sum = sum, as = kind }) «;as any»
  (order.log or print)("charged: " .. tostring(sum))
  if err then return nil, err end
  total = total + sum
  local state«: State» = (receipt« as { state: State }»).state
  return { ok = true, value = state, kind = cart.type, total = total, limit = LIMIT }
end

return { run = run, broken = function(x«: {
  a: number,
}») return x.a.b.c end }
"""


def test_a_typed_workflow_file_loads_and_runs() -> None:
    result = erase(typed(WORKFLOW_MARKED), "shop/order.lua")
    assert_loads(result, blanked(WORKFLOW_MARKED))
    run = _lua().eval(
        b"""function(source)
          local env = setmetatable({
            require = function() return { call = function(_, a) return { state = "paid" .. a.sum .. a.as } end } end,
            print = function() end,
          }, { __index = _G })
          local unit = assert(load(source, "@shop/order.lua", "t", env))()
          local items = { { price = 5, count = 2 }, { price = -1, count = 1 }, { price = 1, count = 1 } }
          local r = unit.run({ items = items, rate = 3 })
          local _, message = pcall(unit.broken, { a = {} })
          return r.value .. " " .. r.kind .. " " .. r.limit, message
        end"""
    )
    value, message = run(result.encode())
    assert value == b"paid33number cart 24h"
    line = typed(WORKFLOW_MARKED).split("\n").index("}) return x.a.b.c end }") + 1
    assert message == f"shop/order.lua:{line}: attempt to index a nil value (field 'b')".encode()
