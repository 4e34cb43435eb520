-- The functions every unit shares: `K.globals`, and among them the protected calls.
--
-- Later kernel files add theirs. How a unit comes to see them is in environment.lua.
--
-- Invariant: after `K.current.doomed` is set, no protected call of the unit returns normally with a failure.
--
-- Of a unit, read here: doomed, env; written: string_meta.

local K = ...
local raw = K.raw

local raw_type, raw_rawget, raw_rawset = raw.type, raw.rawget, raw.rawset
local raw_select, raw_error, raw_xpcall, raw_tonumber = raw.select, raw.error, raw.xpcall, raw.tonumber
local raw_setmetatable, raw_getmetatable = raw.setmetatable, raw.getmetatable
local metatable_of, concat, math_type = raw.debug.getmetatable, raw.table.concat, raw.math.type
local class_of, shared_behind, ordinal, tostring, blame = K.class_of, K.shared_behind, K.ordinal, K.tostring, K.blame

--- The library tables (string, table, ...) that a unit may extend for itself; later kernel files add theirs, and
--- functions to them.
K.libs = {}

local globals = {
  _VERSION = "Lua 5.4",
  assert = raw.assert, error = raw.error, ipairs = raw.ipairs, next = K.next, pairs = K.pairs, rawequal = raw.rawequal,
  tostring = tostring, type = K.type,
}
--- Globals of every unit; later kernel files add theirs (functions and immutable values only).
K.globals = globals

local NUMERAL_BYTES_MAX <const> = 1000 -- no numeral is longer; C would read a longer text to its end

function globals.tonumber(v, ...)
  if raw_type(v) == "string" and #v > NUMERAL_BYTES_MAX then
    return nil
  end
  return raw_tonumber(v, ...)
end

local VALUES_FREE <const> = 256

function globals.select(n, ...)
  local count = raw_select("#", ...)
  if count > VALUES_FREE then
    K.spend(count) -- they are copied
  end
  return raw_select(n, ...)
end

local function check_raw(t, name)
  if raw_type(t) ~= "table" or class_of(t) then
    raw_error("bad argument #1 to '" .. name .. "' (table expected, got " .. K.type(t) .. ")")
  end
  local mt = metatable_of(t)
  return mt, mt and shared_behind[mt]
end

function globals.rawget(t, k)
  local _, shared = check_raw(t, "rawget")
  local v = raw_rawget(t, k)
  if v == nil and shared then
    return shared[k]
  end
  return v
end

function globals.rawset(t, k, v)
  local mt, shared = check_raw(t, "rawset")
  if shared and mt.__newindex then
    mt.__newindex(t, k, v)
  end
  return raw_rawset(t, k, v)
end

function globals.getmetatable(v)
  if raw_type(v) == "string" then
    -- A table of the unit's own: strings get methods from the unit's `string`, whatever is done to this table.
    local unit = K.current
    if not unit.string_meta then
      unit.string_meta = { __index = unit.env.string, __name = "string" }
    end
    return unit.string_meta
  end
  return raw_getmetatable(v)
end

function globals.setmetatable(t, mt)
  if raw_type(mt) == "table" and raw_type(t) == "table" then
    if raw_rawget(mt, "__gc") ~= nil then
      raw_error("finalizers (__gc) are not available: when they run depends on the garbage collector; use <close>")
    elseif raw_rawget(mt, "__mode") ~= nil then
      raw_error("weak tables (__mode) are not available: their contents depend on the garbage collector; "
        .. "remove entries when they are no longer needed")
    elseif class_of(mt) or shared_behind[metatable_of(mt)] and metatable_of(mt).__newindex then
      raw_error("bad argument #2 to 'setmetatable' (nil or table expected)")
    end
    ordinal(t)
  end
  return raw_setmetatable(t, mt)
end

function globals.print(...)
  local n = raw_select("#", ...)
  local parts = { ... }
  for i = 1, n do
    parts[i] = tostring(parts[i])
  end
  if K.log then
    K.log("info", concat(parts, " ", 1, n))
  end
end

-- Whether memory suffices depends on the neighbours in the VM: code that could catch this would not replay.
local OUT_OF_MEMORY = "not enough memory"

--- The results of a protected call, unless it failed and user code must not see that: a doomed unit (killed, out of
--- budget) must not catch its end and go on.
function K.protected(ok, ...)
  if not ok then
    local unit = K.current
    if unit and unit.doomed then
      raw_error(unit.doomed, 0)
    elseif (...) == OUT_OF_MEMORY then
      raw_error(OUT_OF_MEMORY, 0)
    end
  end
  return ok, ...
end

local protected = K.protected

function globals.pcall(...)
  if raw_select("#", ...) == 0 then
    raw_error("bad argument #1 to 'pcall' (value expected)")
  end
  local f = (...)
  return protected(raw_xpcall(f, blame, raw_select(2, ...)))
end

function globals.xpcall(f, handler, ...)
  if raw_type(handler) ~= "function" then
    raw_error("bad argument #2 to 'xpcall' (function expected, got " .. K.type(handler) .. ")")
  end
  return protected(raw_xpcall(f, function(e)
    local unit = K.current
    if unit and unit.doomed then
      return e -- raised by the budget's hook: until it has unwound, nothing would stop the handler
    end
    return handler(blame(e))
  end, ...))
end

local function of_type(name, fits)
  return function(v)
    if fits(v) then
      return v
    end
    raw_error(name .. " expected, got " .. K.type(v))
  end
end

globals.number = of_type("number", function(v) return raw_type(v) == "number" end)
globals.integer = of_type("integer", function(v) return math_type(v) == "integer" end)
globals.boolean = of_type("boolean", function(v) return raw_type(v) == "boolean" end)

--- What `string(v)` calls; the library table of that name is made in environment.lua.
K.as_string = of_type("string", function(v) return raw_type(v) == "string" end)
