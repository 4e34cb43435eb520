"""Hypothesis strategies that give scenarios: workflow programs, and what happens around them.

A program is built from left to right with the names that are in scope, so that nearly all of them do something; what
goes wrong in them all the same (a key that is nil, a comparison of a table with a number) is an error that must be the
same elsewhere, too. How much there is of everything is bounded: a program is over within moments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from hypothesis import strategies as st

from tests.fuzz import programs as lua
from tests.fuzz.scenarios import Happening, Outcome, Scenario

FUNCTIONS: Final = ("f1", "f2", "f3")
CHILDREN: Final = ("kid", "other_kid")
STATEMENTS_MAX: Final = 22
CHILD_STATEMENTS_MAX: Final = 6
DEPTH_MAX: Final = 3

T = TypeVar("T")
Draw = Callable[[st.SearchStrategy[Any]], Any]

_NUMBERS: Final = (
    "0",
    "1",
    "2",
    "3",
    "7",
    "-1",
    "-4",
    "1.5",
    "-0.0",
    "0/0",
    "1/0",
    "2^53",
    "math.maxinteger",
    "math.mininteger",
    "3.0",
    "1e15",
    "0x7fff",
)
_TEXTS: Final = (
    '""',
    '"a"',
    '"b"',
    '"key7"',
    '"key3"',
    '"grüße"',
    r'"\xff\0z"',
    '"10"',
    '"%d"',
    '"Z"',
    '("x"):rep(50)',
)
_FLAGS: Final = ("true", "false")
# Keys that are hard to put in an order.
_KEYS: Final = (
    "1", "2", "3", "5", "-1", "0", "1.5", "2.0", "-0.0", "1/0", "2^53", '"a"', '"b"', '"B"', '"key1"', '"key2"', '"1"', '"\\xff"', '""', "true", "false",
    "{}", "print", "function() end", "coroutine.create(print)", "errors.new('k')", "errors.new('l')", "time.now()",
)  # fmt: skip
_HOLES: Final = ("nil", "1", '"x"', "false", "{}")


@dataclass
class Scope:
    """The names that are known at some place."""

    variables: list[tuple[str, lua.Type]] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)
    futures: list[str] = field(default_factory=list)
    timers: list[str] = field(default_factory=list)
    channels: list[str] = field(default_factory=list)
    children: list[str] = field(default_factory=list)

    def inner(self) -> Scope:
        """A scope inside of it."""
        return Scope(
            list(self.variables),
            list(self.functions),
            list(self.futures),
            list(self.timers),
            list(self.channels),
            list(self.children),
        )


class Builder:
    """Builds one program. children: what it may start; a child starts none."""

    def __init__(self, draw: Draw, statements: int, children: tuple[str, ...]) -> None:
        self._draw = draw
        self._left = statements
        self._names = 0
        self._children = children

    def one_of(self, choices: tuple[T, ...]) -> T:
        return self._draw(st.sampled_from(choices))  # type: ignore[no-any-return]

    def number(self, least: int, most: int) -> int:
        return self._draw(st.integers(least, most))  # type: ignore[no-any-return]

    def flag(self) -> bool:
        return self._draw(st.booleans())  # type: ignore[no-any-return]

    def name(self, letter: str) -> str:
        self._names += 1
        return f"{letter}{self._names}"

    # -- expressions ---------------------------------------------------------------------------------------------------

    def expression(self, wanted: lua.Type, scope: Scope, depth: int = 0) -> lua.Node:
        known = [name for name, kind in scope.variables if wanted in (kind, "any")]
        how = self.number(0, 9)
        if known and how < 4:
            return lua.Name(self.one_of(tuple(known)))
        if depth < 2 and how > 5:
            if wanted in ("number", "text", "flag") and how == 9:
                return self._operator(wanted, scope, depth)
            forms = tuple(form for form in lua.FORMS if wanted in (form[0], "any"))
            _, form, types = self.one_of(forms)
            return lua.Apply(form, tuple(self.expression(kind, scope, depth + 1) for kind in types))
        if wanted == "table":
            return self._table(scope, depth)
        if wanted == "any":
            wanted = self.one_of(("number", "text", "flag"))
        return lua.Constant(self.one_of({"number": _NUMBERS, "text": _TEXTS, "flag": _FLAGS}[wanted]))

    def _operator(self, wanted: lua.Type, scope: Scope, depth: int) -> lua.Node:
        operators: dict[lua.Type, tuple[tuple[str, lua.Type], ...]] = {
            "number": (("+", "number"), ("*", "number"), ("-", "number"), ("/", "number"), ("%", "number")),
            "text": (("..", "text"),),
            "flag": (("<", "number"), ("<=", "text"), ("==", "any"), ("~=", "any"), ("and", "flag"), ("or", "flag")),
        }
        operator, kind = self.one_of(operators[wanted])
        return lua.Binary(operator, self.expression(kind, scope, depth + 1), self.expression(kind, scope, depth + 1))

    def _table(self, scope: Scope, depth: int) -> lua.Node:
        size = self.number(0, 6)
        form = self.number(0, 3)
        if form == 1:
            # Text keys alone: their order in a plain table is the most fickle.
            texts = self._draw(st.lists(st.integers(0, 99), min_size=3, max_size=8, unique=True))
            return lua.Table(tuple((lua.Constant(f'"k{i}"'), lua.Constant(self.one_of(_NUMBERS))) for i in texts))
        if form == 0:
            return lua.List(tuple(lua.Constant(self.one_of(_HOLES)) for _ in range(size)))
        entries = []
        for _ in range(size):
            key: lua.Node = lua.Constant(self.one_of(_KEYS))
            nested = depth < 1 and self.number(0, 4) == 0
            entries.append(
                (
                    key,
                    self._table(scope, depth + 1)
                    if nested
                    else lua.Constant(self.one_of((*_TEXTS, *_FLAGS, *_NUMBERS))),
                )
            )
        return lua.Table(tuple(entries))

    # -- statements ----------------------------------------------------------------------------------------------------

    def block(self, scope: Scope, depth: int, most: int) -> lua.Block:
        inner = scope.inner()
        statements: list[lua.Node] = []
        for _ in range(self.number(min(most, 4), most)):
            if self._left <= 0:
                break
            self._left -= 1
            statements.append(self.statement(inner, depth))
        return lua.Block(tuple(statements))

    def statement(self, scope: Scope, depth: int) -> lua.Node:
        kinds = self.kinds(scope, depth)
        return self.one_of(kinds)(scope, depth)

    def kinds(self, scope: Scope, depth: int) -> tuple[Callable[[Scope, int], lua.Node], ...]:
        kinds: list[Callable[[Scope, int], lua.Node]] = [
            self._out, self._observe, self._observe, self._local, self._local, self._call, self._call, self._async, self._sleep, self._timer, self._channel, self._version,
            self._hear, self._hear, self._sort, self._table_local, self._ticks, self._attrs, self._saga, self._assign,
        ]  # fmt: skip
        if depth < DEPTH_MAX:
            kinds += [self._if, self._loop, self._function, self._protected, self._spawn, self._spawn, self._coroutine]
        if self._children:
            kinds += [self._exec, self._child, self._child]
        if any(kind == "table" for _, kind in scope.variables):
            kinds += [self._traverse, self._traverse, self._traverse]
        if scope.futures:
            kinds += [self._future] * 3
        if scope.timers:
            kinds += [self._timer_use]
        if scope.channels:
            kinds += [self._channel_use, self._select, self._select]
        if scope.functions:
            kinds += [self._call_closure]
        if scope.children:
            kinds += [self._child_use]
        if depth > 1:
            kinds += [self._raise]
        return tuple(kinds)

    def _out(self, scope: Scope, _depth: int) -> lua.Node:
        return lua.Out("saw", tuple(self.expression("any", scope) for _ in range(self.number(1, 3))))

    def _observe(self, _scope: Scope, _depth: int) -> lua.Node:
        """Look at something that comes from outside of the program."""
        forms = tuple(form for _, form, types in lua.FORMS if not types)
        return lua.Out("observed", tuple(lua.Apply(self.one_of(forms)) for _ in range(self.number(1, 2))))

    def _local(self, scope: Scope, _depth: int) -> lua.Node:
        kind: lua.Type = self.one_of(("number", "text", "flag", "table", "any"))
        value, name = self.expression(kind, scope), self.name("v")
        scope.variables.append((name, kind))
        return lua.Local(name, value)

    def _table_local(self, scope: Scope, _depth: int) -> lua.Node:
        value, name = self._table(scope, 0), self.name("t")
        scope.variables.append((name, "table"))
        return lua.Local(name, value)

    def _assign(self, scope: Scope, depth: int) -> lua.Node:
        if not scope.variables:
            return self._local(scope, depth)
        name, kind = self.one_of(tuple(scope.variables))
        if name.startswith("i"):  # a loop that counts is not to go on for ever
            return self._local(scope, depth)
        if kind == "table":
            return lua.Assign(name, self.expression("any", scope), self.expression("any", scope))
        return lua.Assign(name, self.expression(kind, scope))

    def _if(self, scope: Scope, depth: int) -> lua.Node:
        return lua.If(self.expression("flag", scope), self.block(scope, depth + 1, 3), self.block(scope, depth + 1, 2))

    def _loop(self, scope: Scope, depth: int) -> lua.Node:
        name = self.name("i")
        inner = scope.inner()
        inner.variables.append((name, "number"))
        form: Any = self.one_of(("for", "while", "repeat", "goto"))
        return lua.Loop(form, name, self.number(1, 3), self.expression("flag", inner), self.block(inner, depth + 1, 3))

    def _traverse(self, scope: Scope, depth: int) -> lua.Node:
        table = self.one_of(tuple(name for name, kind in scope.variables if kind == "table"))
        names = (self.name("k"), self.name("x"))
        inner = scope.inner()
        inner.variables += [(names[0], "any"), (names[1], "any")]
        by: Any = self.one_of(("pairs", "next", "by hand", "ipairs"))
        change: Any = self.one_of(("nothing", "remove it", "remove another", "set it", "add"))
        body = self.block(inner, depth + 1, 2) if depth < DEPTH_MAX and self.flag() else lua.Block()
        return lua.Traverse(table, names, by, change, body)

    def _function(self, scope: Scope, depth: int) -> lua.Node:
        name, parameter = self.name("f"), self.name("p")
        inner = scope.inner()
        inner.functions.append(name)
        inner.variables.append((parameter, "any"))
        body = self.block(inner, depth + 1, 3)
        function = lua.Function(name, parameter, body, self.expression("any", inner))
        scope.functions.append(name)
        return function

    def _call_closure(self, scope: Scope, _depth: int) -> lua.Node:
        called = lua.Apply(f"pcall({self.one_of(tuple(scope.functions))}, {{}})", (self.expression("any", scope),))
        return lua.Out("closure", (called,))

    def _protected(self, scope: Scope, depth: int) -> lua.Node:
        form: Any = self.one_of(("pcall", "xpcall", "close"))
        return lua.Protected(form, self.block(scope, depth + 1, 3))

    def _raise(self, scope: Scope, _depth: int) -> lua.Node:
        return lua.Raise(self.expression(self.one_of(("text", "any", "table")), scope), self.number(0, 2))

    def _call(self, scope: Scope, _depth: int) -> lua.Node:
        caller = self.one_of(("funcs", "quick", "slow", "once", "hasty"))
        return lua.Call(
            caller, self.one_of(FUNCTIONS), tuple(self.expression("any", scope) for _ in range(self.number(0, 2)))
        )

    def _async(self, scope: Scope, _depth: int) -> lua.Node:
        name = self.name("q")
        scope.futures.append(name)
        caller = self.one_of(("funcs", "quick", "slow", "once", "hasty"))
        return lua.Async(name, caller, self.one_of(FUNCTIONS), (self.expression("any", scope),))

    def _future(self, scope: Scope, _depth: int) -> lua.Node:
        what: Any = self.one_of(("await", "await", "cancel", "look", "select"))
        return lua.Future(self.one_of(tuple(scope.futures)), what)

    def _sleep(self, _scope: Scope, _depth: int) -> lua.Node:
        return lua.Sleep(self.one_of((1, 5, 40, 1000, 3000, 0)))

    def _timer(self, scope: Scope, _depth: int) -> lua.Node:
        name = self.name("m")
        scope.timers.append(name)
        return lua.Timer(name, self.one_of((1, 50, 1000, 8000)))

    def _timer_use(self, scope: Scope, _depth: int) -> lua.Node:
        what: Any = self.one_of(("stop", "reset", "await"))
        return lua.TimerUse(self.one_of(tuple(scope.timers)), what)

    def _ticks(self, _scope: Scope, _depth: int) -> lua.Node:
        return lua.Ticks(self.one_of((20, 500, 2000)), self.number(1, 3))

    def _channel(self, scope: Scope, _depth: int) -> lua.Node:
        name = self.name("c")
        scope.channels.append(name)
        return lua.Channel(name, self.number(0, 2))

    def _channel_use(self, scope: Scope, _depth: int) -> lua.Node:
        what: Any = self.one_of(("send", "send", "receive", "receive", "close"))
        return lua.ChannelUse(self.one_of(tuple(scope.channels)), what, self.expression("any", scope))

    def _select(self, scope: Scope, _depth: int) -> lua.Node:
        channels = tuple(scope.channels)
        cases = tuple(
            (self.one_of(channels), self.expression("any", scope) if self.flag() else None)
            for _ in range(self.number(1, 3))
        )
        return lua.Select(cases, self.flag(), self.one_of((5, 100, 1500)))

    def _spawn(self, scope: Scope, depth: int) -> lua.Node:
        return lua.Spawn(self.block(scope, depth + 1, 4))

    def _coroutine(self, scope: Scope, depth: int) -> lua.Node:
        parts = tuple(
            (self.block(scope, depth + 1, 2), self.expression("any", scope)) for _ in range(self.number(1, 2))
        )
        form: Any = self.one_of(("wrap", "create"))
        return lua.Coroutine(self.name("g"), form, parts, self.number(1, 4))

    def _exec(self, scope: Scope, _depth: int) -> lua.Node:
        return lua.Exec(self.one_of(self._children), self.expression("any", scope))

    def _child(self, scope: Scope, _depth: int) -> lua.Node:
        name = self.name("w")
        policy: Any = self.one_of(("terminate", "abandon", "request_cancel"))
        child = lua.Child(
            name, self.one_of(self._children), self.expression("any", scope), policy, self.one_of(("", "", "same"))
        )
        scope.children.append(name)
        return child

    def _child_use(self, scope: Scope, _depth: int) -> lua.Node:
        what: Any = self.one_of(("send", "send", "cancel", "terminate"))
        return lua.ChildUse(self.one_of(tuple(scope.children)), what)

    def _hear(self, _scope: Scope, _depth: int) -> lua.Node:
        what: Any = self.one_of(("inbox", "s1", "s2", "events"))
        return lua.Hear(what, self.one_of((30, 2000, 9000)))

    def _version(self, _scope: Scope, _depth: int) -> lua.Node:
        least = self.number(1, 2)
        return lua.Version(self.one_of(("change", "other change")), least, least + self.number(0, 2))

    def _attrs(self, scope: Scope, _depth: int) -> lua.Node:
        return lua.Attrs(self.expression(self.one_of(("number", "text", "flag")), scope))

    def _sort(self, _scope: Scope, _depth: int) -> lua.Node:
        items = tuple(self._draw(st.lists(st.integers(0, 4), min_size=2, max_size=12)))
        return lua.Sort(items, self.one_of(lua.COMPARISONS))

    def _saga(self, _scope: Scope, _depth: int) -> lua.Node:
        return lua.Saga(tuple(self.one_of(FUNCTIONS) for _ in range(self.number(1, 3))), self.flag())


VALUES: Final = st.sampled_from(
    (
        None,
        1,
        -7,
        2.5,
        "text",
        "grüße",
        True,
        [1, 2, 3],
        {"b": 1, "a": [1, {"z": None}]},
        b"\xff\x00",
        {"1": 1, 1: 2},
        [],
        {},
    )
)


@st.composite
def bodies(draw: Draw, *, statements: int, children: tuple[str, ...] = ()) -> lua.Block:
    """The body of a program."""
    builder = Builder(draw, draw(st.integers(statements // 2, statements)), children)
    body = builder.block(Scope(), 0, statements)
    if draw(st.integers(0, 9)) == 0:
        body = lua.Block((*body.statements, lua.Continue(draw(st.integers(1, 2)))))
    return body


@st.composite
def _outcomes(draw: Draw) -> tuple[Outcome, ...]:
    """What the attempts of a function come to; the last one stays and ends every call."""
    found = []
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(("answer", "fail", "fail", "lost", "final")))
        found.append(Outcome(kind, draw(VALUES), draw(st.sampled_from((0, 0, 3, 900, 6000)))))
    last = draw(st.sampled_from(("answer", "answer", "answer", "final")))
    return (*found, Outcome(last, draw(VALUES), draw(st.sampled_from((0, 2, 800)))))


@st.composite
def scenarios(draw: Draw) -> Scenario:
    """A program, its children and functions, and what happens to it from outside."""
    # The children first: hypothesis shrinks what comes early to the least, and a failure hardly ever needs them.
    kids = {
        kid: lua.program(draw(bodies(statements=CHILD_STATEMENTS_MAX)), draw(st.sampled_from(lua.ENDINGS)))
        for kid in CHILDREN
    }
    body = draw(bodies(statements=STATEMENTS_MAX, children=CHILDREN))
    main = lua.program(body, draw(st.sampled_from(lua.ENDINGS)))
    happenings = []
    for _ in range(draw(st.integers(0, 5))):
        kind = draw(st.sampled_from(("s1", "s2", "s3", "s1", "cancel", "terminate")))
        happenings.append(Happening(draw(st.sampled_from((0, 1, 30, 1000, 2500, 20_000))), kind, draw(VALUES)))
    functions = {name: draw(_outcomes()) for name in (*FUNCTIONS, "undo")}
    return Scenario(
        workflows={"main": main, **{kid: source for kid, source in kids.items() if f"app:{kid}" in main}},
        functions=functions,
        happenings=tuple(happenings),
        seed=draw(st.integers(0, 10_000)),
        start_delay_ms=draw(st.sampled_from((0, 0, 0, 700))),
        attempts=draw(st.sampled_from((0, 0, 2))),
        run_timeout_ms=draw(st.sampled_from((0, 0, 0, 4000))),
    )
