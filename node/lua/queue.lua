-- `queue`: publishing to message queues, and the message a consumer's handler was called with (contract 14.7). Queues and
-- consumers are in `node.modules.queue`.
--
-- A consumer calls its function with the message under a context key that only the platform can set (K.reserved).

local K = ...
local raw = K.raw

local HANDLE, SETTLED = K.key("handle"), K.key("settled")

local function check_queue(id)
  if raw.type(id) ~= "string" or id == "" then
    return K.new_error("Invalid", "the id of a queue is required", false)
  end
  return nil
end

local function publish(id, data, headers)
  local err = check_queue(id)
  if err then
    return nil, err
  elseif data == nil or K.type(data) == "table" and raw.next(data) == nil then
    return K.invalid("there is no data to publish")
  elseif headers ~= nil and K.type(headers) ~= "table" then
    return K.invalid("headers must be a table, not a " .. K.type(headers))
  end
  local texts = {}
  for name, value in K.ordered_pairs(headers or {}) do
    local kind = K.type(value)
    if raw.type(name) ~= "string" then
      return K.invalid("headers must have texts as names, not a " .. K.type(name))
    elseif kind ~= "string" and kind ~= "number" and kind ~= "boolean" then
      return K.invalid("header " .. name .. " must be a text, a number or a boolean, not a " .. kind)
    end
    texts[name] = K.tostring(value)
  end
  return K.ask("queue.publish", id, data, texts)
end

local function info(id)
  local err = check_queue(id)
  if err then
    return nil, err
  end
  return K.ask("queue.info", id)
end

-- Messages -----------------------------------------------------------------------------------------------------

local message_methods = {}
local new_message = K.class("queue.Message", message_methods, {
  __tostring = function(m) return "queue.Message{" .. m[HANDLE].id .. "}" end,
})

function message_methods:id() return self[HANDLE].id end

function message_methods:header(name)
  return self[HANDLE].headers[name]
end

function message_methods:headers()
  local copy = {}
  for name, value in raw.next, self[HANDLE].headers do
    copy[name] = value
  end
  return copy
end

for _, how in raw.ipairs({ "ack", "nack" }) do
  message_methods[how] = function(self)
    if self[SETTLED] then
      return K.invalid("the message is settled already")
    end
    local handle = self[HANDLE]
    local ok, err = K.ask("queue.settle", handle.node, handle.delivery, how)
    if ok or err:kind() == "Invalid" then
      self[SETTLED] = true
    end
    return ok, err
  end
end

local function message()
  local handle = K.reserved("@queue.message")
  if raw.type(handle) ~= "table" or raw.type(handle.id) ~= "string" or raw.type(handle.headers) ~= "table" then
    return K.invalid("there is no message here: queue.message() works in the function of a queue.consumer")
  end
  local unit = K.current
  if unit.queue_handle ~= handle then -- a pooled unit serves one message after the other
    unit.queue_handle, unit.queue_message = handle, new_message({ [HANDLE] = handle, [SETTLED] = false })
  end
  return unit.queue_message
end

K.modules.queue = { publish = publish, info = info, message = message }
