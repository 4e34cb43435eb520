-- The `table` library of units.
--
-- Where C would loop as long as somebody claims, here the budget counts; `sort` is stable, so that it gives the same
-- result in every process.

local K = ...
local raw = K.raw

local raw_type, raw_select, raw_error, raw_tonumber = raw.type, raw.select, raw.error, raw.tonumber
local raw_sort, metatable_of = raw.table.sort, raw.debug.getmetatable
local math_type, tointeger = raw.math.type, raw.math.tointeger

K.limits = K.limits or {}
K.limits.move_elements_max = K.limits.move_elements_max or 10 ^ 6 -- 70 ns each, and nothing can stop C in between

local table = { pack = raw.table.pack }
K.libs.table = table

local VALUES_FREE <const> = 256
local raw_concat, raw_unpack = raw.table.concat, raw.table.unpack

local function span(first, last)
  local a, b = raw_tonumber(first), raw_tonumber(last)
  return a and b and b - a + 1 or 0
end

function table.unpack(t, first, last)
  local n = last == nil and raw_type(t) == "table" and #t or span(first or 1, last)
  if n > VALUES_FREE then
    K.spend(n < 1e6 and raw.math.floor(n) or 0) -- more is an error
  end
  if last == nil then
    return raw_unpack(t, first)
  end
  return raw_unpack(t, first, last)
end

K.globals.unpack = table.unpack

-- C copies without end what a list holds a thousand times: how much that is is counted first.
function table.concat(t, separator, first, last)
  separator = separator == nil and "" or separator
  if raw_type(t) == "table" and not metatable_of(t) and (raw_type(separator) == "string" or raw_type(separator) == "number") then
    local from, to = raw_tonumber(first or 1), raw_tonumber(last or #t)
    if from and to and to - from >= VALUES_FREE // 4 then
      local bytes, sep = 0, #(separator .. "")
      for i = from, to do
        local v = t[i]
        if raw_type(v) == "string" then
          bytes = bytes + #v + sep
        elseif v == nil then
          break -- an error that C has the words for
        else
          bytes = bytes + sep + 24
        end
      end
      if bytes > K.limits.string_bytes_max then
        raw_error("resulting string too large (limit " .. raw.string.format("%d", K.limits.string_bytes_max) .. " bytes)")
      end
      K.spend(bytes // 64)
    end
  end
  if last == nil then
    return (K.notice(raw_concat(t, separator, first)))
  end
  return (K.notice(raw_concat(t, separator, first, last)))
end

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
    if raw_type(t) == "table" and raw_select("#", ...) > 1 and #t > VALUES_FREE then
      K.spend(#t) -- each is moved
    end
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
    if raw_type(t) == "table" and (...) ~= nil and (...) ~= #t and #t > VALUES_FREE then
      K.spend(#t)
    end
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
  elseif a and b and b - a > VALUES_FREE then
    K.spend(raw.math.floor(b - a) * 3)
  end
  if to == nil then
    return raw_move(from, first, last, at)
  end
  return raw_move(from, first, last, at, to)
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
  if plain and K.sorts_quickly(list, n) then
    raw_sort(list) -- equal elements cannot be told apart: any correct sort gives this result
  else
    less = less or K.ascending
    list = K.merge_sort(list, n, less)
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
