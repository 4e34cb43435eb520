-- 13.2 `ctx.all()` → table (maybe empty).
local funcs, ctx = require("funcs"), require("ctx")

return function()
  check.equal(ctx.all(), {})
  check.equal(funcs.call("lua.support:pure.context"), {})
  check.equal(funcs.new():with_context{ a = 1, b = "x" }:call("lua.support:pure.context"), { a = 1, b = "x" })
end
