-- The command line: reads what you type, shows what the others say.
--
--   mesh run examples/chat -x chat:cli NAME

local io, time = require("io"), require("time")

local function find_room()
  while true do
    local room = process.registry.lookup("chat.room")
    if room and process.monitor(room) then
      return room
    end
    time.sleep("100ms")
  end
end

local function main(name)
  if not name then
    io.eprint("usage: mesh run APP -x chat:cli NAME")
    return 2
  end

  -- Reading a line waits, so it has a coroutine of its own.
  local typed = channel.new()
  coroutine.spawn(function()
    while true do
      local line = io.readline()
      if not line then
        break -- the end of the input, or Ctrl-C
      end
      typed:send(line)
    end
    typed:close()
  end)

  local heard, bye, events = process.listen("line"), process.listen("bye"), process.events()
  local room = find_room()
  process.send(room, "join", name)
  io.print("* you are in; /crash breaks the room, /quit or Ctrl-D leaves")

  while true do
    local got = channel.select{ heard:case_receive(), typed:case_receive(), bye:case_receive(), events:case_receive() }
    if got.channel == heard then
      io.print(got.value)
    elseif got.channel == typed then
      if not got.ok or got.value == "/quit" then
        process.send(room, "leave")
        typed = channel.new() -- nothing more from here
      elseif got.value == "/crash" then
        process.send(room, "crash")
      elseif got.value ~= "" then
        process.send(room, "say", got.value)
      end
    elseif got.channel == bye then
      return 0
    elseif got.value.kind == process.event.EXIT then
      io.print("* the room is gone, waiting for it")
      room = find_room()
      process.send(room, "join", name)
      io.print("* you are in again")
    elseif got.value.kind == process.event.CANCEL then
      process.send(room, "leave")
      return 130
    end
  end
end

return { main = main }
