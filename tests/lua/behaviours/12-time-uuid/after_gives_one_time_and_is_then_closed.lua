-- 12.1 `time.after(dur)` → channel: one Time, then closed.
local time = require("time")

return function()
  local before = time.now()
  local ch = time.after("15ms")
  local at = check.receive(ch)
  check.type_is(at, "userdata")
  check.is_true(at:sub(before):milliseconds() >= 15)
  check.closed(ch)
  check.closed(ch)
end
