-- 10.2 Over the caller's values those of `with_context` win; the caller's own stay.
-- as: workflow
local funcs = require("funcs")

return function()
  local outer = funcs.new():with_context({ user = "ada", team = "core" })
  local inner = outer:with_context({ user = "bob" })
  check.equal(inner:call("lua.support:fn.relay", "lua.support:fn.context"), { user = "bob", team = "core" })
  check.equal(outer:call("lua.support:fn.context"), { user = "ada", team = "core" })
  check.equal(funcs.call("lua.support:fn.context"), {})
end
