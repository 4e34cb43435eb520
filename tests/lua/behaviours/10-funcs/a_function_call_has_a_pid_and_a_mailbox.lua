-- 10.1 A function call is a unit with its own PID and mailbox (3.1): it can be sent to like a process.
local funcs = require("funcs")

return function()
  local one, other = funcs.call("lua.support:fn.whoami"), funcs.call("lua.support:fn.whoami")
  check.is_false(one == other)
  check.is_false(one == process.pid())
  local future = funcs.async("lua.support:fn.mailbox", process.pid())
  local there = check.receive(process.listen("here"))
  check.is_true(process.send(there, "greeting", { 1 }))
  check.equal(check.receive(future:channel()):data(), { "greeting", { 1 } })
end
