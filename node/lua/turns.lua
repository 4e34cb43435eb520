-- The processes of one VM: they take turns, and messages between them are posted here, without leaving Lua.
--
-- A process takes what is posted to it in order; those with something to do stand in one queue.
--
-- Of a unit, written here: inbound, queued, allocated.

local K = ...
local raw = K.raw
local collectgarbage = raw.collectgarbage
local verbs, run, grant, enter, leave = K.verbs, K.run, K.grant, K.enter, K.leave

local OUT_VALUES_MAX = 50000 -- ops handed out in one turn, five values each; Lua's stack takes a million values
local EVENTS_PER_ACTIVATION = 32

local processes = {} -- pid -> unit
local names = {} -- registered name -> pid
local queue = { first = 1, last = 0 }

--- What the driver's functions do to the processes of the VM.
local turns = {}
K.turns = turns

-- The sender may be stopped in here, by its budget or for want of memory, between any two writes: each leaves things that
-- can go on. A unit that stands in the queue twice, or for nothing, does no harm; one that is left out would wait for ever.
local function enqueue(unit)
  local last = queue.last + 1
  queue[last] = unit
  queue.last = last
  unit.queued = true
end

--- Have a process handle an event after those that it has already.
local function post(unit, verb, a, b, c)
  if not unit.queued then
    enqueue(unit)
  end
  local inbound = unit.inbound
  local last = inbound.last
  inbound[last + 1], inbound[last + 2], inbound[last + 3], inbound[last + 4] = verb, a, b, c
  inbound.last = last + 4
end
K.post = post

--- The process of this VM that has a PID or name; nil when there is none.
function K.neighbour(dest)
  return processes[dest] or processes[names[dest]]
end

local function take_events(unit)
  local inbound = unit.inbound
  for _ = 1, EVENTS_PER_ACTIVATION do
    local first = inbound.first
    if first > inbound.last or unit.finished then
      break
    end
    local verb, a, b, c = inbound[first], inbound[first + 1], inbound[first + 2], inbound[first + 3]
    inbound[first], inbound[first + 1], inbound[first + 2], inbound[first + 3] = nil, nil, nil, nil
    inbound.first = first + 4
    verbs[verb](unit, a, b, c)
  end
  if not unit.args then -- else its main function has not been started yet
    run(unit)
  end
end

-- One activation of a process: some of what was posted to it.
local function serve(unit, now)
  unit.queued = false
  unit.now = now
  grant(unit)
  enter(unit)
  local ok, problem = raw.pcall(take_events, unit)
  if not ok then
    K.abandon(unit, problem)
  end
  leave()
  local grown = collectgarbage("count") - unit.memory_before
  if grown > 0 then
    unit.allocated = unit.allocated + grown
  end
  if unit.finished then
    processes[unit.pid] = nil
  elseif unit.inbound.first <= unit.inbound.last then
    enqueue(unit)
  end
end

--- Let the processes that have something to do take their turns, for about `slice` seconds. Returns whether some are left, the
--- kilobytes in use, and a flat list: handle, number of values, ops.
function turns.take(now, slice)
  local out, len, count = {}, 0, 0
  -- The clock is a system call: not read for a process that nobody comes after.
  local ends = queue.first < queue.last and raw.os.clock() + slice or nil
  while queue.first <= queue.last do
    local unit = queue[queue.first]
    queue[queue.first] = nil
    queue.first = queue.first + 1
    if processes[unit.pid] == unit and not unit.finished then
      serve(unit, now)
      local n = unit.ops_len
      if n > 0 then
        out[len + 1], out[len + 2] = unit.handle, n
        raw.table.move(unit.ops, 1, n, len + 3, out)
        len = len + 2 + n
        unit.ops, unit.ops_len = {}, 0
      end
      count = count + 1
      if len > OUT_VALUES_MAX or collectgarbage("count") > K.limits.crowded_kb then
        break
      elseif queue.first <= queue.last then
        if ends == nil then
          ends = raw.os.clock() + slice
        elseif (count % 8 == 0 or K.was_long(unit)) and raw.os.clock() > ends then
          break
        end
      end
    end
  end
  local more = queue.first <= queue.last
  if not more then
    queue.first, queue.last = 1, 0
  end
  return more, collectgarbage("count"), raw.table.unpack(out, 1, len)
end

--- Say which PID a registered name stands for, nil for none any more.
function turns.name(name, pid)
  names[name] = pid
end

--- A unit becomes a process of this VM.
function turns.join(unit)
  unit.inbound, unit.allocated = { first = 1, last = 0 }, 0
  processes[unit.pid] = unit
end

--- A unit is none any more.
function turns.leave(unit)
  if processes[unit.pid] == unit then
    processes[unit.pid] = nil
  end
end

--- Hand what was posted to a process over to the one that has its PID now.
function turns.inherit(old, unit)
  unit.inbound, unit.allocated, unit.queued = old.inbound, old.allocated, old.queued
  for i = queue.first, queue.last do
    if queue[i] == old then
      queue[i] = unit
    end
  end
end
