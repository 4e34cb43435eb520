-- 14.7 `queue.consumer` with `auto_ack`: a failure does not bring the message again.
local funcs = require("funcs")

return function()
  local handled = process.listen("handled")
  local body = { reply = process.pid(), settle = { "ack" }, fails = "too late" }
  check.is_true(funcs.call("lua.support:services.publish", "lua.support:services.notes", body))
  check.error_is(check.receive(handled).settled[1], errors.INVALID)
  check.nothing(handled, "60ms")
end
