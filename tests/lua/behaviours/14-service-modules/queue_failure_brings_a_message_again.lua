-- 14.7 Error = nack: the message is handled again, and it is the same one.
local queue, funcs = require("queue"), require("funcs")

return function()
  local handled = process.listen("handled")
  local body = { reply = process.pid(), fails = "not today" }
  check.is_true(funcs.call("lua.support:services.publish", "lua.support:services.tasks", body))
  local first = check.receive(handled)
  check.equal(check.receive(handled).id, first.id)
end
