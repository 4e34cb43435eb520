-- 12.1 Timer `:stop()` → bool: false when there is nothing left to stop.
local time = require("time")

return function()
  local timer = time.timer("1ms")
  check.receive(timer:channel())
  check.is_false(timer:stop())
  check.closed(timer:channel())
end
