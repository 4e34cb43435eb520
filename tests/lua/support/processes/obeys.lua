-- Returns the reason of the first CANCEL.
--   pause   call events() only after so long
local time = require("time")

return { main = function(pause)
  if pause then time.sleep(pause) end
  local events = process.events()
  while true do
    local event = events:receive()
    if event.kind == process.event.CANCEL then return event.reason end
  end
end }
