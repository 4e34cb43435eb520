"""Code that tries to hold up the machine: every place where C works while nobody looks, under the time of a step.

A workflow, a function and a process share their node's event loop with everybody else's, so what one of them can make it
wait for is bounded, whatever its code does. Not here: what leads out of a unit (tests/test_sandbox.py).
"""

from __future__ import annotations

import time
from typing import Final

import pytest

from mesh import codec
from mesh.failure import Failure
from node.machine.lua_tokens import TypedSyntaxError
from node.machine.source_edits import JOIN
from node.machine.typed_lua import erase_for_machine
from node.machine.vm import LuaVM
from tests.units import machine_of

# The bound is half a second; a machine that is busy with other things counts more for the same work.
CPU_S_MAX: Final = 1.0

STALLS: Final[dict[str, str]] = {
    "joining a long text": "local s = ('x'):rep(30 << 20) while true do local t = s .. 'y' end",
    "joining that grows": "local s = ('x'):rep(4096) local t = s while true do t = t .. s end",
    "joining many": "local s = ('x'):rep(1 << 20) while true do local t = s .. s .. s .. s .. s .. s .. s end",
    "joining a number": "local s = ('x'):rep(30 << 20) while true do local t = 1 .. s end",
    "texts made by joining alone": "local s = 'x' for i = 1, 24 do s = s .. s end local t = s .. '' while s == t do end",
    "zeros made by joining, compared": "local s = '\\0' for i = 1, 22 do s = s .. s end local a, b = s .. 'a', s .. 'b' while a < b do end",
    "comparing equal texts": "local s, t = ('x'):rep(30 << 20), ('x'):rep(30 << 20) while s == t do end",
    "long keys": "local t = {} while true do t[('x'):rep(30 << 20)] = 1 end",
    "arithmetic on a long text": "local s = (' '):rep(60 << 20) .. '1' while true do pcall(function() return s + 1 end) end",
    "tonumber": "local s = (' '):rep(60 << 20) while true do tonumber(s) tonumber(s, 36) end",
    "rep": "while true do local t = ('x'):rep(60 << 20) end",
    "sub": "local s = ('x'):rep(60 << 20) while true do local t = s:sub(2) end",
    "byte": "local s = ('x'):rep(500000) while true do select('#', s:byte(1, -1)) end",
    "char": "local t = {} for i = 1, 500000 do t[i] = 65 end while true do string.char(table.unpack(t)) end",
    "upper": "local s = ('x'):rep(60 << 20) while true do s:upper() end",
    "format": "local s = ('x'):rep(60 << 20) while true do ('%s'):format(s) end",
    "format with quotes": "local s = ('\\0'):rep(10 << 20) while true do ('%q'):format(s) end",
    "format of a float": "while true do ('%99.99f'):format(1e308) end",
    "pack": "while true do string.pack('s4', ('x'):rep(30 << 20)) end",
    "pack that pads": "while true do string.pack('c60000000', 'x') end",
    "unpack": "local s = ('x'):rep(60 << 20) .. '\\0' while true do string.unpack('z', s) end",
    "a long format": "local s, f = ('x'):rep(1 << 20), ('b'):rep(1 << 20) while true do pcall(string.unpack, f, s) end",
    "find a text": "local s = ('x'):rep(30 << 20) local p = ('x'):rep(15 << 20) .. 'y' while true do s:find(p, 1, true) end",
    "find without a special character": "local s = ('x'):rep(30 << 20) local p = ('x'):rep(999) .. 'y' while true do s:find(p) end",
    "a pattern over a long text": "local s = ('x'):rep(60 << 20) while true do s:find('[^x]') end",
    "a long set": "local s = ('x'):rep(1 << 20) local p = '[' .. ('y'):rep(1 << 20) .. ']' while true do s:find(p) end",
    "options": "local s = ('a'):rep(3000) local p = ('a?'):rep(150) .. ('a'):rep(150) .. 'b' while true do s:match(p) end",
    "options on a short text": "local s = ('x'):rep(30) local p = ('x?'):rep(30) .. ('x'):rep(30) while true do s:match(p) end",
    "a short text, many repetitions": "local s = ('a'):rep(16) while true do s:match('.-.-.-.-.-.-.-b') end",
    "backtracking": "local s = ('a'):rep(9999) while true do s:match('^.-.-b') end",
    "brackets": "local s = ('('):rep(9999) while true do s:match('%b()') end",
    "back references": "local s = ('a'):rep(1 << 20) while true do s:match('(a*)%1b') end",
    "gmatch": "local s = ('a'):rep(60 << 20) while true do for w in s:gmatch('b') do end end",
    "gsub with a large replacement": "local r = ('b'):rep(1 << 20) while true do (('a'):rep(63)):gsub('a', r) end",
    "gsub with a table": "local r = {a = ('b'):rep(1 << 20)} (('a'):rep(1 << 20)):gsub('a', r)",
    "gsub once": "local s = ('a'):rep(60 << 20) while true do s:gsub('b', '', 1) end",
    "a list that is joined": "local t = {} for i = 1, 100000 do t[i] = ('x'):rep(600) end while true do table.concat(t) end",
    "a separator": "local t = {} for i = 1, 100000 do t[i] = '' end table.concat(t, ('x'):rep(1 << 20))",
    "moving": "local t = {} while true do table.move(t, '1', '999999', 2) end",
    "inserting in front": "local t = {} for i = 1, 900000 do t[i] = i end while true do table.insert(t, 1, 0) end",
    "removing in front": "local t = {} for i = 1, 2000000 do t[i] = i end while true do table.remove(t, 1) end",
    "unpacking": "while true do pcall(table.unpack, {}, 1, 900000) end",
    "selecting": "local t = {} for i = 1, 200000 do t[i] = i end while true do select(-1, table.unpack(t)) end",
    "sorting texts that begin alike": "local p = ('\\0'):rep(30000) local t = {} for i = 1, 1000 do t[i] = p .. (i * 7919 % 1000) end table.sort(t)",
    "keys that begin alike": "local p = ('\\0'):rep(30000) local t = {} for i = 1, 1000 do t[p .. i] = 1 end for k in pairs(t) do end",
    "next of many": "local t = {} for i = 1, 500000 do t['k' .. i] = 1 end while true do next(t) end",
    "short coroutines": "while true do coroutine.wrap(function() for i = 1, 1990 do end end)() end",
    "short coroutines that close": "local m = {__close = function() for i = 1, 1900 do end end} while true do local co = coroutine.create(function() local x <close> = setmetatable({}, m) coroutine.yield() end) coroutine.resume(co) coroutine.close(co) end",
    "nested coroutines": "local function f() for i = 1, 1900 do end local co = coroutine.wrap(f) return co() end while true do pcall(f) end",
    "long work in many coroutines": "local s, t = ('x'):rep(9 << 20), ('x'):rep(9 << 20) while true do coroutine.wrap(function() for i = 1, 4 do local b = s == t end end)() end",
    "chains of __index": "local t = {} for i = 1, 1900 do t = setmetatable({}, {__index = t}) end while true do local x = t.x end",
    "what is closed while it ends": "local m = {__close = function() while true do end end} local function f(n) local t <close> = setmetatable({}, m) if n > 0 then return (f(n - 1)) end while true do end end f(150)",
    "handlers": "xpcall(error, function() while true do end end)",
    "a text that is raised": "error(('x'):rep(60 << 20))",
    "an object that is raised": "error(setmetatable({}, {__tostring = function() while true do end end}))",
    "a name of a type": "error(setmetatable({}, {__name = ('x'):rep(60 << 20)}))",
    "a large result": "local t = {} for i = 1, 2000000 do t[i] = i end return t",
    "a result that is a lattice": "local t = {1, 1} for i = 1, 40 do t = {t, t} end return t",
    "JSON of a text": "local s = ('x'):rep(60 << 20) while true do json.encode(s) end",
    "reading JSON": "local s = '\"' .. ('x'):rep(30 << 20) .. '\"' while true do json.decode(s) end",
    "reading a number": "local s = ('1'):rep(60 << 20) while true do pcall(json.decode, s) end",
    "JSON that is nested": "local s = ('['):rep(1 << 20) while true do pcall(json.decode, s) end",
    "digests": "local s = ('x'):rep(60 << 20) while true do require('hash').sha256(s) end",
    "base64": "local s = ('xxxx'):rep(7 << 20) while true do base64.decode(s) end",
    "garbage": "while true do local t = {{}, {}, {}, {}, {}, {}} end",
    "keys": "local t, i = {}, 0 while true do i = i + 1 t['k' .. i] = i end",
}  # fmt: skip


@pytest.mark.parametrize("name", STALLS)
def test_no_code_holds_the_machine_up_for_long(name: str) -> None:
    """The event loop waits for a step; a node that is silent for a second is taken for gone."""
    machine = machine_of(
        f"return function() {STALLS[name]} end", LuaVM(), modules=("json", "base64", "hash"), kind="workflow"
    )
    began = time.thread_time()
    ops = machine.feed("start", 1, codec.pack([]))
    took = time.thread_time() - began
    assert took < CPU_S_MAX, f"{name} took {took:.2f} s"
    assert ops
    assert ops[-1].kind == "end"


def test_a_step_with_long_texts_that_does_what_is_usual_is_left_alone() -> None:
    """A bound on work must not hit work: a megabyte is read, changed, searched and returned."""
    machine = machine_of(
        """return function()
          local text = ("line of text\\n"):rep(80000)
          local lines = {}
          for line in text:gmatch("[^\\n]+") do lines[#lines + 1] = line:upper() end
          local joined = table.concat(lines, "\\n") .. "\\n"
          local changed, n = joined:gsub("LINE", "row")
          assert(changed:find("row OF TEXT", 900000, true))
          return #json.encode(changed) .. ":" .. n
        end""",
        LuaVM(),
        kind="workflow",
    )
    ops = machine.feed("start", 1, codec.pack([]))
    assert codec.decode_outcome(ops[-1].payload or b"")[1] == "1040002:80000"


def test_what_a_replay_repeats_may_take_longer_than_the_first_time() -> None:
    """A slower machine that takes a workflow over must get through what another one has done."""
    spent = {}
    for replaying in (False, True):
        machine = machine_of(
            "return function() local s = ('x'):rep(30 << 20) while true do local t = s .. 'y' end end", LuaVM()
        )
        began = time.thread_time()
        machine.feed("start", 1, codec.pack([]), replaying=replaying)
        spent[replaying] = time.thread_time() - began
    assert spent[True] > 2 * spent[False]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("'a' .. 'b' .. 'c'", "abc"),
        ("1 .. 2", "12"),
        ("-1 .. 2 + 3 .. 'x' == '-15x' and 'y' .. 'z' or 'n'", "yz"),
        ("2 ^ -1 .. 'x'", "0.5x"),
        ("#'abc' .. 'x'", "3x"),
        ("({'p' .. 'q'})[1] .. ('r' .. 's'):upper()", "pqRS"),
        ("(function(...) return 'n' .. ... end)('one', 'two')", "none"),
        ("'n' .. (function() return 1, 2 end)()", "n1"),
        ("errors.new('boom') .. '!' .. 1", "boom!1"),
        ("setmetatable({}, {__concat = function(a, b) return 'left' end}) .. 'x' .. 'y'", "left"),
        ("'x' .. 'y' .. setmetatable({}, {__concat = function(a, b) return a .. 'right' end})", "xyright"),
        ("('a' :: string) .. ('b' as string) .. 'c' as string", "abc"),
        ("select('#', 'a' .. 'b', 'c' .. 'd')", 2),
    ],
)  # fmt: skip
def test_joining_gives_what_lua_gives(expression: str, value: object) -> None:
    """`..` is a call behind the scenes, and nobody may notice."""
    machine = machine_of(f"return function() local x = {expression} return x end", LuaVM(), kind="workflow")
    assert codec.decode_outcome(machine.feed("start", 1, codec.pack([]))[-1].payload or b"")[1] == value


def test_a_join_that_fails_names_the_line_it_stands_on() -> None:
    machine = machine_of("return function()\n local x\n return 'a' .. x .. 'b'\nend", LuaVM(), name="join.lua")
    _, failure = codec.decode_outcome(machine.feed("start", 1, codec.pack([]))[-1].payload or b"")
    assert isinstance(failure, Failure)
    assert failure.message == "join.lua:3: attempt to concatenate a nil value"


def test_code_cannot_take_the_place_of_joining() -> None:
    with pytest.raises(TypedSyntaxError, match="a name of the machine's own"):
        erase_for_machine(f"{JOIN} = nil return 'a' .. 'b'", "f.lua")
    assert erase_for_machine("return a\n..\nb", "f").count("\n") == 2


def test_what_is_remembered_for_all_units_is_bounded() -> None:
    """Patterns and formats are remembered per VM: long ones must not fill it with what no unit holds."""
    vm = LuaVM()
    machine = machine_of(
        "return function() for i = 1, 300 do local p = i .. ('%a-'):rep(2000) pcall(string.find, ('x'):rep(30), p) "
        "pcall(string.format, ('%%'):rep(20000) .. i) end end",
        vm,
    )
    machine.feed("start", 1, codec.pack([]))
    machine.close()
    vm._lua.gccollect()
    assert vm._memory_used() < 8 * 1024 * 1024
