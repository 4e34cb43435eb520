-- 12.1 Timer `:stop()` → bool, closes the channel.
local time = require("time")

return function()
  local timer = time.timer("20ms")
  check.is_true(timer:stop())
  check.closed(timer:channel())
  time.sleep("30ms")
  check.closed(timer:channel())
  check.is_false(timer:stop())
end
