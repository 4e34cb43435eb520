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

local table = { concat = raw.table.concat, pack = raw.table.pack, unpack = raw.table.unpack }
K.libs.table = table

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
