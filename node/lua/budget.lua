-- The budget of a step: how many instructions and how much memory a unit may take between two waits.
--
-- A hook looks at every coroutine from time to time. A unit that is beyond its budget is doomed: an error is raised in it,
-- and again at each further look, so nothing that its code catches lets it go on.
--
-- Of a unit, read and written here: budget, doomed, memory_before; read: replaying.

local K = ...
local raw = K.raw
local getinfo, collectgarbage = raw.debug.getinfo, raw.collectgarbage

local HOOK_EVERY = 10000 -- instructions between two looks at the budget

-- A step that is replayed went well when it was taken, or no event would follow it. What it takes is not quite the same
-- everywhere: the kernel goes through tables in their own order, and how much garbage others had left in the VM when it
-- began is anybody's guess. What was just within the budget then must not be beyond it now.
local REPLAY_INSTRUCTIONS, REPLAY_MEMORY = 5 / 4, 2

local function doom(unit, text)
  unit.doomed = text
  raw.error(text, 0)
end

local function position(level)
  -- The innermost frame of the user's own code.
  while true do
    local info = getinfo(level, "Sl")
    if not info then
      return "?"
    end
    if raw.string.byte(info.source, 1) == 64 then
      return info.short_src .. ":" .. info.currentline
    end
    level = level + 1
  end
end

--- Stop a unit for good: nothing its code catches lets it go on.
function K.doom(unit, text)
  doom(unit, position(3) .. ": " .. text)
end

local function look()
  local unit = K.current
  if unit == nil then
    return
  end
  if unit.doomed then
    raw.error(unit.doomed, 0)
  end
  unit.budget = unit.budget - HOOK_EVERY
  if unit.budget < 0 then
    doom(unit, raw.string.format("%s: ran %d instructions in one step without waiting; an endless loop?",
      position(3), K.limits.instructions))
  end
  local memory_kb = K.limits.memory_kb * (unit.replaying and REPLAY_MEMORY or 1)
  if collectgarbage("count") - unit.memory_before > memory_kb then
    collectgarbage()
    if collectgarbage("count") - unit.memory_before > memory_kb then
      doom(unit, raw.string.format("%s: took more than %d MB of memory in one step", position(3), K.limits.memory_kb // 1024))
    end
  end
end

--- Take what a function of the C library does to so many bytes from the budget: no hook looks at it meanwhile.
function K.spend(bytes)
  local unit = K.current
  if unit == nil then
    return
  end
  unit.budget = unit.budget - bytes
  if unit.budget < 0 then
    K.doom(unit, raw.string.format("did too much to long texts in one step without waiting (%d instructions or bytes)",
      K.limits.instructions))
  end
end

--- Put a coroutine under the instruction budget.
function K.arm(co)
  raw.debug.sethook(co, look, "", HOOK_EVERY)
end

--- Give a unit the budget of a new step.
function K.grant(unit)
  unit.budget = K.limits.instructions * (unit.replaying and REPLAY_INSTRUCTIONS or 1)
  unit.memory_before = collectgarbage("count")
end

--- End a coroutine of a unit without budget at its first instruction, so that the error has a place.
function K.stop_at_once(co)
  raw.debug.sethook(co, look, "", 1)
end

--- Whether a unit's step was long enough to be looked at.
function K.was_long(unit)
  return unit.budget < K.limits.instructions - HOOK_EVERY
end
