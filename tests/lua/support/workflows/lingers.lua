-- Waits for an event, then sleeps a little before it ends with "lingered".
local time = require("time")
return { main = function(dur)
  process.events():receive()
  time.sleep(dur)
  return "lingered"
end }
