-- 11.4 Timers are durable and can be stopped and reset like others.
-- as: workflow
local time = require("time")

return function()
  local timer = time.timer("1h")
  check.is_true(timer:reset("20ms"))
  check.type_is(check.receive(timer:channel(), "20s"), "userdata")
  local stopped = time.timer("1h")
  check.is_true(stopped:stop())
  check.is_false(stopped:stop())
  check.closed(stopped:channel(), "20s")
end
