-- How much memory a unit holds, about: the sizes of everything its code can reach and no other unit shares.
--
-- Lua counts memory for a whole VM only. Looking takes some two microseconds for each object, seconds for a VM full of small
-- ones, so it is done when a VM is nearly full, and not for longer than a node may be silent.

local K = ...
local raw = K.raw
local getinfo, getlocal, getupvalue = raw.debug.getinfo, raw.debug.getlocal, raw.debug.getupvalue

-- Bytes, of Lua 5.4 on 64 bits; a table's part for each entry is between 16 (list) and 40 (fields with room to grow).
local TABLE, ENTRY, STRING, FUNCTION, THREAD = 56, 40, 25, 40, 1100
-- Longer texts are there as often as they were made, however equal they are: it is their address that tells them apart.
local SHORT = 40
local UNIT_PARTS = { "env", "tasks", "ready", "pending", "mailbox", "listeners", "inbox", "events", "early_events", "inbound",
  "main", "imports", "context", "args" }

local LOOK_EVERY = 1000 -- objects between two looks at the clock

--- Kilobytes that a unit holds, and whether all was counted: not beyond kb_max, and not when the processor clock shows `ends`.
function K.weigh(unit, ends, kb_max)
  local bytes, seen, todo, n = 0, { [K] = true, [unit.spec] = true, [unit.env] = true }, {}, 0
  local function reach(value)
    local kind = raw.type(value)
    local key = value
    if kind == "string" and #value > SHORT then
      key = raw.string.format("%p", value)
    end
    if (kind == "table" or kind == "function" or kind == "thread" or kind == "string") and not seen[key] then
      seen[key] = true
      n = n + 1
      todo[n] = value
    end
  end
  local function entries(t)
    for key, value in raw.next, t do
      bytes = bytes + ENTRY
      reach(key)
      reach(value)
    end
  end
  for _, shared in raw.next, K.modules do
    seen[shared] = true
  end
  seen[unit] = true
  for _, part in raw.ipairs(UNIT_PARTS) do
    if raw.type(unit[part]) == "table" then
      entries(unit[part])
    else
      reach(unit[part])
    end
  end
  local looked = 0
  while n > 0 do
    looked = looked + 1
    if looked % LOOK_EVERY == 0 and (bytes > kb_max * 1024 or raw.os.clock() > ends) then
      return bytes // 1024, false
    end
    local value = todo[n]
    todo[n] = nil
    n = n - 1
    local kind = raw.type(value)
    if kind == "string" then
      bytes = bytes + STRING + #value
    elseif kind == "table" then
      bytes = bytes + TABLE
      entries(value)
    elseif kind == "function" then
      local info = getinfo(value, "S")
      bytes = bytes + FUNCTION
      if raw.string.byte(info.source, 1) == 64 then -- the kernel's own functions are everybody's
        local i = 1
        local name, upvalue = getupvalue(value, i)
        while name do
          reach(upvalue)
          i = i + 1
          name, upvalue = getupvalue(value, i)
        end
      end
    else
      bytes = bytes + THREAD
      local level = 0
      while getinfo(value, level, "S") do
        local i = 1
        local name, slot = getlocal(value, level, i)
        while name do
          reach(slot)
          i = i + 1
          name, slot = getlocal(value, level, i)
        end
        local f = getinfo(value, level, "f")
        reach(f.func)
        level = level + 1
      end
    end
  end
  return bytes // 1024, true
end

--- Which of the processes (handle -> unit) holds the most memory: its handle and about how many kilobytes. Looks at those
--- that have allocated the most, as looking takes time; after a full collection.
--- Takes about `seconds` of the processor's time at most. Of one that holds more than kb_max no more is counted, and it is the
--- answer; so is one that holds so many things that counting them would take more than half of the time. Looks at none when
--- less than from_kb is in use after the collection.
function K.heaviest(units, looks, seconds, kb_max, from_kb)
  raw.collectgarbage()
  if raw.collectgarbage("count") < from_kb then
    return 0, 0
  end
  local candidates, ends = {}, raw.os.clock() + seconds
  for _, unit in raw.next, units do
    if not unit.finished then
      candidates[#candidates + 1] = unit
    end
  end
  raw.table.sort(candidates, function(x, y) return x.allocated > y.allocated end)
  local heaviest, most = 0, 0
  for i = 1, raw.math.min(looks, #candidates) do
    local begun = raw.os.clock()
    local ok, kb, finished = raw.pcall(K.weigh, candidates[i], ends, kb_max)
    if not ok then
      kb, finished = raw.math.floor(candidates[i].allocated), true -- there was no memory to count in
    elseif not finished and ends - begun > seconds / 2 then
      kb = raw.math.max(kb, kb_max)
    end
    if kb > most then
      heaviest, most = candidates[i].handle, kb
    end
    if most >= kb_max or not finished then
      break
    end
  end
  for _, unit in raw.next, candidates do
    unit.allocated = unit.allocated / 2 -- what was allocated lately tells more
  end
  candidates = nil
  raw.collectgarbage()
  return heaviest, most
end
