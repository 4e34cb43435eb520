-- `process`: spawning, messages, events (contract sections 7 to 9 and 11.4), and `workflow` (11.10).

local K = ...
local raw = K.raw

local function internal(text)
  return K.new_error("Internal", text, false)
end

-- Mailbox ----------------------------------------------------------------------------------------------------

-- A message that nobody listens for waits in `unit.mailbox` until a listener of its topic or the inbox exists.
local function route(unit, message)
  local topic = K.message_parts(message)
  local listener = unit.listeners and unit.listeners[topic]
  -- A channel that its reader has closed takes nothing: the message goes where it would go without it.
  if listener and K.channel_offer(listener.channel, message) then
    return true
  end
  return unit.inbox ~= nil and raw.string.byte(topic, 1) ~= 64 and K.channel_offer(unit.inbox, message)
end

--- A message arrives.
function K.deliver_message(unit, message)
  if not route(unit, message) then
    unit.mailbox = unit.mailbox or {}
    unit.mailbox[#unit.mailbox + 1] = message
  end
end

-- A listener or the inbox came to be: hand over what waited for it, in order.
local function reroute(unit)
  local waiting = unit.mailbox
  if waiting then
    unit.mailbox = nil
    for i = 1, #waiting do
      K.deliver_message(unit, waiting[i])
    end
  end
end

--- The messages that were never read, in the order in which they came, for new code of the same unit. They are taken away.
function K.unread_messages(unit)
  local list = {}
  local function add(topic, value)
    list[#list + 1] = K.is_message(value) and value or K.new_message(topic, "", 1, { value })
  end
  local function drain(topic, ch)
    local values, n = K.channel_drain(ch)
    for i = 1, n do
      add(topic, values[i])
    end
  end
  if unit.inbox then
    drain("", unit.inbox)
  end
  local topics = {}
  for topic in raw.next, unit.listeners or {} do
    if raw.string.byte(topic, 1) ~= 64 then -- what the runtime sends to an object of the old code goes with it
      topics[#topics + 1] = topic
    end
  end
  raw.table.sort(topics) -- objects that are made here are numbered
  for _, topic in raw.ipairs(topics) do
    local listener = unit.listeners[topic]
    if listener.held then
      add(topic, listener.held)
    end
    drain(topic, listener.channel)
  end
  for _, message in raw.ipairs(unit.mailbox or {}) do
    list[#list + 1] = message
  end
  raw.table.sort(list, function(x, y) return x[K.SEQ] < y[K.SEQ] end)
  return list
end

--- The same as it is recorded for the next run of a workflow.
function K.unread(unit)
  local list = {}
  for i, message in raw.ipairs(K.unread_messages(unit)) do
    local topic, from, n, bodies = K.message_parts(message)
    list[i] = { topic = topic, from = from, body = K.encode_bodies(n, raw.table.unpack(bodies, 1, n)) }
  end
  return list
end

--- The lifecycle events that were never read.
function K.unread_events(unit)
  if unit.events then
    local values = K.channel_drain(unit.events)
    return values
  end
  return unit.early_events
end

--- A lifecycle event arrives.
function K.deliver_event(unit, event)
  if unit.events then
    K.channel_offer(unit.events, event)
  else
    unit.early_events = unit.early_events or {}
    unit.early_events[#unit.early_events + 1] = event
  end
end

-- Module -----------------------------------------------------------------------------------------------------

local M = { event = { CANCEL = "pid.cancel", EXIT = "pid.exit", LINK_DOWN = "pid.link.down" } }

function M.id() return K.current.entry_id end
function M.pid() return K.current.pid end

function M.get_options() return { trap_links = K.current.trap_links or false } end

function M.set_options(options)
  if K.current.deterministic then
    return false, internal("process.set_options not supported in workflow context")
  end
  if K.type(options) ~= "table" then
    return false, K.new_error("Invalid", "options must be a table", false)
  end
  for name, value in raw.next, options do
    if name ~= "trap_links" then
      return false, K.new_error("Invalid", "option " .. raw.tostring(name) .. " is not supported", false)
    elseif raw.type(value) ~= "boolean" then
      return false, K.new_error("Invalid", "trap_links must be a boolean", false)
    end
  end
  if options.trap_links ~= nil then
    K.current.trap_links = options.trap_links
  end
  return true, nil
end

function M.inbox()
  local unit = K.current
  if not unit.inbox then
    unit.inbox = K.new_channel(raw.math.huge)
    reroute(unit)
  end
  return unit.inbox
end

function M.events()
  local unit = K.current
  if not unit.events then
    unit.events = K.new_channel(raw.math.huge)
    for _, event in raw.ipairs(unit.early_events or {}) do
      K.channel_offer(unit.events, event)
    end
    unit.early_events = nil
  end
  return unit.events
end

local function check_topic(topic)
  if raw.type(topic) ~= "string" or topic == "" then
    return K.new_error("Invalid", "topic must be a non-empty text", false)
  elseif raw.string.byte(topic, 1) == 64 then
    return K.new_error("Invalid", "topics that begin with @ are reserved", false)
  end
  return nil
end

function M.listen(topic, options)
  local err = check_topic(topic)
  if err then
    return nil, err
  end
  local unit = K.current
  unit.listeners = unit.listeners or {}
  local listener = unit.listeners[topic]
  if not listener then
    local as_message = options ~= nil and options.message == true
    listener = { channel = K.new_channel(raw.math.huge, not as_message and K.plain_message or nil) }
    unit.listeners[topic] = listener
    reroute(unit)
  end
  return listener.channel
end

function M.unlisten(ch)
  if K.class_of(ch) ~= "channel" then
    K.raise("bad argument #1 to 'unlisten' (channel expected, got " .. K.type(ch) .. ")")
  end
  local unit = K.current
  for topic, listener in raw.next, unit.listeners or {} do
    if listener.channel == ch or listener.target == ch then
      unit.listeners[topic] = nil
      K.channel_close(listener.channel)
      K.channel_close(ch)
      break
    end
  end
  return true
end

--- Listen with a channel of the caller's, of any size: a task hands on what arrives, so nothing is dropped when it is full.
function K.subscribe(topic, ch)
  local err = check_topic(topic)
  if err then
    return nil, err
  elseif K.class_of(ch) ~= "channel" then
    K.raise("bad argument #2 to 'subscribe' (channel expected, got " .. K.type(ch) .. ")")
  end
  local unit = K.current
  unit.listeners = unit.listeners or {}
  local listener = { channel = K.new_channel(raw.math.huge), target = ch }
  unit.listeners[topic] = listener
  reroute(unit)
  K.spawn_task(unit, function()
    while true do
      local message, open = listener.channel:receive()
      if not open or K.channel_closed(ch) then
        return
      end
      listener.held = message
      ch:send(K.message_value(message))
      listener.held = nil
    end
  end)
  return true
end

local SCALARS = { ["nil"] = true, boolean = true, number = true, string = true }

function M.send(dest, topic, ...)
  if raw.type(dest) ~= "string" or dest == "" then
    return nil, K.new_error("Invalid", "destination required", false)
  end
  local err = check_topic(topic)
  if err then
    return nil, err
  end
  local body, failed
  local n, first = raw.select("#", ...), (...)
  local unit = K.current
  if unit.kind == "process" and n == 1 and SCALARS[raw.type(first)] then
    -- To a process of this VM a plain value goes as it is.
    if K.post_message(dest, topic, { n = 1, first }, unit.pid) then
      return true, nil
    end
  end
  body, failed = K.encode_bodies(n, ...)
  if not body then
    return nil, K.new_error("Invalid", "message cannot be sent: " .. failed, false)
  end
  if unit.kind == "process" and K.post_message(dest, topic, body, unit.pid) then
    return true, nil
  end
  return K.op_wait("send", dest, body, K.encode_options({ topic = topic }))
end

local function check_dest(dest)
  if raw.type(dest) ~= "string" or dest == "" then
    return K.new_error("Invalid", "destination required", false)
  end
  return nil
end

function M.cancel(dest, reason)
  local err = check_dest(dest)
  if err then
    return nil, err
  end
  return K.op_wait("cancel", dest, nil, K.encode_options({ reason = reason and K.tostring(reason) }))
end

function M.terminate(dest)
  local err = check_dest(dest)
  if err then
    return nil, err
  end
  return K.op_wait("terminate", dest)
end

for _, name in raw.ipairs({ "monitor", "unmonitor", "link", "unlink" }) do
  M[name] = function(dest)
    if K.current.deterministic then
      return nil, internal("process." .. name .. " not supported in workflow context; a child's EXIT arrives in process.events() without asking")
    end
    local err = check_dest(dest)
    if err then
      return nil, err
    end
    return K.op_wait(name, dest)
  end
end

M.registry = { LOCAL = 0, EVENTUAL = 1, CONSISTENT = 2, STRONG = 3 }

local NAME_BYTES_MAX = 250 -- as in node/units/names.py

local function check_name(what, name)
  if K.current.deterministic then
    return internal("process.registry." .. what .. " not supported in workflow context")
  elseif raw.type(name) ~= "string" or name == "" then
    return K.new_error("Invalid", "name must be a non-empty text", false)
  elseif #name > NAME_BYTES_MAX then
    return K.new_error("Invalid", "a name has at most " .. NAME_BYTES_MAX .. " bytes", false)
  end
  return nil
end

local function check_scope(scope)
  if scope == nil then
    return M.registry.LOCAL
  elseif raw.math.type(scope) ~= "integer" or scope < M.registry.LOCAL or scope > M.registry.STRONG then
    return nil, K.new_error("Invalid", "scope must be process.registry.LOCAL, EVENTUAL, CONSISTENT or STRONG", false)
  end
  return scope
end

function M.registry.register(name, pid, scope)
  if scope == nil and raw.type(pid) == "number" then
    pid, scope = nil, pid -- register(name, scope)
  end
  local err = check_name("register", name)
  if err then
    return nil, err
  elseif pid ~= nil and (raw.type(pid) ~= "string" or not raw.string.find(pid, "^{.*|.+}$")) then
    return nil, K.new_error("Invalid", "pid must be a PID", false)
  end
  scope, err = check_scope(scope)
  if err then
    return nil, err
  end
  return K.op_wait("name.register", name, nil, K.encode_options({ pid = pid or K.current.pid, scope = scope }))
end

function M.registry.lookup(name)
  local err = check_name("lookup", name)
  if err then
    return nil, err
  end
  return K.op_wait("name.lookup", name)
end

function M.registry.unregister(name, scope)
  local err = check_name("unregister", name)
  if err then
    return nil, err
  end
  scope, err = check_scope(scope)
  if err then
    return nil, err
  end
  return K.op_wait("name.unregister", name, nil, K.encode_options({ scope = scope }))
end

-- Spawning ---------------------------------------------------------------------------------------------------

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
  M[name] = function(id, host, ...) return start("spawn", variant, nil, id, host, ...) end
  spawner_methods[name] = function(self, id, host, ...) return start("spawn", variant, self, id, host, ...) end
end
M.exec = function(id, host, ...) return start("exec", "", nil, id, host, ...) end
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
  local err = check_topic(topic)
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

function M.with_context(values) return new_spawner({ [CONTEXT] = K.merge({}, values, "with_context") }) end
function M.with_options(values) return new_spawner({ [OPTIONS] = K.merge({}, values, "with_options") }) end

--- Go on as a new run or in new code. Does not return: the unit ends here.
function M.upgrade(id, ...)
  local unit = K.current
  if id ~= nil and (raw.type(id) ~= "string" or id == "") then
    return nil, K.new_error("Invalid", "an entry ID or nil is required", false)
  end
  if unit.kind == "function" then
    return nil, internal("process.upgrade is not possible in a function call")
  end
  local request, failed = K.encode_request(nil, raw.select("#", ...), ...)
  if not request then
    return nil, failed
  end
  unit.finished = true
  -- A process keeps its messages itself (A.upgrade in kernel.lua); those of a workflow are recorded.
  local unread = unit.deterministic and K.unread(unit) or nil
  K.tell("end", "continue", request, K.encode({ entry = id or unit.entry_id, unread = unread }))
  K.park()
end

K.modules.process = M

-- workflow ---------------------------------------------------------------------------------------------------

local W = {}

function W.info()
  local unit = K.current
  if not unit.deterministic then
    return nil
  end
  local info = {}
  for k, v in raw.next, unit.info do
    info[k] = v
  end
  info.history_length, info.history_size = unit.history_length, unit.history_size
  return info
end

function W.exec(id, ...)
  local unit = K.current
  if not unit.deterministic then
    return nil, K.new_error("Invalid", "workflow.exec works in workflows only; use process.exec", false)
  end
  return start("exec", "", nil, id, unit.info.worker, ...)
end

--- Version of a change: recorded per run. The mark is looked up in the whole history, wherever it stands; a run
--- that passed here before the change existed (there is more history, and no mark) keeps `min`.
function W.version(change, min, max)
  if raw.type(change) ~= "string" or change == "" or #change > 100 then
    return K.invalid("change must be a text of 1 to 100 bytes")
  elseif raw.math.type(min) ~= "integer" or raw.math.type(max) ~= "integer" or min > max then
    return K.invalid("min and max must be integers, min not above max")
  end
  local unit = K.current
  if not unit.deterministic then
    return max
  end
  local version = unit.marks[change]
  if version == nil then
    version = unit.replaying and min or max
    unit.marks[change] = version
    K.tell("mark", change, K.encode_payload(version))
  end
  if raw.math.type(version) ~= "integer" then
    return nil, K.new_error("Invalid", "change " .. change .. " is recorded as something that is no version", false)
  elseif version < min or version > max then
    return nil, K.new_error("Invalid", "change " .. change .. " is recorded as version " .. version ..
      ", the code supports " .. min .. " to " .. max, false)
  end
  return version
end

function W.attrs(spec)
  if K.type(spec) ~= "table" then
    return K.invalid("a table with search and/or memo is required")
  end
  for _, name in raw.ipairs({ "search", "memo" }) do
    local values = spec[name]
    local fits = values == nil or K.type(values) == "table"
    for key in raw.next, fits and values or {} do
      fits = fits and raw.type(key) == "string"
    end
    if not fits then
      return K.invalid(name .. " must be a table with texts as keys")
    end
  end
  local bytes, err = K.encode({ search = spec.search, memo = spec.memo })
  if not bytes then
    return K.invalid("attributes cannot be stored: " .. err)
  end
  if K.current.deterministic then
    K.tell("attrs", "", bytes)
  end
  return true
end

function W.history_length() return K.current.deterministic and K.current.history_length or 0 end
function W.history_size() return K.current.deterministic and K.current.history_size or 0 end

K.modules.workflow = W
