-- `process`: who a unit is, what it listens to, sending and control (contract sections 7 to 9). Names and starting are in
-- names.lua and spawner.lua.
--
-- Of a unit, written here: inbox, listeners, events, trap_links.

local K = ...
local raw = K.raw

local M = { event = { CANCEL = "pid.cancel", EXIT = "pid.exit", LINK_DOWN = "pid.link.down" } }

function M.id() return K.current.entry_id end
function M.pid() return K.current.pid end

function M.get_options() return { trap_links = K.current.trap_links or false } end

function M.set_options(options)
  if K.current.deterministic then
    return false, K.new_error("Internal", "process.set_options not supported in workflow context", false)
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
    K.reroute(unit)
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

--- What is wrong with a topic, as an Error, or nil.
local function check_topic(topic)
  if raw.type(topic) ~= "string" or topic == "" then
    return K.new_error("Invalid", "topic must be a non-empty text", false)
  elseif raw.string.byte(topic, 1) == 64 then
    return K.new_error("Invalid", "topics that begin with @ are reserved", false)
  end
  return nil
end

K.check_topic = check_topic

function M.listen(topic, options)
  local err = check_topic(topic)
  if err then
    return nil, err
  end
  if options ~= nil and raw.type(options) ~= "table" then
    K.raise("bad argument #2 to 'listen' (table expected, got " .. K.type(options) .. ")")
  end
  local unit = K.current
  unit.listeners = unit.listeners or {}
  local listener = unit.listeners[topic]
  if not listener then
    local as_message = options ~= nil and options.message == true
    listener = { channel = K.new_channel(raw.math.huge, not as_message and K.plain_message or nil) }
    unit.listeners[topic] = listener
    K.reroute(unit)
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

--- `subscribe(topic, ch)`: listen with a channel of the caller's, of any size. A task hands on what arrives, so nothing is
--- dropped when it is full.
function K.globals.subscribe(topic, ch)
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
  K.reroute(unit)
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

--- `unsubscribe(ch)`: as unlisten.
function K.globals.unsubscribe(ch)
  return M.unlisten(ch)
end

function M.send(dest, topic, ...)
  if raw.type(dest) ~= "string" or dest == "" then
    return nil, K.new_error("Invalid", "destination required", false)
  end
  local err = check_topic(topic)
  if err then
    return nil, err
  end
  local n, unit = raw.select("#", ...), K.current
  local receiver = unit.kind == "process" and K.neighbour(dest)
  if receiver and K.is_full(receiver) then
    return nil, K.mailbox_full(receiver.pid)
  end
  local bodies = receiver and K.copy_bodies(n, ...)
  if not bodies then
    local failed
    bodies, failed = K.encode_bodies(n, ...)
    if not bodies then
      return nil, K.new_error("Invalid", "message cannot be sent: " .. failed, false)
    end
  end
  if receiver then
    K.post(receiver, "message", topic, bodies, unit.pid)
    return true, nil
  end
  return K.op_wait("send", dest, bodies, K.encode_options({ topic = topic }))
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
      local text = "process." .. name
        .. " not supported in workflow context; a child's EXIT arrives in process.events() without asking"
      return nil, K.new_error("Internal", text, false)
    end
    local err = check_dest(dest)
    if err then
      return nil, err
    end
    return K.op_wait(name, dest)
  end
end

K.modules.process = M
