-- The standard library as a unit sees it, and the environment (_ENV) of one unit.
--
-- Responsible for: `K.make_env`, `K.enter`, the wrapped builtins, the order of `pairs`/`next`, the text of values
-- (`K.tostring`), random numbers, user-made coroutines.
-- Not responsible for: scheduling, channels, modules (they add themselves to `K.modules`, `K.globals`, `K.libs`),
-- the instruction and memory limits (the machine sets them; `K.arm` is called for each new coroutine).
--
-- Invariants:
--   * Nothing a unit can do changes what another unit sees. A unit only ever holds its own tables, shared functions,
--     and views: tables that are empty themselves and whose guarded metatable finds the shared contents.
--   * Nothing a unit can see depends on the process it runs in: no address, no hash order, no clock, no collector.
--     What remains the author's duty is `#t` of a table with holes, which Lua leaves open.
--   * After `K.current.doomed` is set, no protected call of the unit returns normally with a failure.
--
-- A unit is a table of the kernel. Read here: now, started (ns), seed (bytes), doomed, task. Written here: env, string,
-- string_meta, ordinals, next_ordinal, math_stream, id_stream.
--
-- Names: `raw_x` is the C function x; K.blame relies on it to write error messages in the user's words.

local K = ...
local raw = K.raw

local raw_type, raw_next, raw_rawget, raw_rawset = raw.type, raw.next, raw.rawget, raw.rawset
local raw_tostring, raw_tonumber, raw_select, raw_error = raw.tostring, raw.tonumber, raw.select, raw.error
local raw_setmetatable, raw_getmetatable = raw.setmetatable, raw.getmetatable
local raw_xpcall = raw.xpcall
local metatable_of = raw.debug.getmetatable
local getinfo = raw.debug.getinfo
local raw_format, raw_find, raw_match = raw.string.format, raw.string.find, raw.string.match
local raw_gmatch, raw_gsub, raw_rep, raw_sub = raw.string.gmatch, raw.string.gsub, raw.string.rep, raw.string.sub
local raw_sort, concat, unpack, pack = raw.table.sort, raw.table.concat, raw.table.unpack, raw.table.pack
local math_type, tointeger, ult = raw.math.type, raw.math.tointeger, raw.math.ult
local class_of, SEQ = K.class_of, K.SEQ

K.limits = K.limits or {}
K.limits.string_bytes_max = K.limits.string_bytes_max or 64 * 1024 * 1024 -- C builds these in one uninterruptible step
K.limits.move_elements_max = K.limits.move_elements_max or 10 ^ 6 -- 70 ns each, and nothing can stop C in between

-- Upper/lower case, classes, order and the decimal point come from the process' C locale. Differing nodes would give
-- differing replays, so a VM does not start in a locale that changes any of them.
do
  local high = {}
  for b = 128, 255 do
    high[#high + 1] = raw.string.char(b)
  end
  high = concat(high)
  if raw_find(high, "[%a%s%p%d%c]") or raw.string.upper(high) ~= high or raw_tostring(1.5) ~= "1.5" or "a" < "B" then
    raw_error("the process locale changes how Lua treats text; start the node with LC_ALL=C.UTF-8", 0)
  end
end

-- Guarded metatables --------------------------------------------------------------------------------------------------

-- metatable -> the shared table behind it, for every view that user code may hold.
local shared_behind = {}

--- A guarded metatable: user code cannot read or replace it, and `pairs`, `next`, `rawget` look through it.
local function guard(mt, shared)
  mt.__metatable = false
  mt.__index = mt.__index or shared
  shared_behind[mt] = shared
  return mt
end

--- Contents of a view as a plain table: shared entries, hidden by the view's own.
local function merged(t, shared)
  local all = {}
  for k, v in raw_next, shared do
    all[k] = v
  end
  for k, v in raw_next, t do
    all[k] = v
  end
  return all
end

-- Errors in the user's words ------------------------------------------------------------------------------------------

local function reworded(message, level_of)
  local rest = raw_match(message, "^%[%l+%]:%d+: (.*)$")
  if not rest then
    return message
  end
  rest = raw_gsub(rest, "'raw_(%w+)'", "'%1'")
  local place = level_of()
  return place and place .. rest or rest
end

local function place_of(info)
  return raw.string.byte(info.source) == 64 and info.currentline > 0 -- "@": a user's file
    and info.short_src .. ":" .. raw_tostring(info.currentline) .. ": "
end

--- Message handler: a text raised inside the kernel gets the position of the user code that called it.
function K.blame(message)
  if raw_type(message) ~= "string" then
    return message
  end
  return reworded(message, function()
    for level = 3, 200 do
      local info = getinfo(level, "Sl")
      local place = info and place_of(info)
      if place or not info then
        return place
      end
    end
    return nil
  end)
end

--- The same for the error that ended coroutine `co`.
function K.blame_thread(co, message)
  if raw_type(message) ~= "string" then
    return message
  end
  return reworded(message, function()
    for level = 0, 200 do
      local info = getinfo(co, level, "Sl")
      local place = info and place_of(info)
      if place or not info then
        return place
      end
    end
    return nil
  end)
end

local blame = K.blame

-- Ordinals and the text of values -------------------------------------------------------------------------------------

local weak_keys = { __mode = "k" }
local nobody = {} -- ordinals asked for while no unit runs

--- The number of a table, function or thread in its unit, given on first use: what user code sees in place of an
--- address. Entries vanish only together with their values, so the collector's timing is invisible.
local function ordinal(v)
  local unit = K.current or nobody
  local ordinals = unit.ordinals
  if not ordinals then
    ordinals = raw_setmetatable({}, weak_keys)
    unit.ordinals, unit.next_ordinal = ordinals, 1
  end
  local n = ordinals[v]
  if not n then
    n = unit.next_ordinal
    ordinals[v], unit.next_ordinal = n, n + 1
  end
  return n
end
K.ordinal = ordinal

--- `tostring` without addresses.
local function tostring(v)
  local kind = raw_type(v)
  if kind == "string" then
    return v
  elseif kind == "number" then
    if v ~= v then
      return "nan" -- C writes "nan" or "-nan", which differs between processors
    end
    return raw_tostring(v)
  end
  local mt = metatable_of(v)
  if mt then
    local f = raw_rawget(mt, "__tostring")
    if f then
      local text = f(v)
      if raw_type(text) ~= "string" then
        raw_error("'__tostring' must return a string")
      end
      return text
    end
    local name = raw_rawget(mt, "__name")
    if raw_type(name) == "string" then
      kind = name
    end
  end
  if kind == "nil" or kind == "boolean" then
    return raw_tostring(v)
  end
  return raw_format("%s: 0x%08x", kind, class_of(v) and raw_rawget(v, SEQ) or ordinal(v))
end
K.tostring = tostring

-- The order of tables -------------------------------------------------------------------------------------------------
--
-- numbers ascending, strings bytewise, false, true, objects by creation, values with an ordinal by ordinal, and at
-- most one key without: where there are two, no order could be the same elsewhere.

local NO_ORDER = "the keys of this table have no order that would be the same in a replay: it has several tables, "
  .. "functions or coroutines as keys; iterate a list instead, or call tostring() on each key before it is used"

local function by_first(a, b)
  return a[1] < b[1]
end

local function append_ranked(out, n, ranked)
  raw_sort(ranked, by_first)
  for i = 1, #ranked do
    if i > 1 and ranked[i][1] == ranked[i - 1][1] then
      raw_error(NO_ORDER)
    end
    n = n + 1
    out[n] = ranked[i][2]
  end
  return n
end

local function sort_mixed(keys, n)
  local numbers, strings, objects, numbered = {}, {}, {}, {}
  local has_false, has_true, lone = false, false, nil
  local unit = K.current or nobody
  local ordinals = unit.ordinals
  for i = 1, n do
    local k = keys[i]
    local kind = raw_type(k)
    if kind == "number" then
      numbers[#numbers + 1] = k
    elseif kind == "string" then
      strings[#strings + 1] = k
    elseif kind == "boolean" then
      has_false, has_true = has_false or not k, has_true or k
    elseif class_of(k) then
      objects[#objects + 1] = { raw_rawget(k, SEQ), k }
    else
      local rank = ordinals and ordinals[k]
      if rank then
        numbered[#numbered + 1] = { rank, k }
      elseif lone ~= nil then
        raw_error(NO_ORDER)
      else
        lone = k
      end
    end
  end
  raw_sort(numbers)
  raw_sort(strings)
  local out = raw.table.move(strings, 1, #strings, #numbers + 1, numbers)
  local m = #out
  if has_false then
    m = m + 1
    out[m] = false
  end
  if has_true then
    m = m + 1
    out[m] = true
  end
  m = append_ranked(out, m, objects)
  m = append_ranked(out, m, numbered)
  out[m + 1] = lone
  return out
end

--- The keys of a plain table in the defined order, and their number.
local function sorted_keys(t)
  local keys, n, only = {}, 0, nil
  for k in raw_next, t do
    n = n + 1
    keys[n] = k
    local kind = raw_type(k)
    if kind ~= only then
      only = only == nil and kind or false
    end
  end
  if n < 2 then
    return keys, n
  elseif only == "string" or only == "number" then
    raw_sort(keys)
    return keys, n
  end
  return sort_mixed(keys, n), n
end
K.sorted_keys = sorted_keys

local function check_iterable(t, name)
  if raw_type(t) ~= "table" then
    raw_error("bad argument #1 to '" .. name .. "' (table expected, got " .. (t == nil and "nil" or K.type(t)) .. ")")
  end
  local mt = metatable_of(t)
  if mt then
    local shared = shared_behind[mt]
    if shared then
      return merged(t, shared)
    elseif class_of(t) then
      raw_error("bad argument #1 to '" .. name .. "' (table expected, got userdata)")
    elseif raw_rawget(mt, "__mode") ~= nil then
      raw_error("a weak table cannot be iterated: what is left in it depends on the garbage collector")
    end
  end
  return t
end

-- Where `next` stands in a table: {keys, n, i}. One per table and VM: an entry lives as long as its table, and each is
-- checked against the key it is asked for, so a stale one costs time but gives no wrong answer.
local cursors = raw_setmetatable({}, weak_keys)

local function next_after(t, key)
  local cursor = cursors[t]
  if not cursor or cursor.keys[cursor.i] ~= key then
    -- The key may have been removed since; it still has its place in the order.
    local with_key = { [key] = true }
    for k in raw_next, t do
      with_key[k] = true
    end
    local keys, n = sorted_keys(with_key)
    cursor = { keys = keys, n = n, i = 1 }
    while keys[cursor.i] ~= key do
      cursor.i = cursor.i + 1
    end
    cursors[t] = cursor
  end
  for i = cursor.i + 1, cursor.n do
    local k = cursor.keys[i]
    local v = raw_rawget(t, k)
    if v ~= nil then
      cursor.i = i
      return k, v
    end
  end
  cursors[t] = nil
  return nil
end

--- `next` in the defined order. `next(t)` looks for the least key and sorts nothing, unless no key is a number or text.
local function next(t, key)
  t = check_iterable(t, "next")
  if key ~= nil then
    return next_after(t, key)
  end
  local k, v = raw_next(t)
  if k == nil then
    return nil
  elseif raw_next(t, k) == nil then
    return k, v
  end
  local least, least_rank = nil, 3
  for other in raw_next, t do
    local kind = raw_type(other)
    local rank = kind == "number" and 1 or kind == "string" and 2 or 3
    if rank < least_rank or rank == least_rank and rank < 3 and other < least then
      least, least_rank = other, rank
    end
  end
  if least_rank == 3 then
    least = sorted_keys(t)[1]
  end
  return least, raw_rawget(t, least)
end

local function no_entries() end

--- The iterator of `pairs`: over a snapshot of the keys, skipping what has been removed since.
local function iterate(t)
  t = check_iterable(t, "pairs")
  local length = 0
  for k in raw_next, t do
    length = length + 1
    if k ~= length then
      length = nil
      break
    end
  end
  if length == 0 then
    return no_entries, t
  elseif length then
    -- Exactly 1..length: no list of keys is needed.
    return function(_, i)
      for at = (i or 0) + 1, length do
        local v = raw_rawget(t, at)
        if v ~= nil then
          return at, v
        end
      end
      return nil
    end, t
  end
  local keys, i = sorted_keys(t), 0
  return function(_, key)
    if key == nil then
      i = 0
    elseif keys[i] ~= key then
      return next_after(t, key) -- called by hand, out of step
    end
    while true do
      i = i + 1
      local k = keys[i]
      if k == nil then
        return nil
      end
      local v = raw_rawget(t, k)
      if v ~= nil then
        return k, v
      end
    end
  end, t
end

local function first_three(a, b, c)
  return a, b, c
end

local function pairs(t)
  local mt = metatable_of(t)
  local f = mt and raw_rawget(mt, "__pairs")
  if f then
    return first_three(f(t))
  end
  return iterate(t)
end

--- The same for the kernel's own tables.
K.ordered_pairs = iterate

-- The functions every unit shares -------------------------------------------------------------------------------------

local globals = {
  _VERSION = "Lua 5.4",
  assert = raw.assert, error = raw.error, ipairs = raw.ipairs, next = next, pairs = pairs, rawequal = raw.rawequal,
  select = raw.select, tonumber = raw.tonumber, tostring = tostring, type = K.type, unpack = unpack,
}
--- Globals of every unit; later kernel files add theirs (functions and immutable values only).
K.globals = globals

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

-- A doomed unit (killed, out of budget) must not catch its end and go on.
local function protected(ok, ...)
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
local as_string = of_type("string", function(v) return raw_type(v) == "string" end)

-- string --------------------------------------------------------------------------------------------------------------

--- A string argument: Errors stand for their text; anything wrong is left for the C function to name.
local function text(v)
  if raw_type(v) == "number" then
    return raw_tostring(v)
  end
  return K.error_text(v) or v
end

local string = { char = raw.string.char, pack = raw.string.pack, packsize = raw.string.packsize }

local raw_byte, raw_len, raw_lower = raw.string.byte, raw.string.len, raw.string.lower
local raw_reverse, raw_upper = raw.string.reverse, raw.string.upper

function string.byte(s, i, j)
  if raw_type(s) ~= "string" then s = text(s) end
  return raw_byte(s, i, j)
end

function string.len(s)
  return raw_len(text(s))
end

function string.lower(s)
  if raw_type(s) ~= "string" then s = text(s) end
  return raw_lower(s)
end

function string.reverse(s)
  return raw_reverse(text(s))
end

function string.sub(s, i, j)
  if raw_type(s) ~= "string" then s = text(s) end
  return raw_sub(s, i, j)
end

function string.upper(s)
  if raw_type(s) ~= "string" then s = text(s) end
  return raw_upper(s)
end

local raw_unpack = raw.string.unpack
function string.unpack(format, s, init)
  return raw_unpack(text(format), text(s), init)
end

local function check_bytes(n)
  if n > K.limits.string_bytes_max then
    raw_error("resulting string too large (" .. raw_format("%.0f", n) .. " bytes, limit "
      .. raw_format("%d", K.limits.string_bytes_max) .. ")")
  end
end

function string.rep(s, n, sep)
  s, sep = text(s), text(sep)
  local count = raw_tonumber(n)
  if count and count > 1 and raw_type(s) == "string" and (sep == nil or raw_type(sep) == "string") then
    local piece = #s + (sep and #sep or 0)
    if piece == 0 and tointeger(count) then
      return "" -- C would count to n
    end
    check_bytes(piece * (count + 0.0))
  end
  return raw_rep(s, n, sep)
end

local is_risky, linear = K.is_risky, K.linear
if not is_risky then
  raw_error("load patterns.lua before stdlib.lua", 0)
end

function string.find(s, pattern, init, plain)
  if raw_type(s) ~= "string" then s = text(s) end
  if raw_type(pattern) ~= "string" then pattern = text(pattern) end
  if not plain and raw_type(s) == "string" and raw_type(pattern) == "string" and is_risky(s, pattern) then
    return linear.find(s, pattern, init)
  end
  return raw_find(s, pattern, init, plain)
end

function string.match(s, pattern, init)
  if raw_type(s) ~= "string" then s = text(s) end
  if raw_type(pattern) ~= "string" then pattern = text(pattern) end
  if raw_type(s) == "string" and raw_type(pattern) == "string" and is_risky(s, pattern) then
    return linear.match(s, pattern, init)
  end
  return raw_match(s, pattern, init)
end

function string.gmatch(s, pattern, init)
  s, pattern = text(s), text(pattern)
  if raw_type(s) == "string" and raw_type(pattern) == "string" and is_risky(s, pattern, true) then
    return linear.gmatch(s, pattern, init)
  end
  return raw_gmatch(s, pattern, init)
end

function string.gsub(s, pattern, repl, times)
  s, pattern = text(s), text(pattern)
  if raw_type(repl) == "table" then
    repl = text(repl)
  end
  if raw_type(s) == "string" and raw_type(pattern) == "string" and is_risky(s, pattern) then
    local kind = raw_type(repl)
    if kind == "string" or kind == "number" or kind == "table" or kind == "function" then
      return linear.gsub(s, pattern, repl, times)
    end
  end
  return raw_gsub(s, pattern, repl, times)
end

-- format string -> per argument: true = as text (%s), false = a float (%a %e %f %g), nil = C's own affair.
local format_plans, format_plan_count = {}, 0
local FORMAT_PLANS_MAX = 500

local function format_plan(format)
  local plan = format_plans[format]
  if not plan then
    plan = { n = 0 }
    for spec in raw_gmatch(format, "%%[-+ #0]*%d*%.?%d*(.?)") do
      if spec == "p" then
        raw_error("invalid conversion '%p' to 'format' (addresses differ from run to run)")
      elseif spec ~= "%" then
        plan.n = plan.n + 1
        if spec == "s" then
          plan[plan.n] = true
        elseif raw_find(spec, "^[aAeEfFgG]") then
          plan[plan.n] = false
        end
      end
    end
    if format_plan_count >= FORMAT_PLANS_MAX then
      format_plans, format_plan_count = {}, 0
    end
    format_plans[format], format_plan_count = plan, format_plan_count + 1
  end
  return plan
end

local NAN = 0.0 / 0.0
if raw_find(raw_tostring(NAN), "-", 1, true) then
  NAN = -NAN
end

function string.format(format, ...)
  format = text(format)
  if raw_type(format) ~= "string" then
    return raw_format(format, ...)
  end
  local plan, args, n = format_plan(format), nil, raw_select("#", ...)
  for i = 1, plan.n < n and plan.n or n do
    local as_text = plan[i]
    if as_text ~= nil then
      local v = raw_select(i, ...)
      local replaced
      if as_text then
        if raw_type(v) ~= "string" then
          replaced = tostring(v)
        end
      elseif v ~= v then
        replaced = NAN
      end
      if replaced ~= nil then
        args = args or { ... }
        args[i] = replaced
      end
    end
  end
  if args then
    return raw_format(format, unpack(args, 1, n))
  end
  return raw_format(format, ...)
end

-- table ---------------------------------------------------------------------------------------------------------------

local table = { concat = raw.table.concat, pack = pack, unpack = unpack }

local raw_insert, raw_remove = raw.table.insert, raw.table.remove

local function check_position(pos, last, name)
  pos = raw_tonumber(pos) and tointeger(raw_tonumber(pos))
  if not pos or pos < 1 or pos > last then
    raw_error("bad argument #2 to '" .. name .. "' (position out of bounds)")
  end
  return pos
end

-- A `__len` may claim any length, and C would move that many elements without end: here the budget counts.
function table.insert(t, ...)
  if raw_type(t) ~= "table" or not metatable_of(t) then
    return raw_insert(t, ...)
  end
  local n, given = #t + 1, raw_select("#", ...)
  if given == 1 then
    t[n] = (...)
  elseif given == 2 then
    local pos, v = ...
    pos = check_position(pos, n, "insert")
    for i = n, pos + 1, -1 do
      t[i] = t[i - 1]
    end
    t[pos] = v
  else
    raw_error("wrong number of arguments to 'insert'")
  end
end

function table.remove(t, ...)
  if raw_type(t) ~= "table" or not metatable_of(t) then
    return raw_remove(t, ...)
  end
  local n, pos = #t, nil
  if (...) == nil then
    pos = n
  elseif n == 0 and (...) == 0 then
    pos = 0
  else
    pos = check_position((...), n + 1, "remove")
  end
  local v = t[pos]
  for i = pos, n - 1 do
    t[i] = t[i + 1]
  end
  t[pos > n and pos or n] = nil
  return v
end

--- Room is not reserved: Lua grows tables by itself. Kept for programs that call it.
function table.create(_, _)
  return {}
end

local raw_move = raw.table.move
function table.move(from, first, last, at, to)
  local a, b = raw_tonumber(first), raw_tonumber(last)
  if a and b and b - a >= K.limits.move_elements_max then
    raw_error("too many elements to move")
  end
  if to == nil then
    return raw_move(from, first, last, at)
  end
  return raw_move(from, first, last, at, to)
end

local function ascending(a, b)
  return a < b
end

local RUN = 8 -- insertion sort up to here, merges above

--- Sort list[1..n] (a plain list) with `less`, stable; returns the sorted list.
local function merge_sort(list, n, less)
  for low = 1, n, RUN do
    local high = low + RUN - 1
    for i = low + 1, high < n and high or n do
      local v, j = list[i], i - 1
      while j >= low and less(v, list[j]) do
        list[j + 1] = list[j]
        j = j - 1
      end
      list[j + 1] = v
    end
  end
  local other, width = {}, RUN
  while width < n do
    for low = 1, n, 2 * width do
      local i, j, k = low, low + width, low
      local i_end = j <= n and j or n + 1
      local j_end = j + width <= n and j + width or n + 1
      if j >= j_end or not less(list[j], list[j - 1]) then
        raw_move(list, low, j_end - 1, low, other) -- already in order
      else
        while i < i_end and j < j_end do
          if less(list[j], list[i]) then
            other[k], j = list[j], j + 1
          else
            other[k], i = list[i], i + 1
          end
          k = k + 1
        end
        raw_move(list, i, i_end - 1, k, other)
        raw_move(list, j, j_end - 1, k + i_end - i, other)
      end
    end
    list, other, width = other, list, width * 2
  end
  return list
end

--- `table.sort`, stable. C's quicksort picks pivots by the clock, so with equal or badly compared elements its result
--- differs from run to run. The comparator may block. An order that contradicts itself raises and changes nothing.
function table.sort(t, less)
  local kind = K.type(t)
  if kind ~= "table" then
    raw_error("bad argument #1 to 'sort' (table expected, got " .. kind .. ")")
  elseif less ~= nil and raw_type(less) ~= "function" then
    raw_error("bad argument #2 to 'sort' (function expected, got " .. K.type(less) .. ")")
  end
  local n = #t
  if n < 2 then
    return
  elseif n > K.limits.move_elements_max then
    raw_error("bad argument #1 to 'sort' (array too big)")
  end
  local list, plain = {}, less == nil and raw_type(t[1])
  for i = 1, n do
    local v = t[i]
    list[i] = v
    if plain and (raw_type(v) ~= plain or plain == "number" and math_type(v) ~= "integer") then
      plain = false
    end
  end
  if plain == "string" or plain == "number" then
    raw_sort(list) -- equal elements cannot be told apart: any correct sort gives this result
  else
    less = less or ascending
    list = merge_sort(list, n, less)
    for i = 2, n do
      if less(list[i], list[i - 1]) then
        raw_error("invalid order function for sorting")
      end
    end
  end
  for i = 1, n do
    t[i] = list[i]
  end
end

-- math ----------------------------------------------------------------------------------------------------------------
--
-- xoshiro256** (Blackman and Vigna, public domain algorithm), two independent streams per unit derived from unit.seed:
-- one behind math.random, which user code may reseed, one behind ids, which it may not (a fixed seed in many units
-- would give them the same ids).

local math = {}
for name, v in raw_next, raw.math do
  math[name] = v
end

local function splitmix64(x)
  x = x + 0x9e3779b97f4a7c15
  local z = x
  z = (z ~ (z >> 30)) * 0xbf58476d1ce4e5b9
  z = (z ~ (z >> 27)) * 0x94d049bb133111eb
  return x, z ~ (z >> 31)
end

local function rotl(x, k)
  return (x << k) | (x >> (64 - k))
end

local function next_u64(s)
  local s0, s1, s2, s3 = s[1], s[2], s[3], s[4]
  local result = rotl(s1 * 5, 7) * 9
  s2 = s2 ~ s0
  s3 = s3 ~ s1
  s[1], s[2], s[3], s[4] = s0 ~ s3, s1 ~ s2, s2 ~ (s1 << 17), rotl(s3, 45)
  return result
end

--- A generator whose state takes in all of `words` (a list of integers) in order.
local function generator(words)
  local s = { 0, 0, 0, 0 }
  local x = #words
  for i = 1, #words do
    local at = (i - 1) & 3
    local z
    x, z = splitmix64(x ~ words[i])
    s[at + 1] = s[at + 1] ~ z ~ words[i]
  end
  for at = 1, 4 do
    local z
    x, z = splitmix64(x)
    s[at] = s[at] ~ z
  end
  if s[1] | s[2] | s[3] | s[4] == 0 then
    s[1] = 1 -- the one state the generator cannot leave
  end
  for _ = 1, 8 do
    next_u64(s)
  end
  return s
end

local function stream(unit, field, number)
  local s = unit[field]
  if not s then
    local seed = unit.seed or ""
    local words = { number, #seed }
    for at = 1, #seed, 8 do
      words[#words + 1] = raw_unpack("<i8", raw_sub(seed, at, at + 7) .. raw_rep("\0", at + 7 - #seed))
    end
    s = generator(words)
    unit[field] = s
  end
  return s
end

--- 64 random bits of the unit for ids; not influenced by math.randomseed.
function K.random_u64(unit)
  return next_u64(stream(unit, "id_stream", 2))
end

local function integer_argument(v, index, name)
  local n = raw_tonumber(v)
  if not n or raw_type(v) == "boolean" then
    raw_error("bad argument #" .. index .. " to '" .. name .. "' (number expected, got "
      .. (v == nil and "no value" or K.type(v)) .. ")")
  end
  local i = tointeger(n)
  if not i then
    raw_error("bad argument #" .. index .. " to '" .. name .. "' (number has no integer representation)")
  end
  return i
end

function math.random(...)
  local n = raw_select("#", ...)
  local s = stream(K.current, "math_stream", 1)
  if n == 0 then
    return (next_u64(s) >> 11) * 0x1p-53
  elseif n > 2 then
    raw_error("wrong number of arguments")
  end
  local low, high = ...
  if n == 1 then
    high = integer_argument(low, 1, "random")
    if high == 0 then
      return next_u64(s)
    end
    low = 1
  else
    low, high = integer_argument(low, 1, "random"), integer_argument(high, 2, "random")
  end
  if low > high then
    raw_error("bad argument #" .. n .. " to 'random' (interval is empty)")
  end
  -- Reject what lies above the span, under the least mask that covers it: every value is equally likely.
  local span = high - low
  local mask = span
  mask = mask | (mask >> 1)
  mask = mask | (mask >> 2)
  mask = mask | (mask >> 4)
  mask = mask | (mask >> 8)
  mask = mask | (mask >> 16)
  mask = mask | (mask >> 32)
  local v = next_u64(s) & mask
  while ult(span, v) do
    v = next_u64(s) & mask
  end
  return low + v
end

--- Reseed; without arguments from the unit's own stream, so a replay gives the same.
function math.randomseed(...)
  local a, b = ...
  if raw_select("#", ...) == 0 then
    local s = stream(K.current, "math_stream", 1)
    a, b = next_u64(s), next_u64(s)
  else
    local n = raw_tonumber(a)
    if not n then
      raw_error("bad argument #1 to 'randomseed' (number expected, got " .. K.type(a) .. ")")
    end
    a = tointeger(n) or raw_unpack("<i8", raw.string.pack("<d", n))
    b = b ~= nil and integer_argument(b, 2, "randomseed") or 0
  end
  K.current.math_stream = generator({ 1, a, b })
  return a, b
end

function math.pow(x, y)
  return x ^ y
end

function math.log10(x)
  return raw.math.log(x, 10)
end

math.atan2 = function(y, x)
  return raw.math.atan(y, x)
end

function math.cosh(x)
  local e = raw.math.exp(raw.math.abs(x))
  return (e + 1 / e) / 2
end

function math.sinh(x)
  if raw.math.abs(x) < 0.5 then
    -- The difference of two nearly equal exponentials loses digits; the series does not.
    local term, sum, square = x + 0.0, x + 0.0, x * x
    for i = 2, 16, 2 do
      term = term * square / (i * (i + 1))
      sum = sum + term
    end
    return sum
  end
  local e = raw.math.exp(x)
  return (e - 1 / e) / 2
end

function math.tanh(x)
  if x > 20 then
    return 1.0
  elseif x < -20 then
    return -1.0
  end
  return math.sinh(x) / math.cosh(x)
end

function math.frexp(x)
  x = x + 0.0
  if x == 0 or x ~= x or x == raw.math.huge or x == -raw.math.huge then
    return x, 0
  end
  local shift = 0
  if raw.math.abs(x) < 0x1p-1022 then
    x, shift = x * 0x1p54, -54
  end
  local bits = raw_unpack("<i8", raw.string.pack("<d", x))
  local exponent = (bits >> 52) & 0x7ff
  return raw_unpack("<d", raw.string.pack("<i8", bits & ~(0x7ff << 52) | (1022 << 52))), exponent - 1022 + shift
end

function math.ldexp(m, e)
  e = raw.math.max(-2200, raw.math.min(2200, integer_argument(e, 2, "ldexp")))
  while e > 1000 do
    m, e = m * 0x1p1000, e - 1000
  end
  while e < -1000 do
    m, e = m * 0x1p-1000, e + 1000
  end
  return m * 2.0 ^ e
end

-- os ------------------------------------------------------------------------------------------------------------------
--
-- The clock is K.current.now, in UTC. Formatting is done here: the C library would use the process' locale and zone.

local os = { platform = "linux" } -- one value on all nodes: a workflow may move between them

local DAY_S = 86400
local WEEKDAYS = { "Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday" }
local MONTHS = {
  "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
  "December",
}

--- Days from 1970-01-01 to the first of a month, proleptic Gregorian. Years are counted from March, so that the leap
--- day is the last of its year.
local function days_before(year, month)
  if month < 3 then
    year, month = year - 1, month + 12
  end
  return 365 * year + year // 4 - year // 100 + year // 400 + (153 * (month - 3) + 2) // 5 - 719468
end

local function broken_down(seconds)
  local days, rest = seconds // DAY_S, seconds % DAY_S
  local z = days + 719468
  local era, day_of_era = z // 146097, z % 146097
  local year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096) // 365
  local year = year_of_era + era * 400
  local day = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
  local from_march = (5 * day + 2) // 153
  local month = from_march < 10 and from_march + 3 or from_march - 9
  if month <= 2 then
    year = year + 1
  end
  return {
    year = year, month = month, day = day - (153 * from_march + 2) // 5 + 1,
    hour = rest // 3600, min = rest % 3600 // 60, sec = rest % 60,
    wday = (days + 4) % 7 + 1, yday = days - days_before(year, 1) + 1, isdst = false,
  }
end

local function date_field(t, name, default)
  local v = t[name]
  if v == nil then
    if default then
      return default
    end
    raw_error("field '" .. name .. "' missing in date table")
  end
  local i = raw_tonumber(v) and tointeger(raw_tonumber(v))
  if not i then
    raw_error("field '" .. name .. "' is not an integer")
  elseif i < -(1 << 31) or i >= 1 << 31 then
    raw_error("field '" .. name .. "' is out-of-bound")
  end
  return i
end

function os.time(t)
  if t == nil then
    return K.current.now // 1000000000
  elseif K.type(t) ~= "table" then
    raw_error("bad argument #1 to 'time' (table expected, got " .. K.type(t) .. ")")
  end
  local year, month, day = date_field(t, "year"), date_field(t, "month"), date_field(t, "day")
  local months = year * 12 + month - 1
  local seconds = (days_before(months // 12, months % 12 + 1) + day - 1) * DAY_S
    + date_field(t, "hour", 12) * 3600 + date_field(t, "min", 0) * 60 + date_field(t, "sec", 0)
  for name, v in raw_next, broken_down(seconds) do
    t[name] = v
  end
  return seconds
end

local function two(n)
  return raw_format("%02d", n)
end

local function iso_week(d)
  -- The ISO week belongs to the year that holds its Thursday.
  local thursday = days_before(d.year, 1) + d.yday - 1 - (d.wday + 5) % 7 + 3
  local of = broken_down(thursday * DAY_S)
  return of.year, (of.yday - 1) // 7 + 1
end

local formats
formats = {
  a = function(d) return raw_sub(WEEKDAYS[d.wday], 1, 3) end,
  A = function(d) return WEEKDAYS[d.wday] end,
  b = function(d) return raw_sub(MONTHS[d.month], 1, 3) end,
  B = function(d) return MONTHS[d.month] end,
  C = function(d) return two(d.year // 100) end,
  d = function(d) return two(d.day) end,
  e = function(d) return raw_format("%2d", d.day) end,
  g = function(d) return two((iso_week(d)) % 100) end,
  G = function(d) return raw_tostring((iso_week(d))) end,
  H = function(d) return two(d.hour) end,
  I = function(d) return two((d.hour + 11) % 12 + 1) end,
  j = function(d) return raw_format("%03d", d.yday) end,
  m = function(d) return two(d.month) end,
  M = function(d) return two(d.min) end,
  n = function() return "\n" end,
  p = function(d) return d.hour < 12 and "AM" or "PM" end,
  S = function(d) return two(d.sec) end,
  t = function() return "\t" end,
  u = function(d) return raw_tostring((d.wday + 5) % 7 + 1) end,
  U = function(d) return two((d.yday + 7 - d.wday) // 7) end,
  V = function(d) local _, week = iso_week(d) return two(week) end,
  w = function(d) return raw_tostring(d.wday - 1) end,
  W = function(d) return two((d.yday + 6 - (d.wday + 5) % 7) // 7) end,
  y = function(d) return two(d.year % 100) end,
  Y = function(d) return raw_tostring(d.year) end,
  z = function() return "+0000" end,
  Z = function() return "UTC" end,
  ["%"] = function() return "%" end,
}

local composed = {
  c = "%a %b %e %H:%M:%S %Y", D = "%m/%d/%y", F = "%Y-%m-%d", h = "%b", r = "%I:%M:%S %p", R = "%H:%M",
  T = "%H:%M:%S", x = "%m/%d/%y", X = "%H:%M:%S",
}

local function format_date(format, d)
  local parts, p = {}, 1
  while true do
    local at = raw_find(format, "%", p, true)
    parts[#parts + 1] = raw_sub(format, p, (at or 0) - 1)
    if not at then
      return concat(parts)
    end
    local modified, c = raw_match(format, "^%%([EO]?)(.?)", at)
    local f, longer = formats[c], composed[c]
    if modified == "E" and not raw_find(c, "^[cCxXyY]") or modified == "O" and not raw_find(c, "^[deHImMSuUVwWy]")
      or not f and not longer then
      raw_error("bad argument #1 to 'date' (invalid conversion specifier '%" .. modified .. c .. "')")
    end
    parts[#parts + 1] = f and f(d) or format_date(longer, d)
    p = at + 1 + #modified + #c
  end
end

function os.date(format, time)
  format = text(format == nil and "%c" or format)
  local seconds = time == nil and K.current.now // 1000000000 or integer_argument(time, 2, "date")
  if seconds < -67768040609740800 or seconds > 67768036191676799 then -- the range of a 32-bit year
    raw_error("date result cannot be represented in this installation")
  end
  format = raw_gsub(format, "^!", "")
  local d = broken_down(seconds)
  if raw_sub(format, 1, 2) == "*t" then
    return d
  end
  return format_date(format, d)
end

--- Seconds since the unit began.
function os.clock()
  local unit = K.current
  return (unit.now - (unit.started or unit.now)) / 1e9
end

function os.difftime(a, b)
  return integer_argument(a, 1, "difftime") - integer_argument(b, 2, "difftime") + 0.0
end

-- coroutine -----------------------------------------------------------------------------------------------------------
--
-- A library call that blocks yields the token K.BLOCK to the scheduler. Inside a coroutine made by user code that yield
-- first reaches the user's resume, which passes it on outwards and, once resumed, passes the answer inwards: the whole
-- task waits, the user's coroutine notices nothing.

local BLOCK = K.key("block")
K.BLOCK = BLOCK

local raw_create, raw_resume, raw_yield = raw.coroutine.create, raw.coroutine.resume, raw.coroutine.yield
local raw_status, raw_running, raw_close = raw.coroutine.status, raw.coroutine.running, raw.coroutine.close

local OWN, WAITING = 1, 2
-- Coroutines made by user code -> OWN, or WAITING while a blocking call inside holds its task. Others (the tasks of
-- the scheduler) cannot be resumed, closed or yielded from by user code.
local made = raw_setmetatable({}, weak_keys)

local coroutine = {}

local function check_thread(co, name)
  if raw_type(co) ~= "thread" then
    raw_error("bad argument #1 to '" .. name .. "' (coroutine expected)")
  end
end

function coroutine.create(f)
  if raw_type(f) ~= "function" then
    raw_error("bad argument #1 to 'create' (function expected)")
  end
  local co = raw_create(f)
  made[co] = OWN
  ordinal(co)
  if K.arm then
    K.arm(co)
  end
  return co
end

local function settle(co, ok, first, ...)
  if ok then
    if first == BLOCK then
      made[co] = WAITING
      return settle(co, raw_resume(co, raw_yield(BLOCK, ...)))
    end
    made[co] = OWN
    return true, first, ...
  end
  made[co] = OWN
  local unit = K.current
  if unit and unit.doomed then
    raw_error(unit.doomed, 0)
  elseif first == OUT_OF_MEMORY then
    raw_error(OUT_OF_MEMORY, 0)
  end
  return false, K.blame_thread(co, first)
end

local function refusal(co)
  local state = made[co]
  if state == OWN then
    return nil
  elseif state == WAITING then
    return "cannot resume non-suspended coroutine"
  end
  return "cannot resume a task of the scheduler"
end

function coroutine.resume(co, ...)
  check_thread(co, "resume")
  local no = refusal(co)
  if no then
    return false, no
  end
  return settle(co, raw_resume(co, ...))
end

local function unwrap(co, ok, ...)
  if ok then
    return ...
  end
  if raw_status(co) == "dead" then
    raw_close(co)
  end
  raw_error((...), 0)
end

function coroutine.wrap(f)
  local co = coroutine.create(f)
  local function wrapped(...)
    local no = refusal(co)
    if no then
      raw_error(no)
    end
    return unwrap(co, settle(co, raw_resume(co, ...)))
  end
  ordinal(wrapped)
  return wrapped
end

function coroutine.yield(...)
  if not made[raw_running()] then
    raw_error("attempt to yield from outside a coroutine")
  end
  return raw_yield(...)
end

function coroutine.status(co)
  check_thread(co, "status")
  if made[co] == WAITING then
    return "normal"
  end
  return raw_status(co)
end

--- The running coroutine and whether it is the unit's main task.
function coroutine.running()
  local co = raw_running()
  local task = K.current and K.current.task
  if task then
    return co, task.co == co and task.main == true
  end
  return co, not made[co]
end

function coroutine.isyieldable(co)
  co = co or raw_running()
  check_thread(co, "isyieldable")
  return made[co] ~= nil and raw.coroutine.isyieldable(co)
end

function coroutine.close(co)
  check_thread(co, "close")
  if made[co] ~= OWN then
    raw_error("cannot close a " .. (made[co] and "normal" or "running") .. " coroutine")
  end
  return protected(raw_close(co))
end

-- Environments --------------------------------------------------------------------------------------------------------

--- Library tables that a unit may extend for itself; later kernel files may add functions to them.
K.libs = { string = string, table = table, math = math, coroutine = coroutine, os = os }

local overlay_meta = {}
for name, shared in raw_next, K.libs do
  local mt = guard({}, shared)
  if name == "string" then
    mt.__call = function(_, v) return as_string(v) end
  end
  overlay_meta[name] = mt
end

local string_meta = metatable_of("") -- the real one, behind every string of the VM
string_meta.__metatable = false
string_meta.__index = string

local module_views = {}

local function view_of(name, contents)
  local shown = {}
  for k, v in raw_next, contents do
    -- Tables inside a module are shared too.
    if raw_type(v) == "table" and not class_of(v) and not (metatable_of(v) and shared_behind[metatable_of(v)]) then
      v = view_of(name .. "." .. raw_tostring(k), v)
    end
    shown[k] = v
  end
  return raw_setmetatable({}, guard({
    __newindex = function()
      raw_error("module " .. name .. " is read-only")
    end,
    __len = function() return #shown end,
  }, shown))
end

--- The read-only form of K.modules[name] that user code gets, nil if there is no such module. Made on first use, when
--- all kernel files have been loaded.
function K.module(name)
  local view = module_views[name]
  if view == nil then
    local contents = K.modules[name]
    if contents == nil then
      return nil
    end
    view = raw_type(contents) == "table" and not class_of(contents) and view_of(name, contents) or contents
    module_views[name] = view
  end
  return view
end

-- Modules that are globals of every unit, whatever its entry lists.
K.global_modules = { errors = true, process = true, channel = true, payload = true }

local make = {}

for name, mt in raw_next, overlay_meta do
  make[name] = function(unit)
    local overlay = raw_setmetatable({}, mt)
    if name == "string" then
      unit.string = overlay
      if K.current == unit then
        string_meta.__index = overlay
      end
    end
    return overlay
  end
end

function make._G(unit)
  return unit.env
end

function make.package(unit)
  local env = unit.env
  local loaded = { _G = env }
  for name in raw_next, overlay_meta do
    loaded[name] = env[name]
  end
  return { loaded = loaded, path = "", cpath = "" }
end

-- What is not in an environment itself: functions every unit shares come straight from `globals`; library tables are
-- made for the unit that asks first. Only the running unit's code can ask, so the unit is K.current.
raw_setmetatable(globals, {
  __index = function(_, name)
    local unit, made_for = K.current, make[name]
    local v
    if made_for then
      v = made_for(unit)
    elseif K.global_modules[name] or unit.listed and unit.listed[name] then
      v = K.module(name)
    end
    if v ~= nil then
      raw_rawset(unit.env, name, v)
    end
    return v
  end,
})

local env_meta = guard({}, globals)

-- `pairs(_G)` shows the library tables too, made or not.
env_meta.__pairs = function(env)
  for name in raw_next, make do
    local _ = env[name]
  end
  for name in raw_next, K.global_modules do
    local _ = env[name]
  end
  for name in raw_next, K.current.listed or {} do
    local _ = env[name]
  end
  return iterate(env)
end

--- The _ENV of a unit: an empty table until the unit's code looks something up. `unit.env` is set to it.
function K.make_env(unit)
  local env = raw_setmetatable({}, env_meta)
  unit.env = env
  return env
end

--- Make `unit` the running one. The kernel calls this before each activation.
function K.enter(unit)
  K.current = unit
  string_meta.__index = unit.string or string
end

--- Between activations no unit runs.
function K.leave()
  K.current = nil
  string_meta.__index = string
end
