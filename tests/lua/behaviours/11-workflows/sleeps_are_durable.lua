-- 11.4 `time.sleep` is a durable timer: it takes its time, whoever owns the workflow.
-- as: workflow
local time = require("time")

return function()
  local before = time.now()
  time.sleep("30ms")
  time.sleep("30ms")
  check.is_true(time.now():sub(before):milliseconds() >= 60)
end
