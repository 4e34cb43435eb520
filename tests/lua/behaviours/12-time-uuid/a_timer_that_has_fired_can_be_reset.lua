-- 12.1 Timer `:reset(dur)` → bool: false after it has fired, and it fires once more.
local time = require("time")

return function()
  local timer = time.timer("1ms")
  check.receive(timer:channel())
  check.is_false(timer:reset("1ms"))
  check.receive(timer:channel())
end
