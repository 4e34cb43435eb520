"""The standard library of a unit, node/lua from patterns.lua to environment.lua: what it finds there, and has for itself."""

# Lines of Lua inside strings are left unbroken.

from __future__ import annotations

import calendar
import time
from collections.abc import Iterator
from typing import Any  # what lupa hands out is untyped

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lupa.lua54 import LuaError

from tests.lua_chunks import STDLIB, Chunks

NOW_NS = 1_700_000_000_123_456_789


class Units(Chunks):
    """A VM with the standard library, in which `user` runs code in the environment of a named unit."""

    def __init__(self) -> None:
        super().__init__(*STDLIB, now_ns=NOW_NS)
        self.run("K.globals.new_error = K.new_error")
        self._enter = self.run(
            """
            local now = ...
            local units = {}
            return function(name, source)
              local unit = units[name]
              if not unit then
                unit = {deterministic = true, now = now, started = now - 2500000000, next_seq = 1, seed = "seed of " .. name}
                units[name] = unit
                K.make_env(unit)
              end
              K.enter(unit)
              return assert(load(source, "@user.lua", "t", unit.env))
            end
            """,
            NOW_NS,
        )

    def user(self, source: str, *args: object, name: str = "a") -> Any:
        return self._enter(name.encode(), source.encode())(*args)


@pytest.fixture
def lua() -> Iterator[Units]:
    units = Units()
    yield units
    units.run("K.leave()")


def failure(lua: Units, body: str) -> str:
    """The text of the error that `body` raises, caught by the user's own pcall."""
    ok, text = lua.user(f"local ok, e = pcall(function() {body}\nend) return ok, tostring(e)")
    assert not ok
    assert isinstance(text, bytes)
    return text.decode()


# What is there


def test_globals_are_exactly_those_of_the_contract(lua: Units) -> None:
    names = (
        lua.user("local n = {} for k in pairs(_G) do n[#n + 1] = k end return table.concat(n, ' ')").decode().split()
    )
    assert names == sorted(
        [
            "_G",
            "_VERSION",
            "assert",
            "boolean",
            "coroutine",
            "error",
            "errors",
            "getmetatable",
            "integer",
            "ipairs",
            "math",
            "new_error",
            "next",
            "number",
            "os",
            "package",
            "pairs",
            "pcall",
            "print",
            "rawequal",
            "rawget",
            "rawset",
            "select",
            "setmetatable",
            "string",
            "table",
            "tonumber",
            "tostring",
            "type",
            "unpack",
            "xpcall",
        ]
    )


@pytest.mark.parametrize(
    "name",
    [
        "load",
        "loadstring",
        "dofile",
        "loadfile",
        "collectgarbage",
        "rawlen",
        "io",
        "debug",
        "utf8",
        "warn",
        "python",
        "string.dump",
        "os.execute",
        "os.exit",
        "os.getenv",
        "os.remove",
        "os.rename",
        "os.tmpname",
        "os.setlocale",
        "package.loadlib",
        "package.searchers",
        "package.loaded.io",
        "package.loaded._G.debug",
    ],
)
def test_what_is_missing_on_purpose_is_missing(lua: Units, name: str) -> None:
    assert lua.user(f"return {name} == nil, rawget(_G, '{name}') == nil") == (True, True)


def test_env_is_its_own_g(lua: Units) -> None:
    assert lua.user("x = 1 return _G.x, _G._G == _G, package.loaded._G == _G, package.loaded.string == string") == (
        1, True, True, True,
    )  # fmt: skip


def test_callable_types_return_their_kind_and_raise_for_others(lua: Units) -> None:
    assert lua.user("return string('a'), number(1.5), integer(3), boolean(false)") == (b"a", 1.5, 3, False)
    assert failure(lua, "string(1)") == "user.lua:1: string expected, got number"
    assert failure(lua, "integer(1.5)") == "user.lua:1: integer expected, got number"
    assert failure(lua, "boolean(nil)") == "user.lua:1: boolean expected, got nil"


def test_older_functions_of_math_are_there(lua: Units) -> None:
    got = lua.user(
        "return math.pow(2, 10), math.log10(1000), math.atan2(1, 0), math.sinh(1), math.cosh(1), math.tanh(1),"
        "math.sinh(1e-9), math.tanh(1000), math.ldexp(0.75, 4), math.frexp(12)"
    )
    assert got[:6] == pytest.approx(
        (1024.0, 3.0, 1.5707963267948966, 1.1752011936438014, 1.5430806348152437, 0.7615941559557649)
    )
    assert got[6:] == (1e-9, 1.0, 12.0, 0.75, 4)
    assert lua.user("return math.frexp(5e-324), math.ldexp(0.5, -1073)") == (0.5, 5e-324)
    assert lua.user("return select(2, math.frexp(5e-324))") == -1073


def test_print_is_one_info_line_joined_by_spaces(lua: Units) -> None:
    lua.run("lines = {} K.log = function(level, text) lines[#lines + 1] = level .. '|' .. text end")
    assert lua.user("return select('#', print('a', nil, 1.0, true))") == 0
    assert lua.run("return #lines, lines[1]") == (1, b"info|a nil 1.0 true")


def test_string_functions_take_errors_for_text(lua: Units) -> None:
    got = lua.user(
        "local e = new_error('', 'boom: 42') local s = getmetatable('').__index "
        "return s.find(e, '42', 1, true), s.upper(e), string.match(e, '%d+'), string.format('%s!', e), #string.rep(e, 2),"
        "string.gsub(e, 'o', '0'), string.len(e), string.sub(e, 1, 2), string.byte(e)"
    )
    assert got == (7, b"BOOM: 42", b"42", b"boom: 42!", 16, b"b00m: 42", 8, b"bo", 98)


# Units do not see each other


def test_additions_to_libraries_are_seen_by_their_unit_alone(lua: Units) -> None:
    """The string methods too: the real metatable of strings is one per VM."""
    lua.user("function string.shout(s) return s:upper() .. '!' end math.answer = 42 string.upper = string.lower x = 1")
    assert lua.user("return ('Ab'):shout(), math.answer") == (b"ab!", 42)
    assert lua.user("return string.shout, math.answer, x, ('Ab'):upper()", name="b") == (None, None, None, b"AB")
    assert lua.user("return pcall(function() return ('Ab'):shout() end)", name="b")[0] is False
    assert lua.user("return ('Ab'):shout()") == b"ab!"
    lua.run("K.leave()")
    assert lua.run("return ('Ab'):upper()") == b"AB"


def test_the_metatable_of_strings_can_be_read_but_not_changed(lua: Units) -> None:
    lua.user("local m = getmetatable('') m.__index = nil m.__call = print m.__add = print")
    assert lua.user("return ('ab'):upper(), pcall(function() return ('x')() end)")[:2] == (b"AB", False)
    assert lua.user("return getmetatable('').__index == string", name="b")
    assert "table expected, got string" in failure(lua, "setmetatable('', {})")


def test_views_are_guarded(lua: Units) -> None:
    lua.run("K.modules.demo = {f = print, nested = {x = 1}} K.global_modules.demo = true")
    assert lua.user("return getmetatable(_G), getmetatable(string), getmetatable(demo), getmetatable(new_error('', 'x'))") == (
        False, False, False, False,
    )  # fmt: skip
    for view in ("_G", "string", "demo", "demo.nested", "new_error('', 'x')"):
        assert "cannot change a protected metatable" in failure(lua, f"setmetatable({view}, {{}})")
    assert failure(lua, "demo.f = 1") == "user.lua:1: module demo is read-only"
    assert failure(lua, "demo.nested.x = 2") == "user.lua:1: module demo.nested is read-only"
    assert failure(lua, "rawset(demo, 'f', 1)").endswith("module demo is read-only")
    assert failure(lua, "table.insert(demo, 1)").endswith("module demo is read-only")
    assert lua.user("return demo.nested.x, rawget(demo, 'nested').x, next(demo.nested)", name="b") == (1, 1, b"x", 1)


def test_views_are_iterated_with_own_and_shared_entries(lua: Units) -> None:
    lua.user("os.extra = 1 os.time = nil")
    names = "local n = {} for k in pairs(os) do n[#n + 1] = k end return table.concat(n, ' ')"
    assert lua.user(names) == b"clock date difftime extra platform time"
    by_next = "local n, k = {}, next(os) while k do n[#n + 1] = k k = next(os, k) end return table.concat(n, ' ')"
    assert lua.user(by_next) == lua.user(names)


def test_raw_access_refuses_objects(lua: Units) -> None:
    for call in ("rawget(e, 1)", "rawset(e, 1, 1)", "next(e)", "pairs(e)"):
        assert "table expected, got userdata" in failure(lua, f"local e = new_error('', 'x') {call}")


# Iteration


def keys(lua: Units, table: str) -> str:
    source = f"local n = {{}} for k in pairs({table}) do n[#n + 1] = tostring(k) end return table.concat(n, ' ')"
    result = lua.user(source)
    assert isinstance(result, bytes)
    return result.decode()


def test_pairs_goes_through_numbers_strings_booleans_objects_and_numbered_values(lua: Units) -> None:
    lua.user(
        "e1 = new_error('', 'e1') e2 = new_error('', 'e2') t2 = {} t1 = {} f = print tostring(f) tostring(t1) tostring(t2)"
    )
    mixed = (
        "{[t2]=1, [t1]=1, [f]=1, [e2]=1, [e1]=1, [true]=1, [false]=1, b=1, a=1, B=1, [2.5]=1, [-1]=1, [10]=1, [3]=1}"
    )
    assert keys(lua, mixed) == (
        "-1 2.5 3 10 B a b false true e1 e2 function: 0x00000001 table: 0x00000002 table: 0x00000003"
    )


def test_pairs_with_two_nameless_keys_says_what_to_do(lua: Units) -> None:
    assert "iterate a list instead" in failure(lua, "for k in pairs({[{}] = 1, [{}] = 2}) do end")
    assert lua.user("local n = 0 for k in pairs({[{}] = 1, x = 2}) do n = n + 1 end return n") == 2
    assert lua.user("local a, b = setmetatable({}, {}), coroutine.create(print) local r = {} "
                    "for k in pairs({[b] = 'b', [a] = 'a'}) do r[#r + 1] = type(k) end return r[1], r[2]") == (b"table", b"thread")  # fmt: skip


def test_entries_may_be_cleared_while_iterating(lua: Units) -> None:
    for fill in ("t[i] = i", "t['k' .. i] = i"):
        body = f"local t, seen = {{}}, 0 for i = 1, 9 do {fill} end "
        assert lua.user(body + "for k in pairs(t) do t[k] = nil seen = seen + 1 end return seen, next(t)") == (9, None)
        assert (
            lua.user(body + "local k = next(t) while k do t[k] = nil seen = seen + 1 k = next(t, k) end return seen")
            == 9
        )
        assert lua.user(body + "while next(t) do t[next(t)] = nil seen = seen + 1 end return seen") == 9
    assert (
        lua.user("local t, n = {a=1, b=2, c=3}, 0 for k in pairs(t) do n = n + 1 t.b = nil t.c = nil end return n") == 1
    )


def test_next_walks_in_the_same_order_as_pairs(lua: Units) -> None:
    table = "{5, 4, x = 1, a = 2, [0] = 3, [true] = 4, [false] = 1, [0.5] = 1}"
    walk = f"local t, n = {table}, {{}} local k = next(t) while k ~= nil do n[#n + 1] = tostring(k) k = next(t, k) end "
    assert lua.user(walk + "return table.concat(n, ' ')").decode() == keys(lua, table) == "0 0.5 1 2 a x false true"
    assert lua.user("for k, v in next, {z = 1, y = 2} do return k, v end") == (b"y", 2)


def test_next_serves_two_walks_of_one_table_at_once(lua: Units) -> None:
    pairs_seen = lua.user(
        "local t, n = {a=1, b=2, c=3}, {} for k in next, t do for l in next, t do n[#n + 1] = k .. l end end "
        "return table.concat(n, ' ')"
    )
    assert pairs_seen == b"aa ab ac ba bb bc ca cb cc"


def test_pairs_honours_its_metamethod_and_raw_contents_otherwise(lua: Units) -> None:
    own = "setmetatable({}, {__pairs = function(t) return function(_, k) if not k then return 'only', 1 end end, t, nil end})"
    assert keys(lua, own) == "only"
    assert keys(lua, "setmetatable({a = 1}, {__index = {b = 1}})") == "a"


def test_the_iterator_of_an_empty_table_is_not_the_raw_next(lua: Units) -> None:
    assert lua.user("local f = pairs({}) return f({b = 1}), next({}) == nil") == (None, True)


# Text of values


def test_values_are_numbered_in_the_order_they_are_first_shown(lua: Units) -> None:
    got = lua.user("local a, b = {}, {} local s = tostring(b) return s, tostring(a), tostring(b), ('%s'):format(print)")
    assert got == (b"table: 0x00000001", b"table: 0x00000002", b"table: 0x00000001", b"function: 0x00000003")
    assert lua.user("return tostring({})", name="b") == b"table: 0x00000001"


def test_tostring_honours_metamethods(lua: Units) -> None:
    named = lua.user(
        "return tostring(setmetatable({}, {__name = 'Order'})), tostring(setmetatable({}, {__tostring = function() return 'T' end}))"
    )
    assert named == (b"Order: 0x00000001", b"T")
    assert "'__tostring' must return a string" in failure(
        lua, "tostring(setmetatable({}, {__tostring = function() return 1 end}))"
    )
    assert lua.user("return tostring(0/0), tostring(-(0/0)), ('%f %5.1f'):format(0/0, -(0/0))") == (
        b"nan",
        b"nan",
        b"nan   nan",
    )


def test_format_has_no_pointers(lua: Units) -> None:
    assert "invalid conversion '%p'" in failure(lua, "string.format('%p', {})")
    assert (
        lua.user("return ('%5s|%-4s|%%p|%d|%q|%s'):format('a', true, 7, 'x\\n', nil)") == b'    a|true|%p|7|"x\\\n"|nil'
    )
    assert failure(lua, "string.format('%s')") == "user.lua:1: bad argument #2 to 'format' (no value)"


def test_errors_inside_the_library_carry_the_users_position(lua: Units) -> None:
    assert failure(lua, "\nlocal s = string.rep()") == "user.lua:2: bad argument #1 to 'rep' (string expected, got nil)"
    assert failure(lua, "local t = table.sort({1, {}, 'x'})").startswith("user.lua:1: attempt to compare")
    assert lua.user(
        "local ok, e = xpcall(function() local x = ('x'):rep({}) end, function(m) return 'H ' .. m end) return e"
    ) == (b"H user.lua:1: bad argument #2 to 'rep' (number expected, got table)")


@pytest.mark.parametrize("chunk", ["store", "http_client"])
def test_no_kernel_file_is_named_in_an_error(lua: Units, chunk: str) -> None:
    lua.run("K.globals.fetch = load([[error('no such host')]], ...)", f"=[{chunk}]".encode())
    assert failure(lua, "\nlocal answer = fetch()") == "user.lua:2: no such host"


# table and math


def test_sort_is_stable_and_may_block(lua: Units) -> None:
    assert lua.user(
        "local t = {} for i = 1, 200 do t[i] = {key = i % 7, n = i} end table.sort(t, function(a, b) return a.key < b.key end)"
        "for i = 2, 200 do if t[i-1].key > t[i].key or t[i-1].key == t[i].key and t[i-1].n > t[i].n then return i end end return 'ok'"
    ) == b"ok"  # fmt: skip
    assert lua.user(
        "local t = {3, 1, 2} local co = coroutine.wrap(function() table.sort(t, function(a, b) coroutine.yield() return a < b end) return 'done' end)"
        "repeat local r = co() until r == 'done' return table.concat(t, ',')"
    ) == b"1,2,3"  # fmt: skip


@settings(deadline=None, max_examples=100)
@given(values=st.lists(st.integers(-50, 50) | st.floats(allow_nan=False, width=16), max_size=80))
def test_sort_agrees_with_python(values: list[float]) -> None:
    lua = _SHARED
    got = lua.user("local t = {...} table.sort(t, function(a, b) return a > b end) return t", *values)
    assert list(got.values()) == sorted(values, reverse=True)
    got = lua.user("local t = {...} table.sort(t) return t", *values)
    assert list(got.values()) == sorted(values)


@pytest.mark.parametrize("less", ["return a <= b", "return true", "return a ~= b"])
def test_a_contradictory_order_raises_and_changes_nothing(lua: Units, less: str) -> None:
    source = f"local t = {{3, 1, 2, 3, 1, 5}} local ok, e = pcall(table.sort, t, function(a, b) {less} end) return ok, e, table.concat(t)"
    assert lua.user(source) == (
        False, b"user.lua:1: invalid order function for sorting", b"312315",
    )  # fmt: skip


def test_random_follows_the_seed_and_the_rules_of_lua(lua: Units) -> None:
    draw = "local t = {} for i = 1, 50 do t[i] = math.random(1, 1000) end return table.concat(t, ' ')"
    first = lua.user(draw)
    assert first == Units().user(draw)
    assert first != lua.user(draw)
    assert first != lua.user(draw, name="b")
    assert lua.user(
        "for i = 1, 1000 do local r = math.random(-3, 3) if r < -3 or r > 3 then return false end end return true"
    )
    assert lua.user("local s = {} for i = 1, 1000 do s[math.random(6)] = true end return #s") == 6
    assert lua.user(
        "local r = math.random() return r >= 0 and r < 1, math.type(math.random(0)), math.random(5, 5.0)"
    ) == (True, b"integer", 5)
    assert lua.user("return math.type(math.random(math.mininteger, math.maxinteger))") == b"integer"
    assert failure(lua, "local x = math.random(0, -1)") == "user.lua:1: bad argument #2 to 'random' (interval is empty)"
    assert failure(lua, "local x = math.random(1.5)").endswith("(number has no integer representation)")
    assert failure(lua, "local x = math.random(1, 2, 3)").endswith("wrong number of arguments")


def test_a_fixed_seed_does_not_give_two_units_the_same_ids(lua: Units) -> None:
    ids = []
    for name in ("a", "b"):
        assert lua.user("math.randomseed(42) return math.random(1000000)", name=name) == lua.user(
            "math.randomseed(42) return math.random(1000000)"
        )
        lua.user("", name=name)
        ids.append(lua.run("return K.random_u64(K.current)"))
    assert ids[0] != ids[1]


def test_table_functions_have_their_limits(lua: Units) -> None:
    assert failure(lua, "table.move({}, 1, 1e15, 2, {})") == "user.lua:1: too many elements to move"
    assert "resulting string too large" in failure(lua, "local s = ('x'):rep(64 * 1024 * 1024 + 1)")
    assert lua.user("return #('x'):rep(64 * 1024 * 1024), (''):rep(1e15)") == (64 * 1024 * 1024, b"")
    assert lua.user("return #table.create(5, 5), table.unpack({1, 2}), select('#', unpack({1, nil, 3}, 1, 3))") == (
        0,
        1,
        3,
    )


# os


def test_time_stands_where_the_unit_stands(lua: Units) -> None:
    assert lua.user("return os.time(), os.clock(), os.date('!%Y-%m-%d %H:%M:%S'), os.platform, os.difftime(5, 3)") == (
        1_700_000_000, 2.5, b"2023-11-14 22:13:20", b"linux", 2.0,
    )  # fmt: skip


_DIRECTIVES = "aAbBCdDeFgGhHIjmMpRSTuUVwWyYcxXr"


@settings(deadline=None, max_examples=200)
@given(seconds=st.integers(-62_000_000_000, 250_000_000_000))
def test_dates_agree_with_strftime_and_back(seconds: int) -> None:
    """Any second from year 5 to 9892; the C library is asked here only, in the C locale's English."""
    lua = _SHARED
    utc = time.gmtime(seconds)
    wide = "|".join("%" + d for d in _DIRECTIVES if utc.tm_year >= 1000 or d not in "CFGYcg")
    assert lua.user("return os.date(...)", wide.encode(), seconds).decode() == time.strftime(wide, utc)
    assert lua.user("return os.time(os.date('*t', ...))", seconds) == seconds == calendar.timegm(utc)


def test_time_of_a_table_normalizes_and_checks(lua: Units) -> None:
    got = lua.user(
        "local t = {year = 2024, month = 14, day = -1, hour = 25, min = 61} return os.time(t), t.year, t.month, t.day, t.hour, t.min, t.wday, t.yday"
    )
    assert got == (calendar.timegm((2025, 1, 31, 2, 1, 0)), 2025, 1, 31, 2, 1, 6, 31)
    assert failure(lua, "local x = os.time{year = 2024, month = 1}") == "user.lua:1: field 'day' missing in date table"
    assert failure(lua, "local x = os.time{year = 2024, month = 1, day = 1.5}").endswith(
        "field 'day' is not an integer"
    )
    assert "invalid conversion specifier '%Ez'" in failure(lua, "os.date('%Ez')")


# Protected calls and coroutines


def test_a_doomed_unit_cannot_catch_its_end(lua: Units) -> None:
    lua.user("")
    lua.run("doom = function() K.current.doomed = 'killed' error('killed', 0) end K.globals.doom = doom")
    for body in (
        "pcall(doom)", "xpcall(doom, print)", "coroutine.resume(coroutine.create(doom))", "coroutine.wrap(doom)()",
        "pcall(pcall, doom)", "pcall(function() pcall(doom) end)",
    ):  # fmt: skip
        lua.run("reached = nil K.globals.reach = function() reached = true end")
        with pytest.raises(LuaError, match="killed"):
            lua.user(body + " reach()")
        assert lua.run("return reached") is None, body
        lua.user("", name="a")
        lua.run("K.current.doomed = nil")


def test_user_coroutines_behave_as_in_lua(lua: Units) -> None:
    got = lua.user(
        "local co = coroutine.create(function(a, b) local c = coroutine.yield(a + b) return c * 2, coroutine.running() end)"
        "local _, s = coroutine.resume(co, 1, 2) local st = coroutine.status(co) local _, d, me, main = coroutine.resume(co, 5)"
        "return s, st, d, me == co, main, coroutine.status(co), coroutine.resume(co)"
    )
    assert got == (3, b"suspended", 10, True, False, b"dead", False, b"cannot resume dead coroutine")
    assert lua.user("local f = coroutine.wrap(function() local x = nil + 1 end) return pcall(f)")[1] == (
        b"user.lua:1: attempt to perform arithmetic on a nil value"
    )
    assert lua.user(
        "local co = coroutine.create(function() coroutine.yield() end) coroutine.resume(co) return coroutine.close(co), coroutine.status(co)"
    ) == (True, b"dead")
    assert failure(lua, "coroutine.yield(1)") == "user.lua:1: attempt to yield from outside a coroutine"


def test_a_blocking_call_inside_a_user_coroutine_makes_the_whole_task_wait(lua: Units) -> None:
    """K.BLOCK goes out through resume and wrap, at any depth, and what resumes the task reaches the blocking call."""
    lua.run("K.globals.block = function() return coroutine.yield(K.BLOCK) end")
    lua.user("")
    got = lua.run(
        """
        local task = coroutine.create(load(
          "local inner = coroutine.create(function() local v = block() coroutine.yield('mine ' .. v) return block() end)" ..
          "seen = inner local outer = coroutine.wrap(function() local _, a = coroutine.resume(inner) " ..
          "local _, b = coroutine.resume(inner) return a, b end) return outer()", "@u.lua", "t", K.current.env))
        local _, first = coroutine.resume(task)
        local inner = K.current.env.seen
        local status = K.libs.coroutine.status(inner)
        local ok, why = K.libs.coroutine.resume(inner, "stolen")
        local _, second = coroutine.resume(task, "one")
        local _, a, b = coroutine.resume(task, "two")
        return first == K.BLOCK, status, ok, why, second == K.BLOCK, a, b, coroutine.status(task)
        """
    )
    assert got == (
        True, b"normal", False, b"cannot resume non-suspended coroutine", True, b"mine one", b"two", b"dead",
    )  # fmt: skip


def test_tasks_of_the_scheduler_are_out_of_reach(lua: Units) -> None:
    lua.user("")
    lua.run("K.current.env.task = coroutine.create(print)")
    assert lua.user("return coroutine.resume(task)") == (False, b"cannot resume a task of the scheduler")
    assert "cannot close" in failure(lua, "coroutine.close(task)")


def test_every_new_coroutine_is_armed(lua: Units) -> None:
    lua.run("armed = 0 K.rearm = function(co) assert(type(co) == 'thread') armed = armed + 1 end")
    lua.user("coroutine.resume(coroutine.create(print)) coroutine.wrap(print)()")
    assert lua.run("return armed") == 2


def test_finalizers_and_weak_tables_are_refused(lua: Units) -> None:
    assert "finalizers (__gc) are not available" in failure(lua, "setmetatable({}, {__gc = print})")
    assert "weak tables (__mode) are not available" in failure(lua, "setmetatable({}, {__mode = 'k'})")
    assert "weak table cannot be iterated" in failure(
        lua, "local m = {} local t = setmetatable({}, m) m.__mode = 'k' pairs(t)"
    )


def test_an_environment_is_small(lua: Units) -> None:
    """100,000 units are alive in one VM."""
    grown = lua.run(
        "local u = {} for i = 1, 2000 do u[i] = {env = false} end collectgarbage() local b = collectgarbage('count')"
        "for i = 1, 2000 do K.make_env(u[i]) end collectgarbage() return (collectgarbage('count') - b) * 1024 / 2000"
    )
    assert grown < 200


# Patterns

_SHARED = Units()
_ATOMS = ["a", "b", ".", "%a", "[ab]", "[^a]", "%s", " ", "%%", "-", "[]]", "[%a-]", "x"]
_PIECES = st.one_of(
    st.tuples(st.sampled_from(_ATOMS), st.sampled_from(["", "", "*", "+", "-", "?"])).map("".join),
    st.sampled_from(["()", "%f[a]", "%bab", "$"]),
)


@st.composite
def _patterns(draw: st.DrawFn) -> str:
    pieces: list[str] = draw(st.lists(_PIECES, max_size=7))
    if draw(st.booleans()) and pieces:
        low = draw(st.integers(0, len(pieces) - 1))
        high = draw(st.integers(low, len(pieces) - 1))
        pieces[low] = "(" + pieces[low]
        pieces[high] += ")"
        if draw(st.booleans()):
            pieces.append("%1")
    return draw(st.sampled_from(["", "^"])) + "".join(pieces)


@settings(deadline=None, max_examples=1500)
@given(pattern=_patterns(), subject=st.text("ab x-]%", max_size=14), init=st.integers(-3, 5))
def test_the_linear_matcher_gives_the_answers_of_the_c_library(pattern: str, subject: str, init: int) -> None:
    got = _SHARED.run(
        """
        local s, p, init = ...
        local L, S = K.linear, K.raw.string
        local function all(f, ...)
          local r = table.pack(pcall(f, ...))
          for i = 1, r.n do r[i] = tostring(r[i]) end
          return r[1] == "true" and table.concat(r, "|") or "raised"
        end
        local function each(gmatch)
          return function(...)
            local out = {}
            for a, b, c in gmatch(...) do out[#out + 1] = tostring(a) .. "," .. tostring(b) .. "," .. tostring(c) end
            return table.concat(out, ";")
          end
        end
        if all(S.find, s, p) == "raised" or all(S.gmatch, s, p) == "raised" then return true end
        local function same(x, y, ...)
          local a, b = all(x, ...), all(y, ...)
          return a == b or error(a .. " is not " .. b)
        end
        same(L.find, S.find, s, p, init)
        same(L.match, S.match, s, p, init)
        same(each(L.gmatch), each(S.gmatch), s, p, init)
        same(L.gsub, S.gsub, s, p, "<%0%%%1>")
        same(L.gsub, S.gsub, s, p, "-", 2)
        same(L.gsub, S.gsub, s, p, {a = "A", b = 1, [1] = "one"})
        same(L.gsub, S.gsub, s, p, function(...) if select("#", ...) > 1 then return nil end return "f" end)
        return true
        """,
        subject.encode(),
        pattern.encode(),
        init,
    )
    assert got is True


@pytest.mark.parametrize(
    ("pattern", "subject"),
    [
        ("%s+$", "(' '):rep(200000) .. 'x'"),
        ("^%s*(.-)%s*$", "'a' .. (' '):rep(200000) .. 'b'"),
        (".-x.-y.-z", "('xy'):rep(20000)"),
        ("(a*)(a*)(a*)b", "('a'):rep(20000)"),
        ("a?a?a?a?a*a*a*a*c", "('a'):rep(5000)"),
        ("[^\\n]*\\n", "('a'):rep(200000)"),
    ],
)
def test_patterns_that_would_hold_the_node_take_linear_time(lua: Units, pattern: str, subject: str) -> None:
    """Each of these takes the C library from many seconds to years."""
    begin = time.process_time()  # of the processor's time: others may use it, too
    lua.user(f"local s = {subject} return string.find(s, '{pattern}'), string.gsub(s, '{pattern}', '')")
    assert time.process_time() - begin < 10


def test_common_patterns_go_to_c(lua: Units) -> None:
    lua.run("probe = function(n, p) return K.is_risky(('a'):rep(n), p) end")
    for pattern in (b"^(%a+)=(%d+);(%w+)$", b"abc", b"^(%d+),([^,]*),([^,]*)", b"(.*)", b"^.-$"):
        assert lua.run("return probe(...)", 1_000_000, pattern) is False, pattern
    assert lua.run("return probe(...)", 7_000, b"(%d+)-(%d+)-(%d+)T(%d+):(%d+)") is False
    assert lua.run("return probe(...)", 11_000, b"%s+$") is True
    assert lua.run("return probe(...)", 1_000, b".-x.-y.-z") is True
