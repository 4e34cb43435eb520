-- The room: who is in it, and what they say. Everybody is a process somewhere on the mesh and is told by a message.

local logger = require("logger")

local HISTORY_LINES <const> = 20

local function main()
  local ok, err = process.registry.register("chat.room", process.pid(), process.registry.CONSISTENT)
  if not ok then
    error("cannot be the room: " .. err) -- the supervisor tries again
  end
  local names, history = {}, {}
  local inbox, events = process.inbox(), process.events()

  local function tell(text, except)
    history[#history + 1] = text
    if #history > HISTORY_LINES then
      table.remove(history, 1)
    end
    for pid in pairs(names) do
      if pid ~= except then
        process.send(pid, "line", text)
      end
    end
  end

  local function leave(pid)
    if names[pid] then
      local text = "* " .. names[pid] .. " left"
      names[pid] = nil
      tell(text)
    end
  end

  local topics = {}

  function topics.join(pid, name)
    for _, text in ipairs(history) do
      process.send(pid, "line", text)
    end
    process.monitor(pid) -- so that we hear of it however it ends
    names[pid] = name
    tell("* " .. name .. " joined", pid)
    logger:info("joined", { guest = name, from = pid })
  end

  function topics.say(pid, text)
    tell((names[pid] or "?") .. ": " .. text, pid)
  end

  function topics.leave(pid)
    process.unmonitor(pid)
    leave(pid)
    process.send(pid, "bye")
  end

  function topics.crash(pid)
    error((names[pid] or "?") .. " pulled the plug")
  end

  while true do
    local got = channel.select{ inbox:case_receive(), events:case_receive() }
    if got.channel == inbox then
      local message = got.value
      local body = message:payload()
      local handle = topics[message:topic()]
      if handle then
        handle(message:from(), body and body:data())
      end
    elseif got.value.kind == process.event.EXIT then
      leave(got.value.from)
    elseif got.value.kind == process.event.CANCEL then
      tell("* the room closes")
      return
    end
  end
end

return { main = main }
