-- Sleeps and says what the clock showed before and after, in nanoseconds.

local time = require("time")

local function main(length)
  local before = time.now():unix_nano()
  time.sleep(length)
  return { before_ns = before, after_ns = time.now():unix_nano() }
end

return { main = main }
