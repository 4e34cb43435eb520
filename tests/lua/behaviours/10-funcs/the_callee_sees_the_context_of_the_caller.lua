-- 10.2 The callee sees all context values of the caller, and they go on to whatever it calls.
local funcs = require("funcs")

return function()
  local executor = funcs.new():with_context({ user = "ada" })
  check.equal(executor:call("lua.support:fn.relay", "lua.support:fn.context"), { user = "ada" })
  check.equal(executor:call("lua.support:fn.relay", "lua.support:fn.relay", "lua.support:fn.context"), { user = "ada" })
end
