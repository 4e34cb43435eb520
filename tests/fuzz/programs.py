"""Workflow programs as trees: what a generated workflow is made of, and the Lua that it stands for.

A program is a `Block` of statements; every node is a value and knows its Lua. Names are given by whoever builds the
tree (`tests.fuzz.strategies`), which sees to it that they are known where they are used and have the type that is
needed there. Whatever a program sees it says by `out(...)`: to its log, which is its result.

Not here: what happens around a program (`tests.fuzz.scenarios`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

Type = Literal["number", "text", "flag", "table", "any"]

PRELUDE: Final = """\
local log, said = {}, 0
local function show(v, depth)
  if type(v) ~= "table" or depth > 3 then return type(v) == "number" and math.type(v) .. tostring(v) or tostring(v) end
  local parts = {}
  local ok, err = pcall(function()
    for k, x in pairs(v) do parts[#parts + 1] = show(k, depth + 1) .. "=" .. show(x, depth + 1) end
  end)
  if not ok then parts[#parts + 1] = "raised " .. tostring(err) end
  return "{" .. table.concat(parts, " ") .. "}"
end
local function out(...)
  local parts = {}
  for i = 1, select("#", ...) do parts[i] = show((select(i, ...)), 0) end
  said = said + 1
  if said <= 400 then log[#log + 1] = table.concat(parts, ",") end
  print(log[#log])
end
local function body(m) local p = m and m:payload() return p and (type(p) == "table" and #p or p:data()) end
local quick = funcs.new():with_options{retry_policy = {initial_interval = "10ms", maximum_attempts = 3}}
local slow = funcs.new():with_options{retry_policy = {initial_interval = "7s", maximum_attempts = 4}}
local once = funcs.new():with_options{retry_policy = {maximum_attempts = 1}}
local hasty = funcs.new():with_options{start_to_close_timeout = "700ms", retry_policy = {maximum_attempts = 2, initial_interval = "1ms"}}
"""


class Node:
    """A part of a program."""

    __slots__ = ()

    def lua(self) -> str:
        """Its Lua."""
        raise NotImplementedError


# -- expressions ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Constant(Node):
    """A number, text, boolean or nil, as Lua writes it."""

    text: str

    def lua(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Name(Node):
    """A variable."""

    name: str

    def lua(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Binary(Node):
    """Two values with an operator between them."""

    operator: str
    left: Node
    right: Node

    def lua(self) -> str:
        return f"({self.left.lua()} {self.operator} {self.right.lua()})"


@dataclass(frozen=True, slots=True)
class Apply(Node):
    """A call of something that answers at once. form: Lua with `{}` where the arguments stand."""

    form: str
    arguments: tuple[Node, ...] = ()

    def lua(self) -> str:
        parts = self.form.split("{}")
        values = [argument.lua() for argument in self.arguments]
        return parts[0] + "".join(value + part for value, part in zip(values, parts[1:], strict=True))


@dataclass(frozen=True, slots=True)
class Table(Node):
    """A table: keys of any kind, the same one several times, holes."""

    entries: tuple[tuple[Node, Node], ...]

    def lua(self) -> str:
        return "{" + ", ".join(f"[{key.lua()}] = {value.lua()}" for key, value in self.entries) + "}"


@dataclass(frozen=True, slots=True)
class List(Node):
    """A table that is a list."""

    items: tuple[Node, ...]

    def lua(self) -> str:
        return "{" + ", ".join(item.lua() for item in self.items) + "}"


# What gives a value at once, with the types that it takes: (result, form, argument types).
FORMS: Final[tuple[tuple[Type, str, tuple[Type, ...]], ...]] = (
    ("number", "time.now():unix_nano()", ()),
    ("number", "os.time()", ()),
    ("number", "os.clock()", ()),
    ("number", "math.random(100)", ()),
    ("number", "math.random()", ()),
    ("number", "math.random(0)", ()),
    ("number", "workflow.history_length()", ()),
    ("number", "workflow.history_size()", ()),
    ("number", "#{}", ("text",)),
    ("number", "math.floor({} % 1000)", ("number",)),
    ("number", "math.abs({})", ("number",)),
    ("number", "({}):byte(1) or 0", ("text",)),
    ("number", "select('#', table.unpack({}, 1, 5))", ("table",)),
    ("text", "uuid.v4()", ()),
    ("text", "uuid.v7()", ()),
    ("text", "uuid.v1()", ()),
    ("text", "uuid.v5('6ba7b810-9dad-11d1-80b4-00c04fd430c8', {})", ("text",)),
    ("text", "os.date()", ()),
    ("text", "time.now():format_rfc3339()", ()),
    ("text", "tostring({})", ("any",)),
    ("text", "tostring({})", ("table",)),
    ("text", "tostring(print)", ()),
    ("text", "tostring(coroutine.running())", ()),
    ("text", "tostring(function() end)", ()),
    ("text", "process.pid()", ()),
    ("text", "workflow.info().run_id", ()),
    ("text", "type({})", ("any",)),
    ("text", "string.format('%s|%5.2f|%q', {}, {}, {})", ("any", "number", "text")),
    ("text", "string.format('%x', math.floor({} % 4096))", ("number",)),
    ("text", "(({}):gsub('%w', {}))", ("text", "table")),
    ("text", "({}):upper():rep(2, '-')", ("text",)),
    ("text", "(({}):reverse())", ("text",)),
    ("text", "tostring(json.encode({}))", ("table",)),
    ("text", "base64.encode({})", ("text",)),
    ("text", "crypto.random.string(6)", ()),
    ("text", "hash.sha256({})", ("text",)),
    ("flag", "({} == {})", ("any", "any")),
    ("flag", "(tostring({}) < tostring({}))", ("any", "any")),
    ("flag", "coroutine.isyieldable()", ()),
    ("flag", "(next({}) == nil)", ("table",)),
    ("any", "(next({}))", ("table",)),
    ("any", "select(2, next({}))", ("table",)),
    ("any", "({})[{}]", ("table", "any")),
    ("any", "ctx.get('k')", ()),
    ("any", "math.tointeger({})", ("number",)),
    ("any", "tonumber({})", ("text",)),
    (
        "any",
        "errors.new{{message = {}, kind = 'Conflict', details = {}}}".replace("{{", "{").replace("}}", "}"),
        ("text", "table"),
    ),
    ("any", "errors.wrap(errors.new({}), {})", ("text", "text")),
    ("any", "setmetatable({}, {__tostring = function() return 'shown' end})", ("table",)),
    ("table", "workflow.info()", ()),
    ("table", "os.date('*t')", ()),
    ("table", "{table.unpack({}, 1, 3)}", ("table",)),
    ("table", "({})", ("table",)),
)


# -- statements -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Block(Node):
    """Statements, one after the other, in a scope of their own."""

    statements: tuple[Node, ...] = ()

    def lua(self) -> str:
        return "\n".join(statement.lua() for statement in self.statements)


def _indented(block: Node) -> str:
    return "\n".join(f"  {line}" for line in block.lua().splitlines())


@dataclass(frozen=True, slots=True)
class Local(Node):
    """A new variable."""

    name: str
    value: Node

    def lua(self) -> str:
        return f"local {self.name} = {self.value.lua()}"


@dataclass(frozen=True, slots=True)
class Assign(Node):
    """A variable, or an entry of a table, gets another value."""

    name: str
    value: Node
    key: Node | None = None

    def lua(self) -> str:
        if self.key is None:
            return f"{self.name} = {self.value.lua()}"
        # A key that is nil or not a number raises: that must be the same elsewhere, too.
        return f"out('set', pcall(rawset, {self.name}, {self.key.lua()}, {self.value.lua()}))"


@dataclass(frozen=True, slots=True)
class Out(Node):
    """Something is seen."""

    label: str
    values: tuple[Node, ...]

    def lua(self) -> str:
        return f"out({', '.join([repr(self.label), *(value.lua() for value in self.values)])})"


@dataclass(frozen=True, slots=True)
class If(Node):
    """One of two blocks."""

    condition: Node
    then: Block
    otherwise: Block

    def lua(self) -> str:
        return f"if {self.condition.lua()} then\n{_indented(self.then)}\nelse\n{_indented(self.otherwise)}\nend"


@dataclass(frozen=True, slots=True)
class Loop(Node):
    """A loop that counts, with a `goto continue` when a condition holds. form: for, while, repeat or goto."""

    form: Literal["for", "while", "repeat", "goto"]
    name: str
    times: int
    skip: Node
    body: Block

    def lua(self) -> str:
        i, n = self.name, self.times
        inner = f"  if {self.skip.lua()} then goto next_{i} end\n  do\n{_indented(self.body)}\n  end"
        label = f"  ::next_{i}::"
        if self.form == "for":
            return f"for {i} = 1, {n} do\n{inner}\n{label}\nend"
        if self.form == "while":
            return f"do local {i} = 0 while {i} < {n} do\n  {i} = {i} + 1\n{inner}\n{label}\nend end"
        if self.form == "repeat":
            # The label stands before the condition's scope ends: what the body declares is in a block of its own.
            return f"do local {i} = 0 repeat\n  {i} = {i} + 1\n{inner}\n{label}\nuntil {i} >= {n} end"
        return (
            f"do local {i} = 0 ::top_{i}:: {i} = {i} + 1\n{inner}\n{label}\n  if {i} < {n} then goto top_{i} end\nend"
        )


@dataclass(frozen=True, slots=True)
class Traverse(Node):
    """A table is gone through and changed meanwhile. by: pairs, ipairs, next, or next called by hand."""

    table: str
    names: tuple[str, str]
    by: Literal["pairs", "ipairs", "next", "by hand"]
    change: Literal["nothing", "remove it", "remove another", "set it", "add"]
    body: Block

    def lua(self) -> str:
        t, (k, v) = self.table, self.names
        change = {
            "nothing": "",
            "remove it": f"{t}[{k}] = nil",
            "remove another": f"local other = next({t}, {k}) if other ~= nil then {t}[other] = nil end",
            "set it": f"{t}[{k}] = tostring({v}) .. '!'",
            "add": f"if steps < 5 then {t}['new' .. steps] = steps end",
        }[self.change]
        body = f"  steps = steps + 1 if steps > 12 then break end\n  out('at', {k}, {v})\n  {change}\n{_indented(self.body)}"
        loops = {
            "pairs": f"for {k}, {v} in pairs({t}) do\n{body}\nend",
            "ipairs": f"for {k}, {v} in ipairs({t}) do\n{body}\nend",
            "next": f"for {k}, {v} in next, {t} do\n{body}\nend",
            "by hand": f"local {k}, {v} = next({t}) while {k} ~= nil do\n{body}\n  {k}, {v} = next({t}, {k})\nend",
        }
        return f"out('traversed', pcall(function() local steps = 0\n{loops[self.by]}\nend))"


@dataclass(frozen=True, slots=True)
class Function(Node):
    """A closure under a name; it takes one argument."""

    name: str
    parameter: str
    body: Block
    result: Node

    def lua(self) -> str:
        # More calls than that are refused: functions that call each other would never end.
        return (
            f"local {self.name} do local calls = 0 {self.name} = function({self.parameter})\n"
            f"  calls = calls + 1 if calls > 6 then return 'enough' end\n{_indented(self.body)}\n"
            f"  return {self.result.lua()}\nend end"
        )


@dataclass(frozen=True, slots=True)
class Protected(Node):
    """A block in pcall or xpcall, or with something that is closed when it is left."""

    form: Literal["pcall", "xpcall", "close"]
    body: Block

    def lua(self) -> str:
        body = _indented(self.body)
        if self.form == "close":
            guard = "local guard <close> = setmetatable({}, {__close = function(_, e) out('closed', e) end})"
            return f"out('left', pcall(function()\n  {guard}\n{body}\nend))"
        if self.form == "xpcall":
            return f"out('handled', xpcall(function()\n{body}\nend, function(e) return {{handled = tostring(e)}} end))"
        return f"out('protected', pcall(function()\n{body}\nend))"


@dataclass(frozen=True, slots=True)
class Raise(Node):
    """An error of any kind."""

    value: Node
    level: int

    def lua(self) -> str:
        return f"if true then error({self.value.lua()}, {self.level}) end"


@dataclass(frozen=True, slots=True)
class Call(Node):
    """A function is called and waited for."""

    caller: str  # funcs, quick, slow, once, hasty
    function: str
    arguments: tuple[Node, ...]

    def lua(self) -> str:
        operator = "." if self.caller == "funcs" else ":"
        given = "".join(f", {argument.lua()}" for argument in self.arguments)
        return f"out('called', {self.caller}{operator}call('app:{self.function}'{given}))"


@dataclass(frozen=True, slots=True)
class Async(Node):
    """A function is called and not waited for."""

    name: str
    caller: str
    function: str
    arguments: tuple[Node, ...]

    def lua(self) -> str:
        operator = "." if self.caller == "funcs" else ":"
        given = "".join(f", {argument.lua()}" for argument in self.arguments)
        return f"local {self.name} = {self.caller}{operator}async('app:{self.function}'{given})"


@dataclass(frozen=True, slots=True)
class Future(Node):
    """What is done with a call that was begun."""

    name: str
    what: Literal["await", "cancel", "look", "select"]

    def lua(self) -> str:
        f = self.name
        if self.what == "await":
            return f"do local v, ok = {f}:channel():receive() out('future', ok, tostring(v), v and v.data and v:data()) end"
        if self.what == "cancel":
            return f"out('cancel', {f}:cancel(), {f}:is_canceled())"
        if self.what == "look":
            return (
                f"out('future', {f}:is_complete(), {f}:is_canceled(), tostring(({f}:result())), tostring({f}:error()))"
            )
        return (
            f"do local limit = time.after('900ms') local r = channel.select{{{f}:channel():case_receive(), limit:case_receive()}}"
            f" out('first', r.channel == limit, r.ok) end"
        )


@dataclass(frozen=True, slots=True)
class Sleep(Node):
    """Time passes."""

    ms: int

    def lua(self) -> str:
        return f"time.sleep('{self.ms}ms') out('slept', time.now():unix_nano())"


@dataclass(frozen=True, slots=True)
class Timer(Node):
    """A timer under a name."""

    name: str
    ms: int

    def lua(self) -> str:
        return f"local {self.name} = time.timer('{self.ms}ms')"


@dataclass(frozen=True, slots=True)
class TimerUse(Node):
    """What is done with a timer."""

    name: str
    what: Literal["stop", "reset", "await"]

    def lua(self) -> str:
        t = self.name
        if self.what == "await":
            return (
                f"do local limit = time.after('2s') local r = channel.select{{{t}:channel():case_receive(), limit:case_receive()}}"
                f" out('timer', r.channel == limit, r.ok, tostring(r.value)) end"
            )
        return f"out('timer', {t}:stop())" if self.what == "stop" else f"out('timer', {t}:reset('40ms'))"


@dataclass(frozen=True, slots=True)
class Ticks(Node):
    """A ticker, heard a few times."""

    ms: int
    times: int

    def lua(self) -> str:
        return (
            f"do local ticker = time.ticker('{self.ms}ms') for _ = 1, {self.times} do out('tick', (ticker:channel():receive()):unix_nano()) end"
            " ticker:stop() end"
        )


@dataclass(frozen=True, slots=True)
class Channel(Node):
    """A channel under a name."""

    name: str
    size: int

    def lua(self) -> str:
        return f"local {self.name} = channel.new({self.size})"


@dataclass(frozen=True, slots=True)
class ChannelUse(Node):
    """What is done with a channel; sending on a closed one raises."""

    name: str
    what: Literal["send", "receive", "close"]
    value: Node

    def lua(self) -> str:
        if self.what == "send":
            return f"out('sent', pcall(function() return {self.name}:send({self.value.lua()}) end))"
        return f"out('{self.what}', {self.name}:{self.what}())"


@dataclass(frozen=True, slots=True)
class Select(Node):
    """One of several, or a default, or a time that is over."""

    cases: tuple[tuple[str, Node | None], ...]  # channel, and what is sent
    default: bool
    limit_ms: int

    def lua(self) -> str:
        cases = [
            f"{name}:case_receive()" if value is None else f"{name}:case_send({value.lua()})"
            for name, value in self.cases
        ]
        if self.default:
            cases.append("default = true")
        else:
            cases.append("limit:case_receive()")
        limit = "" if self.default else f"local limit = time.after('{self.limit_ms}ms') "
        which = "".join(f", r.channel == {name}" for name, _ in self.cases)
        return f"do {limit}local r = channel.select{{{', '.join(cases)}}} out('selected', r.ok, r.default, tostring(r.value){which}) end"


@dataclass(frozen=True, slots=True)
class Spawn(Node):
    """A coroutine of its own."""

    body: Block

    def lua(self) -> str:
        return f"coroutine.spawn(function()\n{_indented(self.body)}\nend)"


@dataclass(frozen=True, slots=True)
class Coroutine(Node):
    """A coroutine that is resumed by hand, with something between its yields."""

    name: str
    form: Literal["wrap", "create"]
    parts: tuple[tuple[Block, Node], ...]
    resumed: int

    def lua(self) -> str:
        g = self.name
        inner = "\n".join(
            f"{_indented(block)}\n  out('resumed', coroutine.yield({value.lua()}))" for block, value in self.parts
        )
        made = (
            f"local {g} = coroutine.{self.form}(function(first)\n  out('began', first)\n{inner}\n  return 'done'\nend)"
        )
        if self.form == "wrap":
            return f"{made}\nfor i = 1, {self.resumed} do out('yielded', pcall({g}, i)) end"
        return (
            f"{made}\nfor i = 1, {self.resumed} do out('yielded', coroutine.status({g}), coroutine.resume({g}, i)) end"
        )


@dataclass(frozen=True, slots=True)
class Exec(Node):
    """A child that is waited for."""

    child: str
    argument: Node

    def lua(self) -> str:
        return f"out('child', process.exec('app:{self.child}', 'app:worker', {self.argument.lua()}))"


@dataclass(frozen=True, slots=True)
class Child(Node):
    """A child that is not waited for. name: of the variable with its PID."""

    name: str
    child: str
    argument: Node
    policy: Literal["terminate", "abandon", "request_cancel"]
    id: str

    def lua(self) -> str:
        options = f"parent_close_policy = '{self.policy}'" + (f", id = '{self.id}'" if self.id else "")
        return (
            f"local {self.name} = process.with_options{{{options}}}:with_message('s1', 'first'):spawn('app:{self.child}', 'app:worker', "
            f"{self.argument.lua()})\nout('spawned', {self.name})"
        )


@dataclass(frozen=True, slots=True)
class ChildUse(Node):
    """What is done to a child."""

    name: str
    what: Literal["send", "cancel", "terminate"]

    def lua(self) -> str:
        if self.what == "send":
            return f"if {self.name} then out('told', process.send({self.name}, 's2', {{from = process.pid()}})) end"
        return f"if {self.name} then out('{self.what}', process.{self.what}({self.name})) end"


@dataclass(frozen=True, slots=True)
class Hear(Node):
    """A message, an event or a listened topic is waited for, for a time."""

    what: Literal["inbox", "s1", "s2", "events"]
    limit_ms: int

    def lua(self) -> str:
        if self.what == "events":
            source, shown = (
                "process.events()",
                "e.kind, e.from, e.result and e.result.value, e.result and tostring(e.result.error)",
            )
            shown = f"(function(e) if not e then return nil end return {shown} end)(r.value)"
        elif self.what == "inbox":
            source, shown = "process.inbox()", "r.value and r.value:topic(), r.value and r.value:from(), body(r.value)"
        else:
            source, shown = f"process.listen('{self.what}')", "r.value"
        return (
            f"do local limit = time.after('{self.limit_ms}ms') local r = channel.select{{{source}:case_receive(), limit:case_receive()}}"
            f" if r.channel == limit then out('nothing heard') else out('heard', r.ok, {shown}) end end"
        )


@dataclass(frozen=True, slots=True)
class Version(Node):
    """A decision that is recorded."""

    change: str
    least: int
    most: int

    def lua(self) -> str:
        return f"out('version', workflow.version('{self.change}', {self.least}, {self.most}))"


@dataclass(frozen=True, slots=True)
class Attrs(Node):
    """What a workflow says of itself."""

    value: Node

    def lua(self) -> str:
        return f"out('attrs', workflow.attrs{{search = {{n = {self.value.lua()}}}, memo = {{m = {{{self.value.lua()}}}}}}})"


@dataclass(frozen=True, slots=True)
class Sort(Node):
    """A list is sorted, by a comparison that may contradict itself."""

    items: tuple[int, ...]
    comparison: str

    def lua(self) -> str:
        listed = ", ".join(f"{{{item}, {i}}}" for i, item in enumerate(self.items))
        return (
            f"do local list, asked = {{{listed}}}, 0\n"
            f"  out('sorted', pcall(table.sort, list, function(a, b) asked = asked + 1 if asked > 300 then error('enough', 0) end return {self.comparison} end), asked)\n"
            "  for i, x in ipairs(list) do list[i] = x[1] .. ':' .. x[2] end out(table.concat(list, ' ')) end"
        )


COMPARISONS: Final = (
    "a[1] < b[1]", "a[1] <= b[1]", "a[1] > b[1]", "true", "asked % 3 == 0", "math.random(2) == 1", "(a[1] + b[2]) % 2 == 0",
    "tostring(a) < tostring(b)",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Saga(Node):
    """Steps with what undoes them: when one fails, those that were done are undone, the last one first."""

    steps: tuple[str, ...]
    undo_in_parallel: bool

    def lua(self) -> str:
        steps = ", ".join(f"'{step}'" for step in self.steps)
        undone = (
            "futures[i] = funcs.async('app:undo', done[i]) end for i = #done, 1, -1 do out('undone', (futures[i]:channel():receive())) end"
            if self.undo_in_parallel
            else "out('undone', funcs.call('app:undo', done[i])) end"
        )
        return (
            f"do local done, futures = {{}}, {{}}\n  local ok, err = pcall(function()\n    for _, step in ipairs{{{steps}}} do\n"
            f"      local value, problem = quick:call('app:' .. step, step)\n      if problem then error(problem) end\n"
            f"      done[#done + 1] = {{step = step, value = value}}\n    end\n  end)\n"
            f"  if not ok then out('saga failed', tostring(err)) for i = #done, 1, -1 do {undone} else out('saga done', #done) end\nend"
        )


@dataclass(frozen=True, slots=True)
class Continue(Node):
    """The run goes on as a new one, a few times. counter: the variable with how often it has."""

    times: int

    def lua(self) -> str:
        return f"if round < {self.times} then process.upgrade(nil, round + 1) end"


ENDINGS: Final = (
    "return log", "return log, nil", "return nil, errors.new{message = table.concat(log, ';'), kind = 'Conflict'}", "error('the end ' .. #log)",
    "error(errors.new{message = 'typed', kind = 'Invalid', retryable = false, details = {log = log}})", "return log, 'text'",
)  # fmt: skip


def program(body: Block, ending: str) -> str:
    """The file of a workflow."""
    return f"return function(round)\nround = math.type(round) == 'integer' and round >= 0 and round or 0\n{PRELUDE}out('round', round)\ndo\n{_indented(body)}\nend\n{ending}\nend\n"


def parts_of(node: Node) -> Iterator[Node]:
    """A node and everything in it."""
    yield node
    for name in getattr(node, "__slots__", ()):
        yield from _parts_in(getattr(node, name))


def _parts_in(value: object) -> Iterator[Node]:
    if isinstance(value, Node):
        yield from parts_of(value)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            yield from _parts_in(item)
