-- A guest that answers. It is as good as its room: when that ends, the bot fails, and the supervisor starts it again.

local answers = {
  ["!help"] = function() return "I know !help, !time and !dice" end,
  ["!time"] = function() return "it is " .. os.date("%H:%M") end,
  ["!dice"] = function() return "you rolled " .. math.random(6) end,
}

local function main()
  local room, err = process.registry.lookup("chat.room")
  if not room then
    error("no room: " .. err)
  end
  process.monitor(room)
  process.send(room, "join", "bot")
  local heard, events = process.listen("line"), process.events()
  while true do
    local got = channel.select{ heard:case_receive(), events:case_receive() }
    if got.channel == heard then
      local name, text = string.match(got.value, "^(%w+): (.*)$")
      local answer = name and answers[text]
      if answer then
        process.send(room, "say", answer())
      end
    elseif got.value.kind == process.event.EXIT then
      error("the room is gone")
    elseif got.value.kind == process.event.CANCEL then
      return
    end
  end
end

return { main = main }
