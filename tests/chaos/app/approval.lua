-- An approval: waits for messages of several senders, each of which numbers its own, until one says that it was the
-- last, somebody asks to stop, or the time is over. Returns what it received, in the order in which it came.
--
--   approval = { id, limit_ms, topics }   topics: read from the topic "vote" and the inbox, else from the inbox alone

local time = require("time")

local function main(approval)
  local received = {}
  local inbox, events = process.inbox(), process.events()
  local votes = approval.topics and process.listen("vote") or nil
  local limit = time.after(approval.limit_ms .. "ms")
  local began = time.now()

  local function note(message)
    received[#received + 1] = { message.sender, message.n }
  end

  local function story(state)
    return {
      id = approval.id, state = state, received = received,
      waited_ms = time.now():sub(began):milliseconds(),
    }
  end

  while true do
    local cases = { inbox:case_receive(), limit:case_receive(), events:case_receive() }
    if votes then
      -- First in the list: a vote that is there is taken before the inbox says that it was the last.
      table.insert(cases, 1, votes:case_receive())
    end
    local ready = channel.select(cases)
    if ready.channel == votes then
      note(ready.value)
    elseif ready.channel == limit then
      return story("expired")
    elseif ready.channel == events then
      if ready.value.kind == process.event.CANCEL then
        return story("canceled")
      end
    else
      local message = ready.value:payload():data()
      if message.last then
        return story("closed")
      end
      note(message)
    end
  end
end

return { main = main }
