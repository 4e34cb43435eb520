-- Activations: what events do to a unit, and running its tasks until all wait (`K.verbs`, `K.run`).
--
-- Invariant: an activation ends with every task parked, or with the unit finished.

local K = ...
local raw = K.raw
local resume, status = raw.coroutine.resume, raw.coroutine.status

-- Instructions that a switch to a task is charged for. Hooks count in each coroutine by itself: short tasks that spawn short
-- tasks would never be looked at.
local SWITCH_COST = 50

--- Run the tasks of a unit that are ready, and those that become ready, until all wait.
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
    if unit.budget < 0 or unit.every and K.is_late(unit) then
      K.stop_at_once(co)
    elseif unit.every then
      K.arm(co)
    end
    local ok, a, b = resume(co)
    if unit.doomed then
      K.fail_doomed(unit)
    elseif unit.finished then
      break
    elseif not ok then
      K.fail_raised(unit, co, a)
    elseif status(co) == "dead" then
      unit.tasks[task.id] = nil
      if task.main then
        K.complete(unit, a, b)
      end
    elseif a ~= K.BLOCK then
      K.fail(unit, K.new_error("Internal", "coroutine.yield outside of a coroutine that somebody resumes", false))
    end
  end
  unit.task = nil
  if not unit.finished then
    if unit.ready_head > 1024 then
      unit.ready, unit.ready_head, unit.ready_tail = {}, 1, 0
    end
    if unit.pending_count == 0 and not (unit.inbox or unit.listeners or unit.events)
        and raw.next(unit.execs or {}) == nil then
      K.fail_blocked(unit)
    end
  end
end

K.run = run

-- Bytes from outside are read under protection: what nobody can read is their writer's fault, not the kernel's.
local function try(read, ...)
  local ok, a, b, c = raw.pcall(read, ...)
  if not ok and a == K.OUT_OF_MEMORY then
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

-- Make a unit new, for a run of its main function.
local function begin(unit)
  unit.ready, unit.ready_head, unit.ready_tail = {}, 1, 0
  unit.pending, unit.pending_count, unit.next_n = {}, 0, 1
  unit.tasks, unit.next_task = {}, 1
  unit.inbox, unit.listeners, unit.events, unit.mailbox, unit.early_events, unit.execs = nil, nil, nil, nil, nil, nil
  unit.finished, unit.doomed, unit.loading, unit.trap_links = false, nil, false, nil
end

local function main_of(unit)
  if unit.main == nil then
    unit.main = K.load_main(unit)
  end
  return unit.main
end

local function launch(unit, n, values)
  if unit.loaded then
    unit.loaded = nil -- what the chunk subscribed to stays
  else
    begin(unit)
  end
  unit.started = unit.now
  local task = K.spawn_task(unit, function()
    -- Called without a name: a stack says "main function".
    return K.outcome_of(unit, main_of(unit)(raw.table.unpack(values, 1, n)))
  end)
  task.main = true
end

--- Make a process new and run its chunks, under its limits, so that what fails there fails the spawn. Its arguments and
--- context, a payload [arguments, context], are kept.
function K.load(unit, request)
  begin(unit)
  local read, n, values, context = read_request(request)
  if not read then
    return K.fail(unit, K.new_error("Invalid", "the request cannot be read: " .. n, false))
  end
  values.n = n
  unit.args, unit.context = values, context
  local co = raw.coroutine.create(function() unit.main = K.load_main(unit) end)
  K.arm(co)
  local ok, problem = resume(co)
  if unit.doomed then
    K.fail_doomed(unit)
  elseif not ok then
    K.fail_raised(unit, co, problem)
  elseif status(co) ~= "dead" then
    K.fail(unit, K.new_error("Internal", "a file's top level may not wait or yield", false))
  end
  unit.loaded = true
end

-- Events -----------------------------------------------------------------------------------------------------

--- What each event does to a unit, by its name: verbs[name](unit, a, b, c).
local verbs = {}
K.verbs = verbs

--- Run the main function with the arguments in a msgpack array.
function verbs.start(unit, args)
  local ok, n, values = try(K.decode_list, args, 1)
  if ok then
    launch(unit, n, values)
  else
    begin(unit)
    K.fail(unit, K.new_error("Invalid", "the arguments cannot be read: " .. n, false))
  end
end

--- Run the main function of a function for one request: a payload [arguments, context]. The unit may have served others.
function verbs.request(unit, request, pid)
  K.notice(request)
  unit.pid = pid
  local ok, n, values, context = read_request(request)
  unit.context, unit.context_bytes = context or {}, nil
  if ok then
    launch(unit, n, values)
  else
    begin(unit)
    K.fail(unit, K.new_error("Invalid", "the request cannot be read: " .. n, false))
  end
end

--- The outcome of op n: a payload [0, value] or [1, failure].
function verbs.resolve(unit, n, payload)
  local on_outcome = unit.pending[n]
  if on_outcome == nil then
    return
  end
  K.notice(payload)
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

-- Long texts in what another process of the VM has sent, as deep as a look does not take long.
local function notice_within(value)
  if raw.type(value) == "table" then
    for _, item in raw.next, value do
      K.notice(item)
    end
  else
    K.notice(value)
  end
end

--- A message: topic, bodies, sender. From a unit of the same VM the bodies may come as they are, in a list with `n`.
function verbs.message(unit, topic, payload, from)
  if raw.type(payload) == "table" then
    local count = payload.n
    payload.n = nil -- what decoded bodies do not have: the code may get this very table
    for i = 1, count do
      notice_within(payload[i])
    end
    return K.deliver_message(unit, K.new_message(topic, from, count, payload))
  end
  K.notice(payload)
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
  K.fail(unit, K.new_error("Internal", "linked process failed"))
end
