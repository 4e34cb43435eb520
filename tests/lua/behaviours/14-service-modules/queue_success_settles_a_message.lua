-- 14.7 Success = ack: the message is gone.
local queue = require("queue")

return function()
  local handled = process.listen("handled")
  check.is_true(queue.publish("lua.support:services.jobs", { reply = process.pid() }))
  check.receive(handled)
  check.eventually(function() return queue.info("lua.support:services.jobs").message_count == 0 end)
  check.nothing(handled, "30ms")
end
