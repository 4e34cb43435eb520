"""Attempts to get out of a unit: to the machine, to other units, to what would make a replay differ.

Every attempt runs as a workflow beside a second one in the same VM. It must not come back with "escaped", and the
neighbour must see what it saw before. Not here: limits of time and memory (tests/test_kernel.py).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import pytest

import node
from mesh.failure import Failure
from node.machine.vm import LuaVM
from tests.flows import Flow

# What a neighbour can see of everything that is shared behind the scenes.
LOOK: Final = """
return function()
  local seen = {}
  local function see(...)
    for i = 1, select("#", ...) do seen[#seen + 1] = tostring((select(i, ...))) end
  end
  local inbox = process.inbox()
  while true do
    local m = inbox:receive()
    if m:topic() == "stop" then return table.concat(seen, "\\n") end
    for k, v in pairs(_G) do see(k, type(v)) end
    for _, name in ipairs{"string", "table", "math", "coroutine", "os", "errors", "process", "channel", "payload", "time", "funcs", "uuid", "json"} do
      for k, v in pairs(require(name)) do
        see(name, k, type(v))
        if type(v) ~= "function" and type(v) ~= "table" then see(v) end
      end
    end
    see(("aB"):upper(), ("x"):rep(3), ("%5.1f|%s"):format(1.5, "a"), #"abc", ("abc"):find("b"), pcall(function() return ("x").mine end))
    see(getmetatable("").__index == string, getmetatable(errors), getmetatable(_G), mine, time.utc, tostring(time.utc), time.unix(0, 0))
    see(errors.new("text"), errors.new{message = "m", kind = errors.INVALID}:kind(), channel.new(1):send(5), payload.format.JSON)
    see(json.encode{a = 1}, table.concat({1, 2}, "-"), math.max(1, 2), next({}), select("#", 1, 2), type(time.now()), rawequal(1, 1))
    see(time.unix(0, 0):in_location(time.utc):format(time.RFC3339), process.registry.LOCAL, process.event.EXIT, mine, string.mine)
    local c = channel.new(2) c:send(1) see(c:receive())
    seen[#seen + 1] = "----"
  end
end
"""

ATTEMPTS: Final[dict[str, str]] = {
    # Names that must not be there, by any road.
    "forbidden globals": "for _, n in ipairs{'load','loadstring','dofile','loadfile','debug','io','collectgarbage','rawlen','python','utf8','warn'} do if _G[n] ~= nil then return 'escaped ' .. n end end",
    "forbidden members": "return (string.dump or os.execute or os.getenv or os.exit or os.remove or os.rename or os.setlocale or os.tmpname or package.loadlib or package.searchers or package.preload or package.cpath ~= '') and 'escaped'",
    "require anything": "for _, n in ipairs{'debug','io','ffi','package','python','os.execute','_G','objects','kernel','logger','store','env',''} do local ok, m = pcall(require, n) if ok and n ~= 'package' and n ~= '_G' then return 'escaped ' .. n end end",
    "require with odd names": "for _, n in ipairs{5, true, {}, print} do if pcall(require, n) then return 'escaped' end end return pcall(require) and 'escaped'",
    "package.loaded leads nowhere": "for k, v in pairs(package.loaded) do if k == 'debug' or k == 'io' then return 'escaped' end end package.loaded.debug = 1 return pcall(require, 'debug') and 'escaped'",
    "outer _ENV": "local e = _ENV while true do local m = getmetatable(e) if type(m) ~= 'table' or type(m.__index) ~= 'table' then break end e = m.__index end return rawget(e, 'load') and 'escaped'",
    "_ENV swapped": "local _ENV = setmetatable({}, {__index = _ENV}) return load and 'escaped'",
    # Metatables.
    "metatables of everything": "local function look(v) local m = getmetatable(v) if m and type(v) ~= 'string' then return true end end for k, v in pairs(_G) do if look(v) then return 'escaped ' .. k end end for _, v in ipairs{channel.new(), errors.new('x'), time.now(), time.utc, funcs.new(), print, coroutine.create(print), 5, true} do if look(v) then return 'escaped' end end return look(nil) and 'escaped'",
    "string metatable": "getmetatable('').__index = {upper = function() return 'mine' end} getmetatable('').__add = function() return 1 end getmetatable('').__metatable = nil local s = 'a' return s:upper() == 'mine' and 'escaped'",
    "string metatable through pcall": "return pcall(setmetatable, 'x', {}) and 'escaped'",
    "new metatables on guarded things": "for _, v in ipairs{string, errors, process, _G, time, channel.new(), errors.new('x'), time.utc} do if pcall(setmetatable, v, {__index = function() return 'mine' end}) then return 'escaped ' .. tostring(v) end end",
    "borrowed metatables": "return pcall(setmetatable, {}, getmetatable(errors) or getmetatable(channel.new())) and getmetatable(errors) and 'escaped'",
    "objects as metatables": "for _, v in ipairs{channel.new(), errors.new('x'), time.utc, time.now()} do if pcall(setmetatable, {}, v) then return 'escaped' end end",
    "finalizers": "if pcall(setmetatable, {}, {__gc = function() end}) then return 'escaped' end local m = {} setmetatable({}, m) m.__gc = function() mine = 'finalized' end for i = 1, 20000 do local x = {i} end return mine and 'escaped'",
    "weak tables": "return pcall(setmetatable, {}, {__mode = 'k'}) and 'escaped'",
    # Writing to what is shared.
    "rawset on modules": "for _, m in ipairs{errors, process, channel, payload, time, funcs, uuid, json, process.event, process.registry, payload.format} do pcall(rawset, m, 'mine', 1) pcall(function() m.mine = 2 end) pcall(table.insert, m, 'mine') if m.mine then return 'escaped' end end",
    "rawset on objects": "for _, o in ipairs{channel.new(), errors.new('x'), time.utc, time.now(), funcs.new()} do if pcall(rawset, o, 'mine', 1) or pcall(rawget, o, 1) or pcall(next, o) or pcall(pairs, o) or pcall(function() o.mine = 1 end) then return 'escaped' end end",
    "libraries are ours alone": "string.upper = function() return 'mine' end string.mine = 1 math.pi = 3 math.mine = 1 table.concat = nil coroutine.create = nil os.time = nil rawset(string, 'rep', print) _G.mine = 1 rawset(_G, 'type', print) next = nil",
    "globals are ours alone": "for _, n in ipairs{'print', 'pairs', 'pcall', 'error', 'errors', 'process', 'channel', 'string', 'tostring', 'require'} do _G[n] = nil end mine = 1",
    "table functions on shared views": "for _, v in ipairs{string, errors, time, process, payload.format} do pcall(table.insert, v, 1, 'mine') pcall(table.remove, v) pcall(table.sort, v) pcall(table.move, {'mine'}, 1, 1, 1, v) if v[1] == 'mine' and v ~= string then return 'escaped' end end",
    "the clock and entropy": "if os.time() ~= os.time() or os.clock() ~= os.clock() then return 'escaped' end return os.getenv and 'escaped'",
    # Coroutines.
    "resume the scheduler's task": "local co = coroutine.running() return (coroutine.resume(co)) and 'escaped' or pcall(coroutine.close, co) and 'escaped'",
    "resume a spawned task": "local t = coroutine.spawn(function() end) if coroutine.resume(t) or pcall(coroutine.close, t) then return 'escaped' end",
    "yield to the scheduler": "return pcall(coroutine.yield, 'x') and 'escaped'",
    "a waiting coroutine resumed by hand": "local c = channel.new() local co = coroutine.create(function() return c:receive() end) coroutine.spawn(function() if coroutine.status(co) == 'normal' and coroutine.resume(co) then error('escaped') end c:send(1) end) coroutine.resume(co)",
    "yield across pcall and back": "local co = coroutine.wrap(function() pcall(function() coroutine.yield(1) error('x') end) return 2 end) return (co() ~= 1 or co() ~= 2) and 'escaped'",
    "what yields show": "local co = coroutine.create(function() time.sleep(0) coroutine.yield('mine') end) local _, v = coroutine.resume(co) return v ~= 'mine' and 'escaped'",
    "close a waiting coroutine": "local c = channel.new() local co = coroutine.create(function() c:receive() end) coroutine.spawn(function() if pcall(coroutine.close, co) then error('escaped') end c:send(1) end) coroutine.resume(co)",
    # Error objects and handlers.
    "error objects": "local e = errors.new('x') for _, k in ipairs{'kind', 'message', 1, '__index', '__metatable'} do if pcall(function() e[k] = 1 end) then return 'escaped' end end return pcall(errors.new, {message = e}) and 'escaped'",
    "handlers after the end": "local n = 0 local ok = xpcall(function() error('x') end, function() n = n + 1 error('again') end) return ok and 'escaped'",
    "tostring of anything has no address": "for _, v in ipairs{print, {}, coroutine.create(print), string, channel.new(), errors, process.send, funcs.new()} do if tostring(v):find('0x%x%x%x%x%x%x%x%x%x') then return 'escaped ' .. tostring(v) end end",
    "format %p": "return pcall(string.format, '%p', {}) and 'escaped'",
    "bytecode": "return (string.dump or load) and 'escaped'",
    # Objects that are none.
    "methods with a foreign self": "local leaked local trap = setmetatable({}, {__index = function(_, k) leaked = k end, __newindex = function(_, k) leaked = k end}) local f = funcs.async('a:b') for _, m in ipairs{f.cancel, f.result, f.channel, channel.new().send, channel.new().receive, channel.new().close, errors.new('x').kind, errors.new('x').stack, time.now().unix, funcs.new().with_options} do pcall(m, trap) pcall(m, {}) end return leaked and 'escaped ' .. tostring(leaked)",
    "a channel that is none": "local t = {} pcall(process.unlisten, t) pcall(unsubscribe, t) pcall(subscribe, 'x', t) pcall(channel.select, {t, default = true}) return next(t) and 'escaped'",
    "a message's payload as metatable": "local c = channel.new(1) return pcall(setmetatable, {}, c:case_receive()) and 'escaped'",
    "context and info are copies": "local w = require('workflow') w.info().workflow_id = 'mine' ctx.all().mine = 1 return (w.info().workflow_id == 'mine' or ctx.get('mine')) and 'escaped'",
    "options that lie": "local o = setmetatable({}, {__pairs = function() return function() return 'mine', 1 end end, __len = function() return 1 end}) pcall(process.with_options, o) pcall(function() funcs.new():with_options(o):async('a:b') end)",
}


def neighbour(vm: LuaVM) -> Flow:
    flow = Flow(LOOK, vm=vm, workflow_id="neighbour")
    flow.start()
    return flow


def sights(flow: Flow) -> list[str]:
    """What the neighbour saw at each look."""
    flow.signal("stop")
    assert not isinstance(flow.result, Failure), flow.result
    return [look.strip() for look in str(flow.result).split("----") if look.strip()]


@pytest.mark.parametrize("name", ATTEMPTS)
def test_attempt_neither_escapes_nor_is_seen_by_a_neighbour(name: str) -> None:
    """Nothing one unit does may be seen by another, nor reach the machine."""
    vm = LuaVM()
    witness = neighbour(vm)
    witness.signal("look")
    intruder = Flow(f"return function()\n{ATTEMPTS[name]}\nend", vm=vm)
    intruder.start()
    if intruder.run.finished is not None:
        result = intruder.result
        assert "escaped" not in str(result), result
        assert not isinstance(result, Failure), f"the attempt itself is broken: {result}"
    witness.signal("look")
    before, after = sights(witness)
    assert before == after
    late = neighbour(vm)
    late.signal("look")
    late.signal("look")
    assert sights(late)[0] == before


# Names of all methods of the kernel's objects, as its source spells them.
METHODS: Final = sorted(
    {
        name
        for file in (Path(node.__file__).parent / "lua").glob("*.lua")
        for name in re.findall(
            r"^\s*function \w*methods[.:](\w+)|^\s*\w*methods\.(\w+) =", file.read_text("utf-8"), re.M
        )
        for name in name
        if name
    }
)

SPIES: Final = """
return function(names)
  local inbox = process.inbox()
  local first = inbox:receive()
  local leaks, calls = {}, 0
  local function note(where, v)
    -- The kernel's keys are tables; nothing of ours that is a table is ever a key here.
    if type(v) == "table" and rawget(v, "spy") == nil then leaks[#leaks + 1] = where .. " leaks " .. tostring(rawget(v, "key")) end
  end
  local where
  local function spy()
    local meta = {__index = function(_, k) note(where, k) end, __newindex = function(_, k, v) note(where, k) note(where, v) end,
      __tostring = function() return "spy" end, __name = "spy", __concat = function() return "spy" end, __len = function() return 1 end,
      __eq = function() return false end, __lt = function() return false end, __le = function() return false end,
      __call = function(_, ...) for i = 1, select("#", ...) do note(where, (select(i, ...))) end end}
    return setmetatable({spy = true}, meta)
  end
  local function try(name, f, ...)
    local given = table.pack(...)
    coroutine.spawn(function()
      where, calls = name, calls + 1
      pcall(f, table.unpack(given, 1, given.n))
      for i = 1, given.n do
        local v = given[i]
        if type(v) == "table" then
          local ok, problem = pcall(function() for k in pairs(v) do note(name .. " wrote", k) end end)
          if not ok then leaks[#leaks + 1] = name .. ": " .. tostring(problem) end
        end
      end
    end)
  end
  local skip = {["_G.process.upgrade"] = true}
  local function functions(prefix, f, self)
    if skip[prefix] then return end
    try(prefix, f, spy()) try(prefix, f, spy(), spy()) try(prefix, f, spy(), spy(), spy(), spy()) try(prefix, f, "a:b", spy())
    try(prefix, f, "a:b", "c:d", spy()) try(prefix, f, 1, spy()) try(prefix, f, spy(), "x") try(prefix, f, spy(), 1)
    try(prefix, f, function() end, spy()) try(prefix, f) try(prefix, f, {}, {})
    if self ~= nil then
      try(prefix, f, self, spy()) try(prefix, f, self, spy(), spy()) try(prefix, f, self, "x", spy()) try(prefix, f, self)
      try(prefix, f, self, "a:b", "c:d", spy()) try(prefix, f, self, {})
    end
  end
  local function module(prefix, m, depth)
    for k, v in pairs(m) do
      if type(v) == "function" then functions(prefix .. "." .. k, v)
      elseif type(v) == "table" and depth < 3 and k ~= "_G" and k ~= "loaded" and k ~= "package" then module(prefix .. "." .. k, v, depth + 1) end
    end
  end
  module("_G", _G, 0)
  local c = channel.new(1)
  local objects = {
    error = errors.new("x"), channel = c, case = c:case_receive(), future = funcs.async("a:b"), executor = funcs.new(),
    spawner = process.with_options{}, timer = time.timer("1h"), ticker = time.ticker("1h"), payload = payload.new(5), message = first,
    time = time.now(), duration = time.parse_duration("1s"), location = time.utc,
  }
  local found = 0
  for name, object in pairs(objects) do
    for _, method in ipairs(names) do
      local ok, f = pcall(function() return object[method] end)
      if ok and type(f) == "function" then found = found + 1 functions(name .. ":" .. method, f, object) end
    end
    for _, op in ipairs{function(a, b) return a == b end, function(a, b) return a < b end, function(a, b) return a <= b end,
        function(a, b) return a .. b end, function(a, b) return b .. a end, function(a, b) return a + b end, function(a, b) return a[b] end,
        function(a, b) a[b] = b end, function(a, b) return b[a] end, function(a, b) return b(a) end} do
      try("operator on " .. name, op, object, spy())
    end
  end
  local m repeat m = inbox:receive() until m:topic() == "report"
  return {leaks = leaks, calls = calls, methods = found}
end
"""


def test_no_key_of_the_kernel_ever_reaches_user_code() -> None:
    """Whoever holds a private key can rewrite objects that units share; so every function is called with spies."""
    assert len(METHODS) > 60
    vm = LuaVM(instructions_max=200_000_000, step_memory_bytes_max=256 * 1024 * 1024)
    witness = neighbour(vm)
    witness.signal("look")
    flow = Flow(SPIES, args=[METHODS], vm=vm)
    flow.start()
    flow.signal("first", {"spy": 1})
    flow.signal("report")
    result: Any = flow.result
    assert not isinstance(result, Failure), result
    assert result["leaks"] == []
    assert result["methods"] > 60
    assert result["calls"] > 2000
    witness.signal("look")
    before, after = sights(witness)
    assert before == after
