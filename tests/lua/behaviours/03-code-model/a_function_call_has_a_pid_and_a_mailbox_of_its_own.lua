-- 3.1 A function call has its own PID and its own mailbox.
local funcs = require("funcs")

return function()
  local one, other = funcs.call("lua.support:pid"), funcs.call("lua.support:pid")
  check.is_true(one ~= process.pid())
  check.is_true(one ~= other)
  process.send(process.pid(), "mine", 1)
  check.is_true(funcs.call("lua.support:tell", process.pid(), "yours", 2))
  check.equal(check.receive(process.listen("mine")), 1)
  check.equal(check.receive(process.listen("yours")), 2)
end
