-- 11.4 `time.after` is a durable timer: one Time, then closed.
-- as: workflow
local time = require("time")

return function()
  local before = time.now()
  local ch = time.after("30ms")
  local at = check.receive(ch, "20s")
  check.is_true(at:sub(before):milliseconds() >= 30)
  check.closed(ch, "20s")
end
