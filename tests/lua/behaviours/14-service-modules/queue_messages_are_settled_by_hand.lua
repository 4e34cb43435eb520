-- 14.7 Message: `ack() nack()`; settling twice → `nil, Invalid`.
local queue = require("queue")

return function()
  local handled = process.listen("handled")
  -- Acknowledged, the failure that follows does not matter any more.
  queue.publish("lua.support:services.jobs", { reply = process.pid(), settle = { "ack", "ack", "nack" }, fails = "late" })
  local told = check.receive(handled)
  check.is_true(told.settled[1])
  check.error_is(told.settled[2], errors.INVALID)
  check.error_is(told.settled[3], errors.INVALID)
  check.nothing(handled, "60ms")
end
