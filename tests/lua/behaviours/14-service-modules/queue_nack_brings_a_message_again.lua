-- 14.7 Message `:nack()`: it comes again although the handler succeeded.
local funcs = require("funcs")

return function()
  local handled = process.listen("handled")
  local body = { reply = process.pid(), settle = { "nack" } }
  check.is_true(funcs.call("lua.support:services.publish", "lua.support:services.tasks", body))
  local first = check.receive(handled)
  check.is_true(first.settled[1])
  check.equal(check.receive(handled).id, first.id)
end
