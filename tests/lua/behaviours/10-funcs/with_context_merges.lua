-- 10.1 `with_context` adds to the values that an Executor has; the newer value of a key wins.
local funcs = require("funcs")

return function()
  local executor = funcs.new():with_context({ a = 1, b = 1 }):with_context({ b = 2, c = { deep = true } })
  check.equal(executor:call("lua.support:fn.context"), { a = 1, b = 2, c = { deep = true } })
end
