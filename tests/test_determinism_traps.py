"""The traps that break determinism in Lua 5.4, each sprung in several operating system processes.

Run as a program (`python -m tests.test_determinism_traps <variant>`) this file prints what user code can observe; the
tests start it several times, under conditions that differ as nodes differ, and compare the output byte for byte.
A second output, of the bare library, shows that the same processes do differ where nothing is done about it.
"""

# Lines of Lua inside strings are left unbroken.

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from tests.lua_chunks import STDLIB, Chunks

NOW_NS: Final = 1_700_000_000_123_456_789
SEPARATOR: Final = "==== bare ===="

# Each snippet runs in a unit of its own and reports with `out(...)`.
CORPUS: Final[dict[str, str]] = {
    "pairs over text keys": """
        local t = {} for i = 1, 200 do t["key" .. i * 7919 % 1009] = i end
        for k, v in pairs(t) do out(k, v) end
        for k in pairs(t) do if #k % 2 == 0 then t[k] = nil end end
        for k in pairs(t) do out(k) end""",
    "next": """
        local t = {} for i = 1, 50 do t["k" .. i] = i t[-i] = i t[i / 4] = i end
        out(next(t)) local k = next(t)
        while k ~= nil do out(k) if k == -7 then t[k] = nil end k = next(t, k) end""",
    "keys of every type": """
        local a, b, c = {}, {}, coroutine.create(print)
        local e1, e2 = new_error("", "e1"), new_error("", "e2")
        tostring(b) setmetatable(a, {})
        for k in pairs{[a]=1, [b]=1, [c]=1, [e2]=1, [e1]=1, [true]=1, [false]=1, x=1, X=1, [1]=1, [1.5]=1, [{}]=1} do out(k) end
        out(pcall(function() for k in pairs{[{}]=1, [{}]=1} do out("never") end end))""",
    "views": "for k in pairs(_G) do out(k) end for k in pairs(string) do out(k) end for k in pairs(errors) do out(k) end",
    "text of values": """
        out({}, print, string.upper, coroutine.create(print), coroutine.wrap(print), setmetatable({}, {__name = "N"}))
        out(("%s %s %10s"):format({}, print, {}), tostring(errors), tostring(string), tostring(_G))
        out(pcall(string.format, "%p", {})) out(0/0, -(0/0), ("%g %5.1f"):format(0/0, -(0/0)), -0.0, 1e15, 2^63)""",
    "addresses in errors": """
        out(pcall(error, {})) out(pcall(function() error({}) end)) out(pcall(function() return {} .. "x" end))
        out(pcall(function() return {} < {} end)) out(pcall(function() return print + 1 end))
        out(pcall(function() local t = setmetatable({}, {__index = print}) return #t.x.y end))
        out(pcall(string.rep, {})) out(pcall(("x").rep, "x", print)) out(pcall(table.concat, {{}})) out(pcall(ipairs))
        out(pcall(string.gsub, "x", "x", {x = {}})) out(pcall(setmetatable, 1, print)) out(pcall(next, 5, 6))
        out(xpcall(function() return nil .. {} end, function(m) return "handled " .. m end))
        out(pcall(coroutine.wrap(function() error(print) end)))""",
    "clock": """
        out(os.time(), os.clock(), os.date(), os.date("%c %x %X %p %Z %z %A %B"), os.time{year=2024, month=2, day=30})
        for k, v in pairs(os.date("*t")) do out(k, v) end out(os.platform, os.getenv, os.tmpname)""",
    "random numbers": """
        for i = 1, 20 do out(math.random(), math.random(100), math.random(0), math.random(-5, 5)) end
        out(math.randomseed()) out(math.random(1000000)) math.randomseed(7) out(math.random(1000000)) out(entropy())""",
    "sort": """
        local t = {} for i = 1, 700 do t[i] = {i * 7919 % 13, i} end
        table.sort(t, function(a, b) return a[1] < b[1] end) for i = 1, 700 do out(t[i][2]) end
        -- Bad pivots: this makes C's quicksort fall back on pivots chosen by the clock.
        t = {} for i = 1, 3000 do t[i] = {i % 13 + 1, i} end t[1][1], t[1500][1], t[3000][1] = 0, 0, 0
        table.sort(t, function(a, b) return a[1] < b[1] end) for i = 1, 3000 do out(t[i][2]) end
        out(pcall(table.sort, {3, 1, 2, 1}, function(a, b) return a <= b end))
        local u = {} for i = 1, 300 do u[i] = i * 31 % 7 end
        local calls = 0 pcall(table.sort, u, function() calls = calls + 1 return calls % 3 == 0 end) out(calls, table.concat(u))""",
    "collector": """
        out(collectgarbage, pcall(setmetatable, {}, {__gc = out})) out(pcall(setmetatable, {}, {__mode = "k"}))
        local m = {} local t = setmetatable({{}}, m) m.__mode = "v" for i = 1, 20000 do local x = {i} end
        out(pcall(pairs, t)) out(pcall(next, t))""",
    "ways out": """
        out(load, loadstring, dofile, loadfile, debug, io, utf8, rawlen, warn, python, string.dump, package.loadlib,
          package.loaded.debug, getmetatable(_G), getmetatable(string), getmetatable(errors), getmetatable("").__index == string)
        for k, v in pairs(package) do out(k, type(v)) end""",
    "what another unit changed": """out(("x"):upper(), string.mine, math.mine, mine, ("x").mine, getmetatable("").mine)""",
    "coroutines": """
        local cos = {} for i = 1, 20 do cos[coroutine.create(function() coroutine.yield(i) return -i end)] = i end
        for co, i in pairs(cos) do out(i, coroutine.resume(co)) end for co in pairs(cos) do out(co, coroutine.resume(co)) end
        out(coroutine.isyieldable(), pcall(coroutine.yield))""",
    "wire form": """
        local t = {[1.5] = 1, [true] = 2, [7] = 0/0, list = {1, 2, 3}, f = print, e = new_error("Invalid", "m", nil, {b = 1, a = 2})}
        for i = 1, 60 do t["key" .. i * 7919 % 1009] = i end local bytes = encode(t)
        for i = 1, #bytes do out(bytes:byte(i)) end""",
    "text": """
        out("a" < "B", "Z" < "a", "\\xe4" < "z", ("\\xe4\\xc4ab"):upper(), ("\\xe4"):find("%a"), 1.5, "10" + 1, 10 // 0.3)
        out(("k=v, x=y"):gsub("(%w+)=(%w+)", "%2=%1")) for w in ("one two  three"):gmatch("%a+") do out(w) end
        out((("a"):rep(3000) .. "x"):find("(a*)(a*)(a*)b"))""",
}

# What the same processes show without the library: must differ, or the comparison above proves nothing.
BARE: Final = """
    local t = {} for i = 1, 200 do t["key" .. i] = i end
    local order = {} for k in pairs(t) do order[#order + 1] = k end
    return table.concat(order, " "), tostring({}) .. " " .. string.format("%p", print)
"""


def observe(variant: int) -> str:
    """Everything user code can see in this process. `variant` changes what must not matter: memory, collector, neighbours."""
    lua = Chunks(*STDLIB, "msgpack", now_ns=NOW_NS)
    run = lua.run(
        """
        local variant, now = ...
        collectgarbage(variant % 2 == 0 and "generational" or "incremental")
        if variant % 3 == 0 then collectgarbage("stop") end
        ballast = {}
        for i = 1, 1000 * variant do ballast["ballast" .. i] = {} end
        K.globals.new_error, K.globals.encode = K.new_error, K.encode
        K.globals.entropy = function() return K.random_u64(K.current) end
        local function open()
          local unit = {deterministic = true, now = now, started = now - 1500000000, next_seq = 1, seed = "recorded in the start event"}
          K.make_env(unit)
          return unit
        end
        -- Neighbours in the same VM; there are more of them on some nodes, and one may run between two steps of ours.
        local function neighbour()
          local other = open()
          K.enter(other)
          load("function string.mine() end string.upper = nil math.mine = 1 mine = 1 getmetatable('').mine = 1 tostring({})"
            .. " string.upper = string.lower math.random() for k in pairs{b = 1, a = 2} do tostring(print) end", "=other", "t", other.env)()
        end
        for i = 1, variant do neighbour() end
        return function(source)
          local unit, lines = open(), {}
          if variant > 0 then neighbour() end
          K.enter(unit)
          unit.env.out = function(...)
            local parts = table.pack(...)
            for i = 1, parts.n do parts[i] = K.tostring(parts[i]) end
            lines[#lines + 1] = table.concat(parts, " ")
          end
          local task = coroutine.create(assert(load(source, "@user.lua", "t", unit.env)))
          local ok, problem = coroutine.resume(task)
          lines[#lines + 1] = ok and "done" or "raised " .. K.tostring(problem)
          K.leave()
          return table.concat(lines, "\\n")
        end
        """,
        variant,
        NOW_NS,
    )
    parts = [f"## {name}\n{run(source.encode()).decode('latin-1')}" for name, source in CORPUS.items()]
    bare = lua.run(BARE)
    return "\n".join([*parts, SEPARATOR, bare[0].decode(), bare[1].decode()])


def outputs() -> list[tuple[str, str, str]]:
    """(observed, bare key order, bare addresses) of five processes, none like the other."""
    root = Path(__file__).parent.parent
    surroundings = [
        {"PYTHONHASHSEED": "0", "TZ": "UTC", "LC_ALL": "C"},
        {"PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8"},
        {"PYTHONHASHSEED": "4242", "TZ": "America/New_York", "LANG": "C.UTF-8"},
        {"PYTHONHASHSEED": "random", "TZ": "Europe/Berlin", "LC_ALL": "POSIX"},
        {"PYTHONHASHSEED": "99", "PADDING": "x" * 5000},
    ]

    def one(variant: int) -> tuple[str, str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "TZ"))}
        done = subprocess.run(
            [sys.executable, "-m", "tests.test_determinism_traps", str(variant)],
            env=inherited | surroundings[variant], cwd=root, capture_output=True, timeout=50, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        observed, bare = done.stdout.decode("utf-8").split(SEPARATOR + "\n")
        order, addresses = bare.splitlines()
        return observed, order, addresses

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, range(len(surroundings))))


@pytest.fixture(scope="module")
def seen() -> list[tuple[str, str, str]]:
    return outputs()


@pytest.mark.parametrize("name", CORPUS)
def test_every_process_observes_the_same(seen: list[tuple[str, str, str]], name: str) -> None:
    """A workflow replayed by another node must see what it saw before, whatever trap it steps into."""
    sections = [observed.split(f"## {name}\n")[1].split("\n## ")[0] for observed, _, _ in seen]
    assert sections[0].rstrip().endswith("done"), sections[0]
    assert "0x00007f" not in sections[0]
    assert sections.count(sections[0]) == len(sections)


def test_the_same_processes_differ_without_the_library(seen: list[tuple[str, str, str]]) -> None:
    """The order of text keys and addresses: were they equal by chance, the tests above could not fail."""
    orders, addresses = {order for _, order, _ in seen}, {text for _, _, text in seen}
    assert len(orders) > 1
    assert len(addresses) > 1
    assert {tuple(sorted(order.split())) for order in orders} == {tuple(sorted(f"key{i}" for i in range(1, 201)))}


if __name__ == "__main__":
    sys.stdout.buffer.write(observe(int(sys.argv[1])).encode("utf-8"))
