-- 12.1 Timer `:reset(dur)` → bool: true while it runs, and the new duration counts from now.
local time = require("time")

return function()
  local timer = time.timer("1h")
  local before = time.now()
  check.is_true(timer:reset("15ms"))
  local at = check.receive(timer:channel())
  check.is_true(at:sub(before):milliseconds() >= 15)
end
