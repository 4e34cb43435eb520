-- Sleeps, looks at nothing, and gives a value.
local time = require("time")
return { main = function(dur, value)
  time.sleep(dur)
  return value
end }
