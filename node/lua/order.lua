-- The order of tables: `next` and `pairs` that go through a table in the same order in every process.
--
-- Numbers ascending, strings bytewise, false, true, objects by creation, values with an ordinal by ordinal, and at
-- most one key without: where there are two, no order could be the same elsewhere.
--
-- Not responsible for: `#t` of a table with holes, which Lua leaves open and which remains the author's duty.

local K = ...
local raw = K.raw

local raw_type, raw_next, raw_rawget, raw_error = raw.type, raw.next, raw.rawget, raw.error
local raw_sort, raw_setmetatable, metatable_of = raw.table.sort, raw.setmetatable, raw.debug.getmetatable
local class_of, SEQ, shared_behind = K.class_of, K.SEQ, K.shared_behind

local weak_keys = { __mode = "k" }

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
  local ordinals = K.ordinals()
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
  numbers, strings = K.sort_plain(numbers, #numbers), K.sort_plain(strings, #strings)
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
    return K.sort_plain(keys, n), n
  end
  return sort_mixed(keys, n), n
end
K.sorted_keys = sorted_keys

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
function K.next(t, key)
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

--- `pairs` in the defined order.
function K.pairs(t)
  local mt = metatable_of(t)
  local f = mt and raw_rawget(mt, "__pairs")
  if f then
    return first_three(f(t))
  end
  return iterate(t)
end

--- The same for the kernel's own tables.
K.ordered_pairs = iterate
