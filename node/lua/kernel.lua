-- The kernel's outside: what the driver (`node.machine.vm`) calls.
--
-- One VM hosts many units. Between two activations nothing runs; during one, `K.current` is the unit and the string
-- methods are its own. A unit sees events and nothing else: no clock, no randomness, no I/O.
--
-- The parts of the kernel: budget (how much a step may take), failing (how units end), loading (their code), activation
-- (what events do to them), turns (how processes share a VM), inspection (what people see of a unit, with showing for
-- its values).
-- Not responsible for: what an op means (the drivers, in Python).

local K = ...
local raw = K.raw
local collectgarbage, turns = raw.collectgarbage, K.turns

local NONE = {}
local units = {} -- handle -> unit
local specs = {} -- number -> what units of one entry have in common

local A = {}

A.compile = K.compile

--- Take note of an entry: what its units are made of (a msgpack map).
function A.define(number, spec_bytes)
  local spec = K.decode(spec_bytes)
  spec.listed = {}
  for _, name in raw.ipairs(spec.modules or {}) do
    spec.listed[name] = true
  end
  specs[number] = spec
end

local function decoded(bytes)
  return bytes and K.decode(bytes) or {}
end

--- Make a unit. Nothing runs yet.
function A.open(handle, number, pid, seed, info, context, marks, logs_in_replay)
  local spec = specs[number]
  local unit = {
    spec = spec, kind = spec.kind, deterministic = spec.kind == "workflow", entry_id = spec.entry_id, listed = spec.listed,
    pid = pid, seed = seed, info = decoded(info), context = decoded(context), marks = decoded(marks),
    next_seq = 1, now = 0, ops = {}, ops_len = 0, imports = NONE, history_length = 0, history_size = 0,
    logs_in_replay = logs_in_replay,
  }
  K.make_env(unit)
  units[handle] = unit
  if spec.kind == "process" then
    unit.handle = handle
    turns.join(unit)
  end
end

--- Load a process and keep its arguments and context, a payload [arguments, context]. Returns nil, or a failure payload;
--- then the process is no more.
function A.load(handle, request, now)
  local unit = units[handle]
  unit.now = now
  K.grant(unit)
  K.enter(unit)
  local ok, problem = raw.pcall(K.load, unit, request)
  if not ok then
    K.abandon(unit, problem)
  end
  K.leave()
  local failure = unit.finished and unit.ops[unit.ops_len - 1] or nil
  if failure then
    A.close(handle)
  end
  return failure
end

-- What a process had not read goes over to its new code, which may have begun to listen when it was loaded.
local function hand_over(old, unit)
  for _, event in raw.ipairs(K.unread_events(old) or NONE) do
    K.deliver_event(unit, event)
  end
  for _, message in raw.ipairs(K.unread_messages(old)) do
    K.deliver_message(unit, message)
  end
end

--- Put other code under a process: what it had not read stays, and so do its PID and whoever watches it. Returns nil, or
--- a failure payload; then the process is no more.
function A.upgrade(handle, number, request, now)
  local old = units[handle]
  A.open(handle, number, old.pid, old.seed, nil, nil, nil)
  local unit = units[handle]
  unit.next_seq = old.next_seq
  turns.inherit(old, unit)
  local failure = A.load(handle, request, now)
  if not failure then
    unit.next_n = old.next_n
    if unit.trap_links == nil then
      unit.trap_links = old.trap_links
    end
    K.enter(unit)
    local ok, problem = raw.pcall(hand_over, old, unit)
    if not ok then
      K.abandon(unit, problem)
      failure = unit.ops[unit.ops_len - 1]
      A.close(handle)
    end
    K.leave()
  end
  return failure
end

--- Post an event to a process (handle 0: none) and let the processes that have something to do take their turns, for about
--- `slice` seconds. Returns whether some are left, the kilobytes in use, and a flat list: handle, number of values, ops.
function A.turn(now, slice, handle, verb, a, b, c)
  local unit = units[handle]
  if unit then
    K.post(unit, verb, a, b, c)
  end
  return turns.take(now, slice)
end

A.name = turns.name

--- The process that holds the most memory (K.heaviest).
function A.heaviest(looks, seconds, kb_max, from_kb)
  return K.heaviest(units, looks, seconds, kb_max, from_kb)
end

--- How many messages a process has not read; 0 for one that is no more.
function A.unread(handle)
  local unit = units[handle]
  return unit and K.count_unread(unit) or 0
end

--- The processes that have most to read: a flat list of handle, number of messages.
function A.longest_mailboxes(most)
  local found, flat = {}, {}
  for handle, unit in raw.next, units do
    local n = K.count_unread(unit)
    if n > 0 then
      found[#found + 1] = { handle, n }
    end
  end
  raw.table.sort(found, function(x, y) return x[2] > y[2] end)
  for i = 1, raw.math.min(most, #found) do
    flat[#flat + 1], flat[#flat + 2] = found[i][1], found[i][2]
  end
  return raw.table.unpack(flat)
end

local function activate(unit, verb, a, b, c)
  verb(unit, a, b, c)
  K.run(unit)
end

--- One activation: an event goes in, the ops that came up go out as a flat list of fives.
function A.feed(handle, verb, now, replaying, length, size, a, b, c)
  local unit = units[handle]
  if unit.finished and verb ~= "start" and verb ~= "request" then
    return
  end
  unit.now, unit.replaying, unit.history_length, unit.history_size = now, replaying, length, size
  K.grant(unit)
  K.enter(unit)
  local ok, problem = raw.pcall(activate, unit, K.verbs[verb], a, b, c)
  K.leave()
  if not ok then
    raw.error(problem, 0)
  end
  local ops, len = unit.ops, unit.ops_len
  if len > 0 then
    unit.ops, unit.ops_len = {}, 0
    return raw.table.unpack(ops, 1, len)
  end
end

--- Forget a unit.
function A.close(handle)
  local unit = units[handle]
  units[handle] = nil
  if unit then
    turns.leave(unit)
  end
end

--- Where every task of a unit waits: one text per task, the user's frames innermost first.
function A.stacks(handle)
  local ids, list = {}, {}
  local tasks = units[handle].tasks or {}
  for id in raw.next, tasks do
    ids[#ids + 1] = id
  end
  raw.table.sort(ids)
  for _, id in raw.ipairs(ids) do
    list[#list + 1] = raw.table.concat(K.user_frames(tasks[id].co), "\n")
  end
  return K.encode(list)
end

--- From now on remember for every op where the code asked for it. For a VM that checks code: it costs a look at the
--- stack per op, so a VM that runs workflows has the plain K.op.
function A.remember_places()
  local op = K.op
  function K.op(...)
    local n = op(...)
    local unit = K.current
    local places = unit.places or {}
    unit.places = places
    places[n] = raw.table.concat(K.user_frames(), "\n")
    return n
  end
end

--- The user's frames that asked for op n, innermost first; nil when that is not remembered.
function A.place(handle, n)
  local places = units[handle].places
  return places and places[n]
end

--- What a unit is doing (K.inspect), as msgpack; nil and why not: a look may fail, for want of memory, and changes nothing.
function A.inspect(handle, with_values)
  local ok, found = raw.pcall(function() return K.encode(K.inspect(units[handle], with_values)) end)
  if not ok then
    collectgarbage()
    return nil, K.tostring(found)
  end
  return found
end

--- What a unit listens to and has not read (K.mailbox_facts), as msgpack; nil when there is no memory left to look in.
function A.mailbox(handle)
  local ok, found = raw.pcall(function() return K.encode(K.mailbox_facts(units[handle])) end)
  if not ok then
    collectgarbage()
    return nil
  end
  return found
end

--- Kilobytes in use by the whole VM.
function A.memory()
  return collectgarbage("count")
end

return A
