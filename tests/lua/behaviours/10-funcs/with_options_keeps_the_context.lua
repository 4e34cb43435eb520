-- 10.1 Options and context of an Executor do not touch each other; actor and scope are carried.
local funcs = require("funcs")

return function()
  local executor = funcs.new():with_context({ a = 1 }):with_options({ timeout = 5000 }):with_actor("ada"):with_scope("all")
  check.equal(executor:call("lua.support:fn.context").a, 1)
end
