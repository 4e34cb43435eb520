-- `events`: what happens in an app, told to whoever listens (contract section 14.3).
--
-- Responsible for: subscriptions and their channels. Which events a subscription gets is decided by the node
-- (`node.modules.events`); each arrives as a message with the internal topic "@events:<number>".
--
-- A slow subscriber loses events: a channel holds 64, and what finds it full is dropped, with one line in the log for
-- each time the channel fills up. Nothing else waits for it, neither the sender nor the other subscribers.

local K = ...
local raw = K.raw

local BUFFER = 64
local PREFIX = "@events:"

local CHANNEL, TOPIC, NUMBER, CLOSED = K.key("channel"), K.key("topic"), K.key("number"), K.key("closed")

local methods = {}
local new_subscription = K.class("events.Subscription", methods, {
  __tostring = function(s) return s[CLOSED] and "events.Subscription{closed}" or "events.Subscription{}" end,
})

local deliver_message = K.deliver_message

-- Events never reach the mailbox: one for a subscription that is closed by now is for nobody.
function K.deliver_message(unit, message)
  local topic = K.message_parts(message)
  if raw.string.sub(topic, 1, #PREFIX) ~= PREFIX then
    return deliver_message(unit, message)
  end
  local listener = unit.listeners and unit.listeners[topic]
  if not listener or K.channel_closed(listener.events) then
    return
  elseif K.channel_offer(listener.events, K.message_value(message)) then
    listener.full = false
  elseif not listener.full then
    listener.full = true
    K.log("warn", "events.subscribe(" .. listener.pattern .. "): the channel holds " .. BUFFER ..
      " events that nobody has read; further ones are dropped until it is read")
  end
end

-- The unit listens from the moment it is told its number, not before: what was sent until then is not for it.
local function opened(unit, number, pattern)
  local topic = PREFIX .. raw.tostring(number)
  local ch = K.new_channel(BUFFER)
  unit.listeners = unit.listeners or {}
  -- `channel` is that of ordinary listeners: never filled, and not the one `unlisten` could be given.
  unit.listeners[topic] = { channel = K.new_channel(0), events = ch, full = false, pattern = pattern }
  return new_subscription({ [CHANNEL] = ch, [TOPIC] = topic, [NUMBER] = number, [CLOSED] = false })
end

local function payload(...)
  return "\xC1" .. K.encode_list(raw.select("#", ...), ...)
end

local M = {}

--- The events that fit; a pattern is a text, a text with `*` at its end (prefix), or absent or `*` (all).
function M.subscribe(system, kind)
  if system == nil then
    system = "*"
  end
  if kind == nil then
    kind = "*"
  end
  K.expect(system, "string", 1, "subscribe")
  K.expect(kind, "string", 2, "subscribe")
  if system == "" then
    return K.invalid("events.subscribe: system must not be empty; leave it out, or write *, for all systems")
  elseif kind == "" then
    return K.invalid("events.subscribe: kind must not be empty; leave it out, or write *, for all kinds")
  end
  local unit, task = K.current, K.current.task
  K.op("ask", "events.subscribe", payload(system, kind), nil, function(ok, value)
    if ok then
      K.wake(task, opened(unit, value, '"' .. system .. '", "' .. kind .. '"'), nil)
    else
      K.wake(task, nil, value)
    end
  end)
  return K.park()
end

--- Tell an event to all live subscribers of this node; with `{ mesh = true }` to those of every node.
function M.send(system, kind, path, data, options)
  K.expect(system, "string", 1, "send")
  K.expect(kind, "string", 2, "send")
  K.expect(path, "string", 3, "send")
  if system == "" or kind == "" or path == "" then
    return K.invalid("events.send: system, kind and path must not be empty")
  end
  local mesh = false
  if options ~= nil then
    K.expect(options, "table", 5, "send")
    for name, value in raw.next, options do
      if name ~= "mesh" then
        return K.invalid("events.send: option " .. K.tostring(name) .. " is not known; there is mesh")
      elseif raw.type(value) ~= "boolean" then
        return K.invalid("events.send: mesh must be true or false")
      end
      mesh = value
    end
  end
  return K.ask("events.send", system, kind, path, data, mesh)
end

function methods:channel() return self[CHANNEL] end

--- End the subscription; what its channel holds can still be read. Closing twice is fine.
function methods:close()
  if not self[CLOSED] then
    self[CLOSED] = true
    local unit = K.current
    -- A subscription may outlive its unit's call in a file-level local; then there is nothing left to end.
    if unit.listeners and unit.listeners[self[TOPIC]] then
      unit.listeners[self[TOPIC]] = nil
      if raw.next(unit.listeners) == nil then
        unit.listeners = nil
      end
      K.op("ask", "events.close", payload(self[NUMBER]), nil, function() end)
    end
    K.channel_close(self[CHANNEL])
  end
  return true
end

K.modules.events = M
