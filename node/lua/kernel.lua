-- The kernel: units and their activations.
--
-- Responsible for: loading code into a unit, running its tasks until all wait, handing out the ops that came up,
-- stopping a unit that runs away. Not responsible for: what an op means (the drivers, in Python).
--
-- One VM hosts many units. Between two activations nothing runs; during one, `K.current` is the unit and the string
-- methods are its own. A unit sees events and nothing else: no clock, no randomness, no I/O.
--
-- Invariants: an activation ends with every task parked, or with the unit finished. A unit that raised, ran out of
-- its instruction budget or grew too much is finished with a failure and never runs again.

local K = ...
local raw = K.raw
local resume, status, co_create = raw.coroutine.resume, raw.coroutine.status, raw.coroutine.create
local getinfo, collectgarbage = raw.debug.getinfo, raw.collectgarbage

local units = {} -- handle -> unit
local code = {} -- key -> bytecode

-- Limits -----------------------------------------------------------------------------------------------------

local HOOK_EVERY = 10000 -- instructions between two looks at the budget

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
  if collectgarbage("count") - unit.memory_before > K.limits.memory_kb then
    collectgarbage()
    if collectgarbage("count") - unit.memory_before > K.limits.memory_kb then
      doom(unit, raw.string.format("%s: took more than %d MB of memory in one step", position(3), K.limits.memory_kb // 1024))
    end
  end
end

--- Put a coroutine under the instruction budget.
function K.arm(co)
  raw.debug.sethook(co, look, "", HOOK_EVERY)
end

-- Failing ----------------------------------------------------------------------------------------------------

-- The user's own frames of a coroutine, innermost first.
local function user_frames(co)
  local lines, level = {}, 0
  while true do
    local info = getinfo(co, level, "Sln")
    if not info then
      break
    end
    if raw.string.byte(info.source, 1) == 64 then
      lines[#lines + 1] = info.short_src .. ":" .. info.currentline .. ": in " ..
        (info.name and ("function '" .. info.name .. "'") or "main function")
    end
    level = level + 1
  end
  return lines
end

local function finish(unit, verb, payload, options)
  unit.finished = true
  K.tell("end", verb, payload, options)
end

local function fail(unit, err)
  finish(unit, "fail", "\xC1\x92\x01" .. K.encode_wire_error(err))
end

--- The msgpack map of an Error, details that cannot be sent replaced by a note.
function K.encode_wire_error(err)
  local wire = K.error_to_wire(err)
  local bytes, problem = K.encode(wire)
  if not bytes then
    wire.details = { note = "details could not be sent: " .. problem }
    bytes = K.encode(wire)
  end
  return bytes
end

local OUT_OF_MEMORY = "not enough memory"

local function fail_raised(unit, co, value)
  if value == OUT_OF_MEMORY then
    -- The VM's limit, not this unit's: the driver finds out whose fault it is.
    raw.error(OUT_OF_MEMORY, 0)
  end
  value = K.blame_thread(co, value)
  local lines = user_frames(co)
  raw.table.insert(lines, 1, K.is_error(value) and K.error_text(value) or K.tostring(value))
  fail(unit, K.error_from_raised(value, raw.table.concat(lines, "\n\t")))
end

-- What a unit returns (contract 3.3).
local function complete(unit, value, second)
  if K.type(second) == "string" then
    return fail(unit, K.new_error("Internal", second, false))
  elseif K.is_error(second) then
    return fail(unit, K.error_from_raised(second))
  end
  local bytes, problem = K.encode(value)
  if not bytes then
    return fail(unit, K.new_error("Internal", "the result cannot be sent: " .. problem, false))
  end
  finish(unit, "ok", "\xC1\x92\x00" .. bytes)
end

-- Loading ----------------------------------------------------------------------------------------------------

--- Compile a source once per VM; returns nil, or the error text.
function K.compile(key, source, chunk_name)
  local chunk, err = raw.load(source, "@" .. chunk_name, "t", {})
  if not chunk then
    return err
  end
  code[key] = raw.string.dump(chunk)
  return nil
end

local function run_chunk(key, env)
  return raw.load(code[key], key, "b", env)()
end

-- A library sees its own imports, and otherwise the globals of its unit.
local function library_env(unit, imports)
  local own = {}
  for alias, value in raw.next, imports do
    own[alias] = value
  end
  function own.require(name)
    local value = imports[name]
    if value == nil then
      value = unit.env.require(name)
    end
    return value
  end
  return raw.setmetatable(own, { __index = unit.env, __newindex = unit.env, __metatable = false })
end

local function pick(imports, values)
  local picked = {}
  for alias, id in raw.next, imports or {} do
    picked[alias] = values[id]
  end
  return picked
end

--- `require(name)`: a lookup among what the entry lists, and what is always there.
function K.globals.require(name)
  local unit = K.current
  local value = unit.imports[name]
  if value == nil and (unit.listed[name] or K.global_modules[name] or K.libs[name]) then
    value = unit.env[name]
    if value == nil then
      value = K.module(name)
    end
  end
  if value == nil then
    K.raise("module '" .. K.tostring(name) .. "' not found")
  end
  return value
end

-- Libraries first, each once, each with its imports; then the entry's chunk, which gives the function.
local function load_main(unit)
  local env, spec, values = unit.env, unit.spec, {}
  for _, lib in raw.ipairs(spec.libraries or {}) do
    values[lib.id] = run_chunk(lib.code, library_env(unit, pick(lib.imports, values)))
  end
  unit.imports = pick(spec.imports, values)
  for alias, value in raw.next, unit.imports do
    raw.rawset(env, alias, value)
  end
  local got = run_chunk(spec.code, env)
  if raw.type(got) == "function" then
    return got
  end
  local main = K.type(got) == "table" and got[spec.method] or nil
  if raw.type(main) ~= "function" then
    raw.error(K.new_error("NotFound", 'method "' .. spec.method .. '" not found in module', false), 0)
  end
  return main
end

--- `subscribe(topic, ch)` and `unsubscribe(ch)`: as listen and unlisten, with a channel of the caller's.
function K.globals.subscribe(topic, ch)
  local unit = K.current
  unit.listeners = unit.listeners or {}
  unit.listeners[topic] = { channel = ch, as_message = false }
  return true
end

function K.globals.unsubscribe(ch)
  return K.modules.process.unlisten(ch)
end

--- A line for the node's log. Workflows are silent while they replay.
function K.log(level, text)
  if not K.current.replaying then
    K.tell("log", level, text)
  end
end

-- Activations ------------------------------------------------------------------------------------------------

local function run(unit)
  local ready = unit.ready
  while not unit.finished and unit.ready_head <= unit.ready_tail do
    local head = unit.ready_head
    local task = ready[head]
    ready[head] = nil
    unit.ready_head = head + 1
    unit.task = task
    local co = task.co
    local ok, a, b = resume(co)
    if unit.doomed then
      unit.finished = false
      fail(unit, K.new_error("Internal", unit.doomed, false, nil, unit.doomed))
    elseif unit.finished then
      break
    elseif not ok then
      fail_raised(unit, co, a)
    elseif status(co) == "dead" then
      unit.tasks[task.id] = nil
      if task.main then
        complete(unit, a, b)
      end
    elseif a ~= K.BLOCK then
      fail(unit, K.new_error("Internal", "coroutine.yield outside of a coroutine that somebody resumes", false))
    end
  end
  unit.task = nil
  if not unit.finished then
    if unit.ready_head > 1024 then
      unit.ready, unit.ready_head, unit.ready_tail = {}, 1, 0
    end
    if unit.pending_count == 0 and not (unit.inbox or unit.listeners or unit.events)
        and raw.next(unit.execs or {}) == nil then
      fail(unit, K.new_error("Internal", "all coroutines blocked: nothing is left that could wake this " .. unit.kind, false))
    end
  end
end

local verbs = {}

local function begin(unit)
  unit.ready, unit.ready_head, unit.ready_tail = {}, 1, 0
  unit.pending, unit.pending_count, unit.next_n = {}, 0, 1
  unit.tasks, unit.next_task = {}, 1
  unit.inbox, unit.listeners, unit.events, unit.mailbox, unit.early_events, unit.execs = nil, nil, nil, nil, nil, nil
  unit.finished, unit.doomed = false, nil
end

--- Run the main function with the arguments in a msgpack array. A function's unit may be started again and again.
function verbs.start(unit, args)
  begin(unit)
  unit.started = unit.now
  local task = K.spawn_task(unit, function()
    local main = unit.main
    if main == nil then
      main = load_main(unit)
      unit.main = main
    end
    local n, values = K.decode_list(args, 1)
    return main(raw.table.unpack(values, 1, n))
  end)
  task.main = true
end

--- The outcome of op n: a payload [0, value] or [1, failure].
function verbs.resolve(unit, n, payload)
  local on_outcome = unit.pending[n]
  if on_outcome == nil then
    return
  end
  unit.pending[n] = nil
  unit.pending_count = unit.pending_count - 1
  if raw.string.byte(payload, 3) == 0 then
    on_outcome(true, K.decode(payload, 4))
  else
    on_outcome(false, K.error_from_wire(K.decode(payload, 4)))
  end
end

--- A message: topic, bodies, sender.
function verbs.message(unit, topic, payload, from)
  local n, bodies = K.decode_bodies(payload)
  K.deliver_message(unit, K.new_message(topic, from, n, bodies))
end

--- The child that op n started has ended.
function verbs.exit(unit, n, payload, pid)
  if raw.string.byte(payload, 3) == 0 then
    K.child_ended(unit, n, pid, true, K.decode(payload, 4))
  else
    K.child_ended(unit, n, pid, false, K.error_from_wire(K.decode(payload, 4)))
  end
end

--- Somebody asks the unit to stop.
function verbs.cancel(unit, _, _, from)
  local event = { kind = "pid.cancel", from = from }
  if unit.deterministic then
    event.at = K.new_time(unit.now):format_rfc3339()
  else
    event.at = unit.now / 1e9
  end
  K.deliver_event(unit, event)
end

local function activate(unit, verb, a, b, c)
  verb(unit, a, b, c)
  run(unit)
end

local A = {} -- what the driver calls

A.compile = K.compile

--- Make a unit from its spec (a msgpack map). Nothing runs yet.
function A.open(handle, spec_bytes)
  local spec = K.decode(spec_bytes)
  local unit = {
    spec = spec, kind = spec.kind, deterministic = spec.kind == "workflow", entry_id = spec.entry_id,
    pid = spec.pid, seed = spec.seed, info = spec.info or {}, context = spec.context or {}, marks = spec.marks or {},
    next_seq = 1, now = 0, ops = {}, ops_len = 0, imports = {}, history_length = 0, history_size = 0,
    listed = {},
  }
  K.make_env(unit)
  for _, name in raw.ipairs(spec.modules or {}) do
    unit.listed[name] = true
    if not K.libs[name] and not K.global_modules[name] then
      raw.rawset(unit.env, name, K.module(name))
    end
  end
  units[handle] = unit
end

--- Give a function's unit another caller's context and identity before it is started again.
function A.rebind(handle, pid, context_bytes)
  local unit = units[handle]
  unit.pid = pid
  unit.context = context_bytes and K.decode(context_bytes) or {}
  unit.context_bytes = nil
end

--- One activation: an event goes in, the ops that came up go out as a flat list of fives.
function A.feed(handle, verb, now, replaying, length, size, a, b, c)
  local unit = units[handle]
  if unit.finished and verb ~= "start" then
    return
  end
  unit.now, unit.replaying, unit.history_length, unit.history_size = now, replaying, length, size
  unit.budget, unit.memory_before = K.limits.instructions, collectgarbage("count")
  K.enter(unit)
  local ok, problem = raw.pcall(activate, unit, verbs[verb], a, b, c)
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
  units[handle] = nil
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
    list[#list + 1] = raw.table.concat(user_frames(tasks[id].co), "\n")
  end
  return K.encode(list)
end

--- Kilobytes in use by the whole VM.
function A.memory()
  return collectgarbage("count")
end

return A
