-- String patterns that cannot run away.
--
-- Responsible for: telling when a Lua pattern may need more than linear time on a subject (`K.is_risky`) and for
-- matching such a pair in linear time (`K.linear.find/match/gmatch/gsub`, the same answers as the C library's).
-- Not responsible for: the common case, which goes to C untouched (text.lua asks `K.is_risky` first).
--
-- Why: the instruction limit of a unit is not looked at inside C, so `("%s+$")` on a megabyte of spaces would hold
-- the whole node for minutes.
--
-- Theory. A pattern is a list of items; only `*`, `+` and `-` make the matcher try more than two ways. Write C for
-- the characters such an item repeats and F for those the rest of the pattern can begin with. If C and F have
-- nothing in common there is one way to end the repetition, all others fail at their first character: the item
-- costs its length once. Otherwise every length is a way, and the ways of several such items multiply. So with a
-- items that overlap, on a subject of n bytes, the cost is about n^e,
--     e = a  + 1 if an item without overlap follows the last of them (it is scanned again for each way)
--            + 1 if the pattern is not anchored (everything is done again at each start),
-- and items whose rest cannot fail (`.-` or `.*` up to the end, or nothing) are left out: nothing is tried twice.
-- e <= 1 is always fine; otherwise the pair is risky from n^e > STEPS_MAX on.
--
-- The linear matcher backtracks in the same order, but remembers what failed: whether items i.. match at position
-- p depends on i and p alone (not on captures, unless the pattern holds a back-reference; such a pattern is matched
-- without memory, in Lua, where the instruction limit does see it). For a repetition all lengths inside one run of C
-- end at positions p+min..end of run, so one number per run says which of them are known to fail.

local K = ...
local raw = K.raw
local raw_find, raw_sub, raw_gmatch, raw_byte = raw.string.find, raw.string.sub, raw.string.gmatch, raw.string.byte
local raw_type, raw_tostring = raw.type, raw.tostring
local concat, unpack = raw.table.concat, raw.table.unpack

local STEPS_MAX = 5e7 -- some 0.15 s in C at worst
local STEPS_FREE = 1e5 -- what may take more is preceded by a look at the clock
local SET_FREE_BYTES = 16 -- of a set of characters; a step that compares with a longer one takes as much longer
local PLAN_BYTES_MAX = 500 -- longer patterns are not remembered: what is remembered is everybody's
local PLANS_MAX = 1000 -- patterns remembered per VM; then all are forgotten (programs that build patterns)

local OPTIONS_PER_ITEM = 4
local ONE, OPT, REP, OPEN, POS, CLOSE, BACK, PLACE, END = 1, 2, 3, 4, 5, 6, 7, 8, 9

local every = {}
for b = 0, 255 do
  every[b + 1] = raw.string.char(b)
end
every = concat(every)

--- The end of the single-character class that begins at p, nil if malformed (C then raises the right error).
local function class_end(pat, p)
  local c = raw_sub(pat, p, p)
  if c == "%" then
    return p < #pat and p + 1 or nil
  elseif c ~= "[" then
    return p
  end
  p = p + 1
  if raw_sub(pat, p, p) == "^" then
    p = p + 1
  end
  repeat -- the first `]` of a set is a member
    local m = raw_sub(pat, p, p)
    if m == "" or (m == "%" and p == #pat) then
      return nil
    end
    p = p + (m == "%" and 2 or 1)
  until raw_sub(pat, p, p) == "]"
  return p
end

--- The items of a pattern, or nil when it is malformed.
local function parse(pat, is_gmatch)
  local items, p, open = { anchored = false }, 1, 0
  if not is_gmatch and raw_sub(pat, 1, 1) == "^" then
    items.anchored, p = true, 2
  end
  while p <= #pat do
    local c, two = raw_sub(pat, p, p), raw_sub(pat, p, p + 1)
    if two == "()" then
      items[#items + 1], p = { op = POS }, p + 2
    elseif c == "(" then
      items[#items + 1], p, open = { op = OPEN }, p + 1, open + 1
    elseif c == ")" then
      if open == 0 then
        return nil
      end
      items[#items + 1], p, open = { op = CLOSE }, p + 1, open - 1
    elseif c == "$" and p == #pat then
      items[#items + 1], p = { op = END }, p + 1
    elseif two == "%b" then
      if p + 3 > #pat then
        return nil
      end
      items[#items + 1], p = { op = PLACE, test = "^" .. raw_sub(pat, p, p + 3) }, p + 4
    elseif two == "%f" then
      local e = raw_sub(pat, p + 2, p + 2) == "[" and class_end(pat, p + 2)
      if not e then
        return nil
      end
      items[#items + 1], p = { op = PLACE, test = "^" .. raw_sub(pat, p, e), width0 = true }, e + 1
    elseif raw_find(two, "^%%%d") then
      items[#items + 1], p = { op = BACK, index = raw_byte(two, 2) - 48 }, p + 2
      items.remember_nothing = true
    else
      local e = class_end(pat, p)
      if not e then
        return nil
      end
      local class = raw_sub(pat, p, e)
      if not raw_find(class, "^[%%%[.]") then
        class = "[" .. (class == "^" and "%^" or class == "]" and "%]" or class) .. "]" -- a plain character
      end
      local suffix = raw_sub(pat, e + 1, e + 1)
      local item = { op = ONE, class = class, test = "^" .. class, run = "^" .. class .. "*", least = 0 }
      if suffix == "?" then
        item.op = OPT
      elseif suffix == "*" or suffix == "+" or suffix == "-" then
        item.op, item.lazy, item.least = REP, suffix == "-", suffix == "+" and 1 or 0
      end
      items[#items + 1], p = item, e + (item.op == ONE and 1 or 2)
    end
  end
  return open == 0 and items or nil
end

local function members(class)
  local set = {}
  for c in raw_gmatch(every, class) do
    set[c] = true
  end
  return set
end

local function is_empty_match(item)
  local op = item.op
  return op == OPT or op == OPEN or op == POS or op == CLOSE or op == REP and item.least == 0
end

--- Whether items i.. match whatever comes.
local function cannot_fail(items, i)
  for j = i, #items do
    local item = items[j]
    if item.op == REP and item.class == "." and item.least == 0 then
      for rest = j + 1, #items do
        if items[rest].op ~= END and not is_empty_match(items[rest]) then
          return false
        end
      end
      return true
    elseif not is_empty_match(item) then
      return false
    end
  end
  return true
end

--- Whether items i.. may begin with a member of `set`.
local function may_begin_with(items, i, set)
  for j = i, #items do
    local item = items[j]
    if item.op == END then
      return false
    elseif item.class then
      for c in raw_gmatch(every, item.class) do
        if set[c] then
          return true
        end
      end
    elseif item.op == BACK or item.op == PLACE then
      return true
    end
    if not is_empty_match(item) then
      return false
    end
  end
  return true
end

--- The exponent e of the theory above.
local function exponent(items)
  local overlapping, rescanned, options = 0, 0, 0
  for i = 1, #items do
    local item = items[i]
    if item.op == PLACE and not item.width0 then
      rescanned = 1 -- %b scans ahead
    elseif item.op == REP and not cannot_fail(items, i + 1) then
      if may_begin_with(items, i + 1, members(item.class)) then
        overlapping, rescanned = overlapping + 1, 0
      else
        rescanned = 1
      end
    elseif item.op == OPT and not cannot_fail(items, i + 1) and may_begin_with(items, i + 1, members(item.class)) then
      options = options + 1
    end
  end
  -- Each option doubles the ways: some of them count as a repetition.
  local e = overlapping + rescanned + options // OPTIONS_PER_ITEM
  return e == 0 and 1 or e + (items.anchored and 0 or 1)
end

local plans, plan_count = {}, 0

--- {items, bytes_max}: the parsed pattern and the longest subject C may get; false for a malformed one.
local function plan_of(pat, is_gmatch)
  local id = is_gmatch and "g" .. pat or "m" .. pat
  local plan = plans[id]
  if plan == nil then
    if plan_count >= PLANS_MAX then
      plans, plan_count = {}, 0
    end
    local items = parse(pat, is_gmatch)
    local e = items and exponent(items)
    if items then
      local weight = 1
      for i = 1, #items do
        weight = raw.math.max(weight, #(items[i].class or "") / SET_FREE_BYTES)
      end
      plan = {
        items = items, bytes_max = (STEPS_MAX / weight) ^ (1 / e), free_bytes = (STEPS_FREE / weight) ^ (1 / e),
      }
    else
      plan = false
    end
    if #pat <= PLAN_BYTES_MAX then
      plans[id], plan_count = plan, plan_count + 1
    end
  end
  return plan
end

-- Not worth a look-up: a pattern this long has at most 4 repetitions, which on 8 bytes make some thousand steps.
local SHORT = 8

--- Whether C might need more than STEPS_MAX steps for this pair of strings.
function K.is_risky(subject, pat, is_gmatch)
  if #subject <= SHORT and #pat <= SHORT or not raw_find(pat, "[*+?%[%%-]") then
    return false
  end
  local plan = plan_of(pat, is_gmatch)
  if plan and #subject > plan.free_bytes then
    K.glance()
    return #subject > plan.bytes_max
  end
  return false
end

--- A matcher for one subject: `at(position)` tries there and returns the position after the match or nil;
--- `captures(first, past, whole)` lists the captures of the last success.
local function matcher(s, items)
  local past_end = #s + 1
  local count, level = #items, 0
  local starts, ends = {}, {} -- ends[l]: false while open, 0 for a position capture
  local keep = not items.remember_nothing
  local run_first, run_past = {}, {} -- per item: the run of its class looked at last
  local failed = {} -- per item: [past of run] -> least position known to fail (REP), [position] -> true (OPT)
  for i = 1, count do
    failed[i], run_first[i], run_past[i] = {}, 1, 0
  end

  local match

  local function repeated(i, item, p)
    local past
    if run_first[i] <= p and p <= run_past[i] then
      past = run_past[i]
    else
      local _, last = raw_find(s, item.run, p)
      past = last + 1
      run_first[i], run_past[i] = p, past
    end
    local lowest, highest = p + item.least, past
    local known = keep and failed[i][past]
    if known and known <= highest then
      highest = known - 1
    end
    local first, last, step = highest, lowest, -1
    if item.lazy then
      first, last, step = lowest, highest, 1
    end
    for q = first, last, step do
      local e = match(i + 1, q)
      if e then
        return e
      end
    end
    if keep and lowest <= past then
      failed[i][past] = known and known < lowest and known or lowest
    end
    return nil
  end

  function match(i, p)
    if i > count then
      return p
    end
    local item = items[i]
    local op = item.op
    if op == ONE then
      if p < past_end and raw_find(s, item.test, p) then
        return match(i + 1, p + 1)
      end
      return nil
    elseif op == REP then
      return repeated(i, item, p)
    elseif op == OPT then
      if keep and failed[i][p] then
        return nil
      end
      local e = p < past_end and raw_find(s, item.test, p) and match(i + 1, p + 1) or match(i + 1, p)
      if not e and keep then
        failed[i][p] = true
      end
      return e
    elseif op == OPEN or op == POS then
      level = level + 1
      starts[level], ends[level] = p, op == POS and 0
      local e = match(i + 1, p)
      if not e then
        level = level - 1
      end
      return e
    elseif op == CLOSE then
      local l = level
      while ends[l] do
        l = l - 1
      end
      ends[l] = p
      local e = match(i + 1, p)
      if not e then
        ends[l] = false
      end
      return e
    elseif op == END then
      return p == past_end and match(i + 1, p) or nil
    elseif op == PLACE then
      local first, last = raw_find(s, item.test, p)
      return first and match(i + 1, last + 1) or nil
    end
    local l = item.index
    if l < 1 or l > level or not ends[l] then
      raw.error("invalid capture index %" .. raw_tostring(l))
    elseif ends[l] == 0 then
      return nil -- a position capture has no text; C finds no match either
    end
    local text = raw_sub(s, starts[l], ends[l] - 1)
    if raw_sub(s, p, p + #text - 1) == text then
      return match(i + 1, p + #text)
    end
    return nil
  end

  local function at(p)
    level = 0
    return match(1, p)
  end

  local function captures(first, past, whole)
    if level == 0 then
      return whole and { raw_sub(s, first, past - 1) } or {}, whole and 1 or 0
    end
    local list = {}
    for l = 1, level do
      list[l] = ends[l] == 0 and starts[l] or raw_sub(s, starts[l], ends[l] - 1)
    end
    return list, level
  end

  return at, captures
end

local WINDOW_BYTES = 262144
local KEY_BYTES = 32

--- `find` of a text in a long one, in windows with a short key: C compares the whole of what it looks for at every place that
--- begins like it. Patterns without a special character are such texts.
function K.plain_find(s, text, init, plain)
  if #text <= KEY_BYTES and #s <= WINDOW_BYTES or not plain and raw_find(text, "[%^%$%*%+%?%.%(%[%%%-]") then
    return raw_find(s, text, init, plain)
  end
  local first = init or 1
  if first < 0 then
    first = raw.math.max(#s + first + 1, 1)
  elseif first == 0 then
    first = 1
  end
  local key, last = raw_sub(text, 1, KEY_BYTES), #s - #text + 1
  while first <= last do
    local window_end = raw.math.min(first + WINDOW_BYTES - 1, last)
    local window = raw_sub(s, first, window_end + #key - 1)
    K.spend(#window // 16)
    local from = 1
    while true do
      local found = raw_find(window, key, from, true)
      if not found then
        break
      end
      local at = first + found - 1
      K.spend(#text // 64)
      if raw_sub(s, at, at + #text - 1) == text then
        return at, at + #text - 1
      end
      from = found + 1
    end
    first = window_end + 1
  end
  return nil
end

local function start_of(s, init)
  init = init or 1
  if init < 0 then
    init = raw.math.max(#s + init + 1, 1)
  end
  return init == 0 and 1 or init
end

local function search(s, pat, init)
  local items = plan_of(pat, false).items
  local at, captures = matcher(s, items)
  for p = start_of(s, init), #s + 1 do
    local past = at(p)
    if past then
      return p, past, captures
    end
    if items.anchored then
      break
    end
  end
  return nil
end

local linear = {}
K.linear = linear

function linear.find(s, pat, init)
  local first, past, captures = search(s, pat, init)
  if not first then
    return nil
  end
  local list, n = captures(first, past, false)
  return first, past - 1, unpack(list, 1, n)
end

function linear.match(s, pat, init)
  local first, past, captures = search(s, pat, init)
  if not first then
    return nil
  end
  local list, n = captures(first, past, true)
  return unpack(list, 1, n)
end

function linear.gmatch(s, pat, init)
  local at, captures = matcher(s, plan_of(pat, true).items)
  local p, last = start_of(s, init), nil
  return function()
    while p <= #s + 1 do
      local first, past = p, at(p)
      if past and past ~= last then
        p, last = past, past
        local list, n = captures(first, past, true)
        return unpack(list, 1, n)
      end
      p = p + 1
    end
    return nil
  end
end

local function expanded(template, list, n, whole)
  local parts, p = {}, 1
  while true do
    local at = raw_find(template, "%", p, true)
    parts[#parts + 1] = raw_sub(template, p, (at or 0) - 1)
    if not at then
      return concat(parts)
    end
    local c = raw_sub(template, at + 1, at + 1)
    local index = raw.tonumber(c)
    if c == "%" then
      parts[#parts + 1] = "%"
    elseif not index then
      raw.error("invalid use of '%' in replacement string")
    elseif index > n and index > 1 then
      raw.error("invalid capture index %" .. c .. " in replacement string")
    else
      parts[#parts + 1] = index == 0 and whole or list[index]
    end
    p = at + 2
  end
end

function linear.gsub(s, pat, repl, times)
  local kind = raw_type(repl)
  local items = plan_of(pat, false).items
  local at, captures = matcher(s, items)
  local parts, p, last, done = {}, 1, nil, 0
  local kept = 1 -- where the text not yet copied begins
  while not times or done < times do
    local past = at(p)
    if past and past ~= last then
      done = done + 1
      local whole = raw_sub(s, p, past - 1)
      local list, n = captures(p, past, true)
      local value
      if kind == "table" then
        value = repl[list[1]]
      elseif kind == "function" then
        value = repl(unpack(list, 1, n))
      else
        value = expanded(raw_tostring(repl), list, n, whole)
      end
      if not value then
        value = whole
      elseif raw_type(value) ~= "string" and raw_type(value) ~= "number" then
        raw.error("invalid replacement value (a " .. K.type(value) .. ")")
      end
      parts[#parts + 1] = raw_sub(s, kept, p - 1)
      parts[#parts + 1] = value
      p, last, kept = past, past, past
    elseif p <= #s then
      p = p + 1
    else
      break
    end
    if items.anchored then
      break
    end
  end
  parts[#parts + 1] = raw_sub(s, kept)
  return concat(parts), done
end
