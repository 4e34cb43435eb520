-- 11.4 `time.after`, `time.timer` and `time.ticker` are durable timers in a workflow.
-- as: workflow
local time = require("time")

return function()
  local start = time.now()
  local after, timer, ticker = time.after("30ms"), time.timer("1h"), time.ticker("20ms")
  check.is_true(timer:reset("10ms"))
  check.is_true(timer:channel():receive():sub(start):milliseconds() >= 10)
  local at, ok = after:receive()
  check.is_true(ok)
  check.is_true(at:sub(start):milliseconds() >= 30)
  check.equal({ after:receive() }, { nil, false })
  ticker:channel():receive()
  check.is_true(ticker:channel():receive():sub(start):milliseconds() >= 40)
  check.is_true(ticker:stop())
  check.is_false(timer:stop())
end
