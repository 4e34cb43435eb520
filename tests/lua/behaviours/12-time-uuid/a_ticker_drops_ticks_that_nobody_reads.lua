-- 12.1 A ticker's channel has a buffer of 16; surplus ticks are dropped.
local time = require("time")

return function()
  local ticker = time.ticker("1ms")
  time.sleep("600ms") -- ticks that a busy machine has missed do not come later
  ticker:stop()
  local ticks = 0
  while select(2, ticker:channel():receive()) do ticks = ticks + 1 end
  check.equal(ticks, 16)
end
