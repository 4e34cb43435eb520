-- What has arrived at a unit and was not read yet: messages (`K.deliver_message`) and lifecycle events (`K.deliver_event`).
--
-- Of a unit, written here: mailbox, events, early_events; read: listeners, inbox, inbound.

local K = ...
local raw = K.raw

-- Limits of one look (`K.mailbox_facts`).
local TOPICS_MAX, MESSAGES_MAX = 100, 10000

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

--- A listener or the inbox came to be: hand over what waited for it, in order.
function K.reroute(unit)
  local waiting = unit.mailbox
  if waiting then
    unit.mailbox = nil
    for i = 1, #waiting do
      K.deliver_message(unit, waiting[i])
    end
  end
end

--- How many messages and events a process has that it has not read, with what was posted to it and has not reached it.
function K.count_unread(unit)
  local n = unit.mailbox and #unit.mailbox or 0
  if unit.inbox then
    n = n + K.channel_length(unit.inbox)
  end
  for _, listener in raw.next, unit.listeners or {} do
    n = n + K.channel_length(listener.channel) + (listener.held and 1 or 0)
  end
  if unit.events then
    n = n + K.channel_length(unit.events)
  elseif unit.early_events then
    n = n + #unit.early_events
  end
  local inbound = unit.inbound
  return n + (inbound.last - inbound.first + 1) // 4
end

--- Whether a process has so many unread messages that it takes no more. Counts them only when it may be so: what has
--- come since they were counted last is at least what there is more. Of a unit, written here: room.
function K.is_full(unit)
  local room = (unit.room or K.limits.unread) - 1
  if room < 0 then
    room = K.limits.unread - K.count_unread(unit) - 1
  end
  unit.room = raw.math.max(room, -1)
  return room < 0
end

--- What who sends to such a process is told.
function K.mailbox_full(pid)
  return K.new_error("Unavailable", raw.string.format(
    "mailbox full: process %s has %d messages that it has not read", pid, K.limits.unread), true)
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

--- What a unit listens to and has not read, for those who look; nothing is changed: {listens: topics, inbox, unread:
--- {{topic, messages, held}}, cut}. held: by the "listener" of the topic, by the "inbox", or by "nobody". cut: there is more.
function K.mailbox_facts(unit)
  local listens, unread, known, looked = {}, {}, { listener = {}, inbox = {}, nobody = {} }, 0
  local cut = false
  local function count(held, topic, n)
    local entry = known[held][topic]
    if entry then
      entry.messages = entry.messages + n
    elseif #unread >= TOPICS_MAX then
      cut = true
    elseif n > 0 then
      entry = { topic = topic, messages = n, held = held }
      known[held][topic], unread[#unread + 1] = entry, entry
    end
  end
  local function walk(held, list, first, last)
    for i = first, last do
      looked = looked + 1
      if looked > MESSAGES_MAX then
        cut = true
        return
      end
      local topic = K.message_parts(list[i])
      if raw.string.byte(topic, 1) ~= 64 then
        count(held, topic, 1)
      end
    end
  end
  local mailbox = unit.mailbox or {}
  walk("nobody", mailbox, 1, #mailbox)
  if unit.inbox then
    walk("inbox", K.channel_held(unit.inbox))
  end
  local topics = {}
  for topic, listener in raw.next, unit.listeners or {} do
    if raw.string.byte(topic, 1) ~= 64 and not K.channel_closed(listener.channel) then
      topics[#topics + 1] = topic
    end
  end
  raw.table.sort(topics)
  for i, topic in raw.ipairs(topics) do
    if i > TOPICS_MAX then
      cut = true
      break
    end
    listens[i] = topic
    local listener = unit.listeners[topic]
    count("listener", topic, K.channel_length(listener.channel) + (listener.held and 1 or 0))
  end
  return { listens = listens, inbox = unit.inbox ~= nil and not K.channel_closed(unit.inbox), unread = unread, cut = cut }
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
