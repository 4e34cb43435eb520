-- Starting processes and workflows: `process.spawn` and its variants, `exec`, Spawners, `upgrade` (contract section 7.2).

local K = ...
local raw = K.raw
local process = K.modules.process

local CONTEXT, OPTIONS, NAME, MESSAGES = K.key("context"), K.key("options"), K.key("name"), K.key("messages")

-- The options of a start, checked here so that a wrong type fails the spawn and not the child.
local TEXT, FILLED, BOOL, DURATION, TABLE = "a text", "a non-empty text", "a boolean",
  "a duration (Go text or milliseconds)", "a table"
local START_OPTIONS = {
  id = FILLED, task_queue = TEXT, execution_timeout = DURATION, run_timeout = DURATION, task_timeout = DURATION,
  id_conflict_policy = { use_existing = true, fail = true, terminate_existing = true },
  id_reuse_policy = { allow_duplicate = true, allow_duplicate_failed_only = true, reject_duplicate = true },
  execution_error_when_already_started = BOOL, retry_policy = TABLE, cron_schedule = TEXT, start_delay = DURATION,
  memo = TABLE, search_attributes = TABLE,
  parent_close_policy = { terminate = true, abandon = true, request_cancel = true },
  wait_for_cancellation = BOOL, namespace = TEXT,
}

local function check_start_option(name, value)
  local want = START_OPTIONS[name]
  if want == nil then
    return value
  elseif raw.type(want) == "table" then
    local normal = raw.type(value) == "string" and raw.string.gsub(raw.string.lower(value), "-", "_")
    if normal and want[normal] then
      return normal
    end
    local known = {}
    for policy in raw.next, want do
      known[#known + 1] = policy
    end
    raw.table.sort(known)
    return nil, name .. " must be one of " .. raw.table.concat(known, ", ")
  elseif want == DURATION then
    local ns = K.duration_ms_option(value)
    if not ns or ns < 0 then
      return nil, name .. " must be " .. DURATION
    end
    return ns
  elseif (want == TEXT and raw.type(value) == "string") or (want == BOOL and raw.type(value) == "boolean")
      or (want == FILLED and raw.type(value) == "string" and value ~= "") or (want == TABLE and K.type(value) == "table") then
    return value
  end
  return nil, name .. " must be " .. want
end

-- Returns the normalized options (durations in ns, enums in lower case), or nil and an Error.
local function normalize_options(options)
  local keys, normal = {}, {}
  for key in raw.next, options do
    keys[#keys + 1] = key
  end
  raw.table.sort(keys) -- which of two wrong options is reported must not depend on the hash seed
  for _, key in raw.ipairs(keys) do
    local value = options[key]
    local name = raw.string.match(key, "^temporal%.workflow%.(.+)$") or raw.string.match(key, "^workflow%.(.+)$") or key
    local checked, problem = check_start_option(name, value)
    if problem then
      return nil, K.new_error("Invalid", problem, false)
    end
    normal[name] = checked
  end
  return normal
end

local function start(kind, variant, spawner, id, host, ...)
  if raw.type(id) ~= "string" or raw.type(host) ~= "string" or id == "" or host == "" then
    return nil, K.new_error("Invalid", "an entry ID and a host ID are required", false)
  end
  if kind == "exec" and not raw.string.find(id, "^[^:]+:.+") then
    return nil, K.new_error("Invalid", "malformed ID " .. id .. "; write namespace:name", false)
  end
  local request, failed = K.encode_request(spawner and spawner[CONTEXT], raw.select("#", ...), ...)
  if not request then
    return nil, failed
  end
  local options, err = normalize_options(spawner and spawner[OPTIONS] or {})
  if not options then
    return nil, err
  end
  options.id = options.id or (spawner and spawner[NAME])
  local spec = { host = host, variant = variant, options = options, messages = spawner and spawner[MESSAGES] }
  if kind == "exec" then
    spec.exec = true
    local task = K.current.task
    local n
    n = K.op("spawn", id, request, K.encode_options(spec), function(ok, value)
      if ok and not K.current.deterministic then
        K.wake(task, value, nil) -- the live driver waits for the end itself, and answers with the result
      elseif ok then
        K.current.execs = K.current.execs or {}
        K.current.execs[n] = task
      else
        K.wake(task, nil, value)
      end
    end)
    return K.park()
  end
  return K.op_wait("spawn", id, request, K.encode_options(spec))
end

--- A child (op n) ended. The one that `exec` waits for is answered; all others are told by an EXIT event.
function K.child_ended(unit, n, pid, ok, value)
  local task = unit.execs and unit.execs[n]
  if task then
    unit.execs[n] = nil
    if ok then
      K.wake(task, value, nil)
    else
      K.wake(task, nil, value)
    end
    return
  end
  local result = ok and { value = value } or { error = value }
  K.deliver_event(unit, { kind = "pid.exit", from = pid, at = unit.now / 1e9, result = result })
end

local VARIANTS = {
  spawn = "", spawn_monitored = "monitor", spawn_linked = "link", spawn_linked_monitored = "link,monitor",
}
local spawner_methods = {}
local new_spawner = K.class("Spawner", spawner_methods, { __tostring = function() return "spawner" end })

local function changed(spawner, key, value)
  local copy = { [CONTEXT] = spawner[CONTEXT], [OPTIONS] = spawner[OPTIONS], [NAME] = spawner[NAME], [MESSAGES] = spawner[MESSAGES] }
  copy[key] = value
  return new_spawner(copy)
end

for name, variant in raw.pairs(VARIANTS) do
  process[name] = function(id, host, ...) return start("spawn", variant, nil, id, host, ...) end
  spawner_methods[name] = function(self, id, host, ...) return start("spawn", variant, self, id, host, ...) end
end
process.exec = function(id, host, ...) return start("exec", "", nil, id, host, ...) end
spawner_methods.exec = function(self, id, host, ...) return start("exec", "", self, id, host, ...) end

function spawner_methods:with_context(values)
  return changed(self, CONTEXT, K.merge(self[CONTEXT] or {}, values, "with_context"))
end

function spawner_methods:with_options(values)
  return changed(self, OPTIONS, K.merge(self[OPTIONS] or {}, values, "with_options"))
end

function spawner_methods:with_name(name)
  if raw.type(name) ~= "string" or name == "" then
    K.raise("bad argument #1 to 'with_name' (a non-empty text expected)")
  end
  return changed(self, NAME, name)
end

function spawner_methods:with_message(topic, ...)
  local err = K.check_topic(topic)
  if err then
    K.raise("bad argument #1 to 'with_message' (" .. K.error_text(err) .. ")")
  end
  local body, failed = K.encode_bodies(raw.select("#", ...), ...)
  if not body then
    K.raise("bad argument #2 to 'with_message' (" .. failed .. ")")
  end
  local messages = {}
  for i, message in raw.ipairs(self[MESSAGES] or {}) do
    messages[i] = message
  end
  messages[#messages + 1] = { topic = topic, body = body }
  return changed(self, MESSAGES, messages)
end

function spawner_methods:with_actor(_) return self end
function spawner_methods:with_scope(_) return self end

function process.with_context(values) return new_spawner({ [CONTEXT] = K.merge({}, values, "with_context") }) end
function process.with_options(values) return new_spawner({ [OPTIONS] = K.merge({}, values, "with_options") }) end

--- Go on as a new run or in new code. Does not return: the unit ends here.
function process.upgrade(id, ...)
  local unit = K.current
  if id ~= nil and (raw.type(id) ~= "string" or id == "") then
    return nil, K.new_error("Invalid", "an entry ID or nil is required", false)
  end
  if unit.kind == "function" then
    return nil, K.new_error("Internal", "process.upgrade is not possible in a function call", false)
  end
  local request, failed = K.encode_request(nil, raw.select("#", ...), ...)
  if not request then
    return nil, failed
  end
  unit.finished = true
  -- A process keeps its messages itself (`upgrade` in kernel.lua); those of a workflow are recorded.
  local unread = unit.deterministic and K.unread(unit) or nil
  K.tell("end", "continue", request, K.encode({ entry = id or unit.entry_id, unread = unread }))
  K.park()
end
