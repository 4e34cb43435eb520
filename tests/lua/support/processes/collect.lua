-- Returns the first messages it gets, as a list of {topic, from, data}; data of several bodies is a list.
--   count   how many
--   pause   subscribe only after so long
local time = require("time")

local function data_of(payload)
  if type(payload) ~= "table" then return payload and payload:data() end
  local list = {}
  for i, one in ipairs(payload) do list[i] = one:data() end
  return list
end

return { main = function(count, pause)
  if pause then time.sleep(pause) end
  local list, inbox = {}, process.inbox()
  for i = 1, count do
    local message = inbox:receive()
    list[i] = { topic = message:topic(), from = message:from(), data = data_of(message:payload()) }
  end
  return list
end }
