-- 12.1 `time.timer(dur)` → Timer, whose `response()` = `channel()` gets one Time.
local time = require("time")

return function()
  local before = time.now()
  local timer = time.timer("10ms")
  check.is_true(timer:response() == timer:channel())
  local at = check.receive(timer:channel())
  check.is_true(at:sub(before):milliseconds() >= 10)
  check.nothing(timer:channel(), "30ms")
end
