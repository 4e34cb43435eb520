-- How units end: with a result, or with the failure that fits what went wrong.
--
-- Invariant: a unit ends once. Whatever its code does while it ends (a `__tostring`, a variable that is closed) counts for
-- nothing.
--
-- Of a unit, written here: finished, doomed, and in K.release all that it holds.

local K = ...
local raw = K.raw
local resume, status, co_create = raw.coroutine.resume, raw.coroutine.status, raw.coroutine.create
local collectgarbage = raw.collectgarbage

-- What Lua raises when a VM has no memory left.
local OUT_OF_MEMORY = "not enough memory"
K.OUT_OF_MEMORY = OUT_OF_MEMORY

local function finish(unit, verb, payload)
  unit.finished = true
  K.tell("end", verb, payload)
end

local TEXT_BYTES_MAX <const> = 65536 -- of a message or a stack: nobody reads more, and it is copied from log to log

local function shortened(text)
  if text and #text > TEXT_BYTES_MAX then
    return raw.string.sub(text, 1, TEXT_BYTES_MAX) .. raw.string.format("... (%d bytes in all)", #text)
  end
  return text
end

-- The msgpack map of an Error, details that cannot be sent replaced by a note.
local function encode_wire_error(err)
  local wire = K.error_to_wire(err)
  wire.message, wire.stack = shortened(wire.message), shortened(wire.stack)
  local bytes, problem = K.encode(wire)
  if not bytes then
    wire.details = { note = "details could not be sent: " .. problem }
    bytes = K.encode(wire)
  end
  return bytes
end

-- A unit that fails on its way out fails: the end that its code had ordered is taken back.
local function take_back_end(unit)
  if unit.finished and unit.ops[unit.ops_len - 3] == "end" then
    unit.ops_len = unit.ops_len - 5
  end
  unit.finished = false
end

--- End a unit with an Error. verb: what the driver is told it was; the user's own failure unless it is said.
local function fail(unit, err, verb)
  finish(unit, verb or "fail", "\xC1\x92\x01" .. encode_wire_error(err))
end
K.fail = fail

--- End a unit that was stopped by its limits (`unit.doomed` says by which).
local function fail_doomed(unit, stack)
  take_back_end(unit)
  -- A workflow would do the same again. A process or a call may have met what has passed by its next start: nothing is said,
  -- so that what supervises it may try.
  local retryable
  if unit.deterministic then
    retryable = false
  end
  fail(unit, K.new_error("Internal", unit.doomed, retryable, nil, stack or unit.doomed), "doomed")
end
K.fail_doomed = fail_doomed

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
  fail_doomed(unit, raw.table.concat(lines, "\n\t"))
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

--- End a unit whose coroutine has raised a value.
function K.fail_raised(unit, co, value)
  if value == OUT_OF_MEMORY then
    return fail_out_of_memory(unit, co)
  end
  if raw.type(value) == "string" then
    value = shortened(value)
  end
  value = K.blame_thread(co, value)
  local lines = K.user_frames(co)
  if raw.type(value) ~= "string" and not K.is_error(value) then
    -- Lua puts a position in front of texts only.
    local place = raw.string.match(lines[1] or "", "^(.-:%d+): ")
    value = (place and place .. ": " or "") .. "raised " .. text_of_object(value)
    take_back_end(unit)
  end
  raw.table.insert(lines, 1, K.error_text(value) or value)
  fail(unit, K.error_from_raised(value, raw.table.concat(lines, "\n\t")), "raised")
end

--- End a unit of which every task waits for another one, or for nothing.
function K.fail_blocked(unit)
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

--- What a unit ends with, from what its main function returned (contract section 3.3): encoded, or nil and an Error. To be
--- called in the unit's own coroutine: writing a large result counts as the unit's.
function K.outcome_of(unit, value, second)
  if K.type(second) == "string" then
    return nil, K.new_error("Internal", second, false)
  elseif K.is_error(second) then
    return nil, unit.deterministic and K.error_from_raised(second) or second
  end
  local bytes, problem = K.encode(value)
  if not bytes then
    return nil, K.new_error("Internal", "the result cannot be sent: " .. problem, false)
  end
  return bytes
end

--- End a unit with its outcome.
function K.complete(unit, bytes, err)
  if not bytes then
    return fail(unit, err)
  end
  finish(unit, "ok", "\xC1\x92\x00" .. bytes)
end

--- End a process at which the kernel itself failed: that costs the one it was busy with, not its neighbours.
function K.abandon(unit, problem)
  release(unit)
  unit.finished = false
  if problem == OUT_OF_MEMORY then
    fail(unit, K.new_error("Internal", "no memory was left in the Lua VM of this process", nil, nil, false))
  else
    fail(unit, K.new_error("Internal", "the runtime failed at this process: " .. K.tostring(problem), nil, nil, false), "broken")
  end
end
