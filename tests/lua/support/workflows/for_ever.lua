-- Sleeps a little, if it is told how long, and goes on as a new run, for ever.
local time = require("time")
return { main = function(dur)
  time.sleep(dur or "5ms")
  process.upgrade(nil, dur)
end }
