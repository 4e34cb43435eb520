-- The budget of a step: how many instructions, how much memory and how much of the processor's time a unit may take
-- between two waits.
--
-- A hook looks at every coroutine from time to time. A unit that is beyond its budget is doomed: an error is raised in it,
-- and again at each further instruction, so nothing that its code catches lets it go on.
--
-- Instructions are counted, so that a replay ends where the run did. But an instruction that compares, joins or converts long
-- texts takes as long as the texts are, and no hook sees it: so the time is a limit too, and the looks are the closer
-- together the longer the longest text is that the unit has made or got (`K.notice`). Whatever makes a long text says
-- so: the library functions, what decodes, and `..`, which the code of units calls as a function (`K.join`, typed_lua.py).
-- What takes long without a long text (moving a million elements) says how long (`K.spend`).
--
-- Of a unit, read and written here: budget, doomed, memory_before, clock_began, thread_began, longest, every; read: replaying,
-- task, loading.

local K = ...
local raw = K.raw
local getinfo, collectgarbage, clock = raw.debug.getinfo, raw.collectgarbage, raw.os.clock
local raw_type, raw_find, sethook, running = raw.type, raw.string.find, raw.debug.sethook, raw.coroutine.running

-- Instructions between two looks. Each costs half a microsecond, the time of some 200 instructions.
local EVERY = K.limits.cpu_s and 2000 or 10000
-- A look at least each time that instructions on the longest text may take so long: a byte takes about 0.4 ns (joining),
-- 5.5 ns where texts of binary zeros are compared.
local BLIND_NS <const> = 1e8
local BYTE_NS <const>, ZERO_NS <const> = 0.5, 6
-- Texts that take less than this are no matter: the looks are close enough as they are. So are all texts up to so many bytes.
local NOTICED_NS = BLIND_NS / EVERY
local NOTICED_BYTES <const> = 8192
-- Instructions that a coroutine of the user's is charged for when it begins.
local CREATION_COST <const> = 100

-- A step that is replayed went well when it was taken, or no event would follow it. What it takes is not quite the same
-- everywhere: the kernel goes through tables in their own order, and how much garbage others had left in the VM when it
-- began is anybody's guess. What was just within the budget then must not be beyond it now.
local REPLAY_INSTRUCTIONS, REPLAY_MEMORY = 5 / 4, 2
local REPLAY_FACTOR <const> = 5 -- of time: the other machine may have been faster, or less busy

local function doom(unit, text)
  unit.doomed = text
  sethook(running(), K.look, "", 1)
  raw.error(text, 0)
end

local function position(level)
  -- The innermost frame of the user's own code.
  while true do
    local info = getinfo(level, "Sl")
    if not info then
      return K.current.entry_id -- its code has returned: what is left to do is to encode the result
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

-- Whether a unit has used up its time. The clock of the process is cheap to read but counts other threads, too: only where
-- it shows too much is the thread's own asked for.
local function is_late(unit)
  local limit = K.limits.cpu_s
  if not limit then
    return false
  end
  local now = clock()
  if not unit.clock_began then
    unit.clock_began = now
    if unit.every then -- it has what makes steps long: worth a call into Python
      unit.thread_began = K.host.thread_ns()
    end
    return false
  elseif unit.replaying then
    limit = limit * REPLAY_FACTOR
  end
  if now - unit.clock_began < limit then
    return false
  end
  local thread = K.host.thread_ns()
  if not unit.thread_began then
    unit.thread_began = thread
  end
  unit.clock_began = now - (thread - unit.thread_began) / 1e9 -- not asked again before that could be enough
  return thread - unit.thread_began >= limit * 1e9
end
K.is_late = is_late

local function check(unit)
  if unit.doomed then
    sethook(running(), K.look, "", 1)
    raw.error(unit.doomed, 0)
  elseif unit.budget < 0 then
    doom(unit, raw.string.format("%s: ran %d instructions in one step without waiting; an endless loop?",
      position(4), K.limits.instructions))
  elseif is_late(unit) then
    doom(unit, raw.string.format("%s: computed for too long in one step without waiting (%.1f s of the processor's time)",
      position(4), K.limits.cpu_s * 2))
  end
  local memory_kb = K.limits.memory_kb * (unit.replaying and REPLAY_MEMORY or 1)
  if collectgarbage("count") - unit.memory_before > memory_kb then
    collectgarbage()
    if collectgarbage("count") - unit.memory_before > memory_kb then
      doom(unit, raw.string.format("%s: took more than %d MB of memory in one step", position(4), K.limits.memory_kb // 1024))
    end
  end
end

local function look()
  local unit = K.current
  if unit == nil then
    return
  end
  unit.budget = unit.budget - (unit.every or EVERY)
  check(unit)
end
K.look = look

--- Take what a function of the C library does, in instructions, from the budget: no hook looks at it meanwhile.
function K.spend(instructions)
  local unit = K.current
  if unit == nil then
    return
  end
  unit.budget = unit.budget - instructions
  if not (unit.task or unit.loading) then
    return -- it is the kernel that works for it
  elseif unit.budget < 0 then
    K.doom(unit, raw.string.format("did too much to long texts or lists in one step without waiting (limit: %d instructions or bytes)",
      K.limits.instructions))
  elseif instructions >= EVERY then
    check(unit)
  end
end

--- Take note of a text that a unit has made or got: the looks have to be as close together as its length asks for.
local function notice(text)
  local unit, bytes = K.current, #text
  if unit == nil or not K.limits.cpu_s then
    return
  end
  local longest = unit.longest or NOTICED_NS
  if bytes * ZERO_NS <= longest then
    return
  end
  local ns = bytes * (raw_find(text, "\0", 1, true) and ZERO_NS or BYTE_NS)
  if ns > longest then
    unit.longest, unit.every = ns, raw.math.max(1, raw.math.floor(BLIND_NS / ns))
    if unit.task or unit.loading then -- else its code does not run yet
      sethook(running(), look, "", unit.every)
      check(unit)
    end
  end
end

--- Look at the clock before something that may take long.
function K.glance()
  local unit = K.current
  if unit and (unit.task or unit.loading) then
    check(unit)
  end
end

--- The text, taken note of; any other value as it is.
function K.notice(value, ...)
  if raw_type(value) == "string" and #value > NOTICED_BYTES then
    notice(value)
  end
  return value, ...
end

local function joined(a, b)
  local s = a .. b
  if raw_type(s) == "string" and #s > NOTICED_BYTES then
    notice(s)
  end
  return s
end

--- What `..` is in the code of units.
function K.join(a, b, ...)
  if raw.select("#", ...) == 0 then
    return joined(a, b)
  end
  -- From the right, as Lua does it; all at once where nothing but texts and numbers is there, so that nothing is copied twice.
  local values, n = { a, b, ... }, raw.select("#", ...) + 2
  local bytes = 0
  for i = 1, n do
    local kind = raw_type(values[i])
    if kind == "string" then
      bytes = bytes + #values[i]
    elseif kind ~= "number" then
      bytes = nil
      break
    end
  end
  if bytes then
    local s = raw.table.concat(values, "", 1, n)
    if bytes > NOTICED_BYTES then
      notice(s)
    end
    return s
  end
  local s = values[n]
  for i = n - 1, 1, -1 do
    s = joined(values[i], s)
  end
  return s
end

--- Put a coroutine under the instruction budget.
function K.arm(co)
  local unit = K.current
  sethook(co, look, "", unit and unit.every or EVERY)
end

--- Before a coroutine goes on that has not been looked at for the longest text there is: its looks would come too late, and
--- short coroutines, each with looks of its own, would never be looked at. Raises when the time is over.
function K.rearm(co)
  K.arm(co)
  local unit = K.current
  if unit then
    unit.budget = unit.budget - CREATION_COST
    check(unit)
  end
end

-- How the collector works: it begins again when there is as much garbage as was in use after its last cycle, times 0.8. As
-- each cycle goes through all that is in use, it waits for more where that is little: for so many kilobytes, but for no
-- more than three times what is in use. And it does a little for each kilobyte that is taken. With Lua's own figures it would do
-- the cycle of a small heap in a few goes of hundreds of microseconds, of a large one in some of milliseconds, each in the
-- middle of somebody's step.
local GARBAGE_KB <const> = 32 * 1024
local GARBAGE_PERCENT_MIN <const>, GARBAGE_PERCENT_MAX <const> = 80, 300
local STEP_MULTIPLIER <const>, STEP_SIZE_LOG2 <const> = 4, 10

local last_kb = collectgarbage("count")

local function pace(kb)
  local percent = raw.math.max(GARBAGE_PERCENT_MIN, raw.math.min(GARBAGE_PERCENT_MAX, 100 * GARBAGE_KB // kb))
  collectgarbage("incremental", 100 + raw.math.tointeger(percent), STEP_MULTIPLIER, STEP_SIZE_LOG2)
end

pace(last_kb)

--- Give a unit the budget of a new step.
function K.grant(unit)
  unit.budget = K.limits.instructions * (unit.replaying and REPLAY_INSTRUCTIONS or 1)
  local kb = collectgarbage("count")
  if kb < last_kb then
    pace(kb) -- a cycle comes to its end, which is when Lua takes these figures
  end
  unit.memory_before, last_kb = kb, kb
  unit.clock_began, unit.thread_began = nil, nil
end

--- End a coroutine of a unit without budget at its first instruction, so that the error has a place.
function K.stop_at_once(co)
  sethook(co, look, "", 1)
end

--- Whether a unit's step was long enough to be looked at.
function K.was_long(unit)
  return unit.budget < K.limits.instructions - EVERY
end
