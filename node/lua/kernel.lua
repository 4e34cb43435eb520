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

local NONE = {}
local units = {} -- handle -> unit
local code = {} -- key -> bytecode

-- Limits -----------------------------------------------------------------------------------------------------

local OUT_VALUES_MAX = 50000 -- ops handed out in one turn, five values each; Lua's stack takes a million values
local HOOK_EVERY = 10000 -- instructions between two looks at the budget
-- Instructions that a switch to a task is charged for. Hooks count in each coroutine by itself: short tasks that spawn short
-- tasks would never be looked at.
local SWITCH_COST = 50

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

local function finish(unit, verb, payload, options)
  unit.finished = true
  K.tell("end", verb, payload, options)
end

local function fail(unit, err, verb)
  finish(unit, verb or "fail", "\xC1\x92\x01" .. K.encode_wire_error(err))
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

-- Let go of all that a unit holds.
local function release(unit)
  unit.tasks, unit.ready, unit.ready_head, unit.ready_tail = {}, {}, 1, 0
  unit.pending, unit.pending_count, unit.env, unit.main, unit.args = {}, 0, {}, nil, nil
  unit.mailbox, unit.listeners, unit.inbox, unit.events, unit.early_events = nil, nil, nil, nil, nil
  if unit.inbound then
    unit.inbound = { first = 1, last = 0 }
  end
  collectgarbage()
end

-- The VM has no memory left. A unit that could have taken all that its step may have took more: it fails alone. Else it
-- may be somebody else's fault: the driver finds out. Not so for a process: the others could not be run again elsewhere.
local function fail_out_of_memory(unit, co)
  local had_room = K.limits.vm_memory_kb - unit.memory_before > K.limits.memory_kb
  if not had_room and unit.kind ~= "process" then
    raw.error(OUT_OF_MEMORY, 0)
  end
  local lines = K.user_frames(co)
  unit.doomed = OUT_OF_MEMORY -- handlers of to-be-closed variables do not get far
  raw.coroutine.close(co)
  release(unit)
  local place = raw.string.match(lines[1] or "", "^(.-:%d+)") or "?"
  unit.doomed = place .. (had_room and raw.string.format(": took more than %d MB of memory in one step", K.limits.memory_kb // 1024)
    or ": no memory is left in the Lua VM that this process shares with others")
  fail(unit, K.new_error("Internal", unit.doomed, false, nil, raw.table.concat(lines, "\n\t")), "doomed")
end

-- The text of a raised value that is neither text nor Error. A `__tostring` of the user's runs as a coroutine of its
-- own, under what is left of the budget, and may not wait.
local function text_of_object(value)
  if raw.type(value) ~= "table" or K.class_of(value) then
    return K.tostring(value)
  end
  local co = co_create(K.tostring)
  K.arm(co)
  local ok, text = resume(co, value)
  return ok and status(co) == "dead" and text or "a table whose __tostring failed"
end

local function fail_raised(unit, co, value)
  if value == OUT_OF_MEMORY then
    return fail_out_of_memory(unit, co)
  end
  value = K.blame_thread(co, value)
  local lines = K.user_frames(co)
  if raw.type(value) ~= "string" and not K.is_error(value) then
    -- Lua puts a position in front of texts only.
    local place = raw.string.match(lines[1] or "", "^(.-:%d+): ")
    value = (place and place .. ": " or "") .. "raised " .. text_of_object(value)
    unit.finished = false -- whatever that did: the unit fails
    if unit.ops[unit.ops_len - 3] == "end" then
      unit.ops_len = unit.ops_len - 5
    end
  end
  raw.table.insert(lines, 1, K.error_text(value) or value)
  fail(unit, K.error_from_raised(value, raw.table.concat(lines, "\n\t")), "raised")
end

-- Every task waits for another one, or for nothing.
local function fail_blocked(unit)
  local ids, lines = {}, {}
  for id in raw.next, unit.tasks do
    ids[#ids + 1] = id
  end
  raw.table.sort(ids)
  for i = 1, raw.math.min(#ids, K.limits.frames_max) do
    lines[i] = K.user_frames(unit.tasks[ids[i]].co)[1]
  end
  local text = "all coroutines blocked: nothing is left that could wake this " .. unit.kind
  if lines[1] then
    text = raw.string.match(lines[1], "^(.-:%d+: )") .. text
  end
  fail(unit, K.new_error("Internal", text, false, nil, text .. "\n\t" .. raw.table.concat(lines, "\n\t")))
end

-- What a unit returns (contract 3.3).
local function complete(unit, value, second)
  if K.type(second) == "string" then
    return fail(unit, K.new_error("Internal", second, false))
  elseif K.is_error(second) then
    return fail(unit, unit.deterministic and K.error_from_raised(second) or second)
  end
  local bytes, problem = K.encode(value)
  if not bytes then
    return fail(unit, K.new_error("Internal", "the result cannot be sent: " .. problem, false))
  end
  finish(unit, "ok", "\xC1\x92\x00" .. bytes)
end

-- Loading ----------------------------------------------------------------------------------------------------

--- Compile a source once per VM; returns nil, or the error text.
---
--- What is kept is a function that makes the chunk's function for given globals: all units share one prototype, and
--- making a unit's code is one closure. The wrapper stands on the source's first line, so line numbers stay.
function K.compile(key, source, chunk_name)
  -- Alone first: a source that only makes sense inside the wrapper is refused.
  local chunk, err = raw.load(source, "@" .. chunk_name, "t", {})
  if not chunk then
    return err
  end
  code[key] = raw.load("return function(_ENV) return function(...) " .. source .. "\nend end", "@" .. chunk_name, "t", {})()
  return nil
end

local function run_chunk(key, env)
  return code[key](env)()
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
  local env, spec, values, task = unit.env, unit.spec, {}, unit.task
  unit.task, unit.loading = nil, true -- a file's top level may not wait
  for _, lib in raw.ipairs(spec.libraries or {}) do
    values[lib.id] = run_chunk(lib.code, library_env(unit, pick(lib.imports, values)))
  end
  unit.imports = pick(spec.imports, values)
  for alias, value in raw.next, unit.imports do
    raw.rawset(env, alias, value)
  end
  local got = run_chunk(spec.code, env)
  unit.task, unit.loading = task, false
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
  return K.subscribe(topic, ch)
end

function K.globals.unsubscribe(ch)
  return K.modules.process.unlisten(ch)
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
    unit.budget = unit.budget - SWITCH_COST
    if unit.budget < 0 then
      raw.debug.sethook(co, look, "", 1) -- ends at its first instruction, so that the error has a place
    end
    local ok, a, b = resume(co)
    if unit.doomed then
      unit.finished = false
      fail(unit, K.new_error("Internal", unit.doomed, false, nil, unit.doomed), "doomed")
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
      fail_blocked(unit)
    end
  end
end

local verbs = {}

-- Bytes from outside are read under protection: what nobody can read is their writer's fault, not the kernel's.
local function try(read, ...)
  local ok, a, b, c = raw.pcall(read, ...)
  if not ok and a == OUT_OF_MEMORY then
    raw.error(a, 0)
  end
  return ok, a, b, c
end

local function read_outcome(payload)
  local ok, value = try(K.decode, payload, 4)
  if not ok then
    return false, K.new_error("Internal", "undecodable outcome: " .. value, false)
  elseif raw.string.byte(payload, 3) == 0 then
    return true, value
  elseif raw.type(value) ~= "table" then
    return false, K.new_error("Internal", "undecodable outcome: a failure is a map", false)
  end
  return false, K.error_from_wire(value)
end

-- The arguments and context values of a request, a payload [arguments, context]: ok, number, list, context; or the problem.
local function read_request(request)
  local ok, n, values, past = try(K.decode_list, request, 3)
  if not ok then
    return false, n
  end
  local read, context = try(K.decode, request, past)
  if not read then
    return false, context
  end
  return true, n, values, raw.type(context) == "table" and context or {}
end

local function begin(unit)
  unit.ready, unit.ready_head, unit.ready_tail = {}, 1, 0
  unit.pending, unit.pending_count, unit.next_n = {}, 0, 1
  unit.tasks, unit.next_task = {}, 1
  unit.inbox, unit.listeners, unit.events, unit.mailbox, unit.early_events, unit.execs = nil, nil, nil, nil, nil, nil
  unit.finished, unit.doomed, unit.loading, unit.trap_links = false, nil, false, nil
end

local function launch(unit, n, values)
  if unit.loaded then
    unit.loaded = nil -- what the chunk subscribed to stays
  else
    begin(unit)
  end
  unit.started = unit.now
  local task = K.spawn_task(unit, function()
    local main = unit.main
    if main == nil then
      main = load_main(unit)
      unit.main = main
    end
    return main(raw.table.unpack(values, 1, n))
  end)
  task.main = true
end

--- Run the main function with the arguments in a msgpack array.
function verbs.start(unit, args)
  local ok, n, values = try(K.decode_list, args, 1)
  if ok then
    launch(unit, n, values)
  else
    begin(unit)
    fail(unit, K.new_error("Invalid", "the arguments cannot be read: " .. n, false))
  end
end

--- Run the main function of a function for one request: a payload [arguments, context]. The unit may have served others.
function verbs.request(unit, request, pid)
  unit.pid = pid
  local ok, n, values, context = read_request(request)
  unit.context, unit.context_bytes = context or {}, nil
  if ok then
    launch(unit, n, values)
  else
    begin(unit)
    fail(unit, K.new_error("Invalid", "the request cannot be read: " .. n, false))
  end
end

--- The outcome of op n: a payload [0, value] or [1, failure].
function verbs.resolve(unit, n, payload)
  local on_outcome = unit.pending[n]
  if on_outcome == nil then
    return
  end
  unit.pending[n] = nil
  unit.pending_count = unit.pending_count - 1
  on_outcome(read_outcome(payload))
end

--- Run the main function of a process that was loaded.
function verbs.go(unit)
  local args = unit.args
  unit.args = nil
  launch(unit, args.n, args)
end

--- A message: topic, bodies, sender. From a unit of the same VM the bodies may come as they are, in a list with `n`.
function verbs.message(unit, topic, payload, from)
  if raw.type(payload) == "table" then
    return K.deliver_message(unit, K.new_message(topic, from, payload.n, payload))
  end
  local ok, n, bodies = try(K.decode_bodies, payload)
  if not ok then
    n, bodies = 1, { payload } -- nobody can read it: the code gets the bytes
  end
  K.deliver_message(unit, K.new_message(topic, from, n, bodies))
end

--- The child that op n started has ended.
function verbs.exit(unit, n, payload, pid)
  K.child_ended(unit, n, pid, read_outcome(payload))
end

--- Somebody asks the unit to stop.
function verbs.cancel(unit, _, reason, from)
  local event = { kind = "pid.cancel", from = from }
  if unit.deterministic then
    event.at = K.new_time(unit.now):format_rfc3339()
  else
    event.at, event.reason = unit.now / 1e9, reason
  end
  K.deliver_event(unit, event)
end

local function lifecycle_event(unit, kind, payload, from)
  local ok, value = read_outcome(payload)
  K.deliver_event(unit, { kind = kind, from = from, at = unit.now / 1e9, result = ok and { value = value } or { error = value } })
end

--- A unit that this one monitors has ended: its outcome and PID.
function verbs.ended(unit, _, payload, from)
  lifecycle_event(unit, "pid.exit", payload, from)
end

--- A unit that this one is linked to has failed. Who does not trap that fails too, whatever it is doing.
function verbs.link_down(unit, _, payload, from)
  if unit.trap_links then
    return lifecycle_event(unit, "pid.link.down", payload, from)
  end
  fail(unit, K.new_error("Internal", "linked process failed"))
end

local function activate(unit, verb, a, b, c)
  verb(unit, a, b, c)
  run(unit)
end

-- Processes of one VM ----------------------------------------------------------------------------------------

-- A process takes what is posted to it in order; those with something to do stand in one queue. Messages between
-- processes of a VM are posted here, without leaving Lua.

local processes = {} -- pid -> unit
local names = {} -- registered name -> pid
local turns = { first = 1, last = 0 } -- the queue
local EVENTS_PER_ACTIVATION = 32

-- The sender may be stopped in here, by its budget or for want of memory, between any two writes: each leaves things that
-- can go on. A unit that stands in the queue twice, or for nothing, does no harm; one that is left out would wait for ever.
local function enqueue(unit)
  local last = turns.last + 1
  turns[last] = unit
  turns.last = last
  unit.queued = true
end

local function post(unit, verb, a, b, c)
  if not unit.queued then
    enqueue(unit)
  end
  local inbound = unit.inbound
  local last = inbound.last
  inbound[last + 1], inbound[last + 2], inbound[last + 3], inbound[last + 4] = verb, a, b, c
  inbound.last = last + 4
end

--- Hand a message to a process of this VM; false when there is none of this PID or name here.
function K.post_message(dest, topic, body, from)
  local unit = processes[dest] or processes[names[dest]]
  if unit == nil then
    return false
  end
  post(unit, "message", topic, body, from)
  return true
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

-- What the kernel itself failed at costs the process it was busy with, not its neighbours.
local function abandon(unit, problem)
  release(unit)
  unit.finished = false
  if problem == OUT_OF_MEMORY then
    fail(unit, K.new_error("Internal", "no memory was left in the Lua VM of this process", nil, nil, false))
  else
    fail(unit, K.new_error("Internal", "the runtime failed at this process: " .. K.tostring(problem), nil, nil, false), "broken")
  end
end

-- One activation of a process: some of what was posted to it.
local function serve(unit, now)
  unit.queued = false
  local before = collectgarbage("count")
  unit.now, unit.budget, unit.memory_before = now, K.limits.instructions, before
  K.enter(unit)
  local ok, problem = raw.pcall(take_events, unit)
  if not ok then
    abandon(unit, problem)
  end
  K.leave()
  local grown = collectgarbage("count") - before
  if grown > 0 then
    unit.allocated = unit.allocated + grown
  end
  if unit.finished then
    processes[unit.pid] = nil
  elseif unit.inbound.first <= unit.inbound.last then
    enqueue(unit)
  end
end

local A = {} -- what the driver calls

A.compile = K.compile

local specs = {} -- number -> what units of one entry have in common

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
function A.open(handle, number, pid, seed, info, context, marks)
  local spec = specs[number]
  local unit = {
    spec = spec, kind = spec.kind, deterministic = spec.kind == "workflow", entry_id = spec.entry_id, listed = spec.listed,
    pid = pid, seed = seed, info = decoded(info), context = decoded(context), marks = decoded(marks),
    next_seq = 1, now = 0, ops = {}, ops_len = 0, imports = NONE, history_length = 0, history_size = 0,
  }
  K.make_env(unit)
  units[handle] = unit
  if spec.kind == "process" then
    unit.handle, unit.inbound, unit.allocated = handle, { first = 1, last = 0 }, 0
    processes[pid] = unit
  end
end

-- Run the chunks of a unit's code, under its limits, so that what fails there fails the spawn. Returns nil, or the failure.
local function load_now(unit, request)
  begin(unit)
  local read, n, values, context = read_request(request)
  if not read then
    return fail(unit, K.new_error("Invalid", "the request cannot be read: " .. n, false))
  end
  values.n = n
  unit.args, unit.context = values, context
  local co = co_create(function() unit.main = load_main(unit) end)
  K.arm(co)
  local ok, problem = resume(co)
  if unit.doomed then
    unit.finished = false
    fail(unit, K.new_error("Internal", unit.doomed, false, nil, unit.doomed), "doomed")
  elseif not ok then
    fail_raised(unit, co, problem)
  elseif status(co) ~= "dead" then
    fail(unit, K.new_error("Internal", "a file's top level may not wait or yield", false))
  end
  unit.loaded = true
end

--- Load a process and keep its arguments and context, a payload [arguments, context]. Returns nil, or a failure payload;
--- then the process is no more.
function A.load(handle, request, now)
  local unit = units[handle]
  unit.now, unit.budget, unit.memory_before = now, K.limits.instructions, collectgarbage("count")
  K.enter(unit)
  local ok, problem = raw.pcall(load_now, unit, request)
  if not ok then
    abandon(unit, problem)
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
function A.upgrade(handle, number, seed, request, now)
  local old = units[handle]
  A.open(handle, number, old.pid, seed, nil, nil, nil)
  local unit = units[handle]
  unit.next_seq, unit.inbound, unit.allocated, unit.queued = old.next_seq, old.inbound, old.allocated, old.queued
  local failure = A.load(handle, request, now)
  if not failure then
    unit.next_n = old.next_n
    if unit.trap_links == nil then
      unit.trap_links = old.trap_links
    end
    K.enter(unit)
    local ok, problem = raw.pcall(hand_over, old, unit)
    if not ok then
      abandon(unit, problem)
      failure = unit.ops[unit.ops_len - 1]
      A.close(handle)
    end
    K.leave()
    for i = turns.first, turns.last do
      if turns[i] == old then
        turns[i] = unit
      end
    end
  end
  return failure
end

--- Post an event to a process (handle 0: none) and let the processes that have something to do take their turns, for about
--- `slice` seconds. Returns whether some are left, the kilobytes in use, and a flat list: handle, number of values, ops.
function A.turn(now, slice, handle, verb, a, b, c)
  local unit = units[handle]
  if unit then
    post(unit, verb, a, b, c)
  end
  local out, len, count = {}, 0, 0
  -- The clock is a system call: not read for a process that nobody comes after.
  local ends = turns.first < turns.last and raw.os.clock() + slice or nil
  while turns.first <= turns.last do
    unit = turns[turns.first]
    turns[turns.first] = nil
    turns.first = turns.first + 1
    if units[unit.handle] == unit and not unit.finished then
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
      elseif turns.first <= turns.last then
        if ends == nil then
          ends = raw.os.clock() + slice
        elseif (count % 8 == 0 or unit.budget < K.limits.instructions - HOOK_EVERY) and raw.os.clock() > ends then
          break
        end
      end
    end
  end
  local more = turns.first <= turns.last
  if not more then
    turns.first, turns.last = 1, 0
  end
  return more, collectgarbage("count"), raw.table.unpack(out, 1, len)
end

--- Say which PID a registered name stands for, nil for none any more.
function A.name(name, pid)
  names[name] = pid
end

--- Which process of this VM holds the most memory: its handle and about how many kilobytes. Looks at those that have
--- allocated the most, as looking takes time; after a full collection.
--- Takes about `seconds` of the processor's time at most. Of one that holds more than kb_max no more is counted, and it is the
--- answer; so is one that holds so many things that counting them would take more than half of the time.
function A.heaviest(looks, seconds, kb_max)
  collectgarbage()
  local candidates, ends = {}, raw.os.clock() + seconds
  for _, unit in raw.next, processes do
    candidates[#candidates + 1] = unit
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
  collectgarbage()
  return heaviest, most
end

--- One activation: an event goes in, the ops that came up go out as a flat list of fives.
function A.feed(handle, verb, now, replaying, length, size, a, b, c)
  local unit = units[handle]
  if unit.finished and verb ~= "start" and verb ~= "request" then
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
  local unit = units[handle]
  units[handle] = nil
  if unit and processes[unit.pid] == unit then
    processes[unit.pid] = nil
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

--- Kilobytes in use by the whole VM.
function A.memory()
  return collectgarbage("count")
end

return A
