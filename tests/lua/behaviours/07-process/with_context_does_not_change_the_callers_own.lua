-- 7.2 Context values of a spawner are the child's: the caller and its other children do not see them.
local ctx = require("ctx")

return function()
  process.with_context{ a = 1 }:exec("lua.support:about", "lua.support:processes")
  check.equal(ctx.all(), {})
  check.equal(process.exec("lua.support:about", "lua.support:processes").context, {})
end
