-- 10.1 An Executor has `call` and `async`, with the same results and errors.
local funcs = require("funcs")

return function()
  local executor = funcs.new()
  check.equal(executor:call("lua.support:fn.echo", 1, 2), { n = 2, 1, 2 })
  check.equal(check.receive(executor:async("lua.support:fn.echo", "x"):channel()):data(), "x")
  check.fails("Invalid", "^function ID required$", executor:call(""))
  check.fails("Invalid", "^namespace required in function ID$", executor:async("x"))
end
