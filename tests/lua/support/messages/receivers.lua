local time = require("time")
local M = {}

--- Waits for so long before it looks at its inbox; then the bodies of n messages are its result.
function M.subscribes_late(dur, n)
  time.sleep(dur)
  local inbox, got = process.inbox(), {}
  for i = 1, n do got[i] = inbox:receive():payload():data() end
  return got
end

--- The bodies of topic "item" until "done" comes; topic "item" is listened to, all else is in the inbox.
function M.gathers()
  local items, inbox, got = process.listen("item"), process.inbox(), {}
  while true do
    local r = channel.select{ items:case_receive(), inbox:case_receive() }
    if r.channel == inbox then return got end
    got[#got + 1] = r.value
  end
end

--- Where each message came out: {listener = {...}, inbox = {...}}, until topic "done" comes to the inbox.
function M.routes(topic)
  local listener, inbox = process.listen(topic), process.inbox()
  local got = { listener = {}, inbox = {} }
  while true do
    local r = channel.select{ listener:case_receive(), inbox:case_receive() }
    if r.channel == listener then
      table.insert(got.listener, r.value)
    elseif r.value:topic() == "done" then
      return got
    else
      table.insert(got.inbox, r.value:topic())
    end
  end
end

--- Sends every message on to another unit, bodies as they are.
function M.relays(to)
  local inbox = process.inbox()
  while true do
    local m = inbox:receive()
    if m:topic() == "stop" then return end
    process.send(to, m:topic(), m:payload() and m:payload():data())
  end
end

--- Whom its first message is from.
function M.says_sender()
  return process.inbox():receive():from()
end

return M
