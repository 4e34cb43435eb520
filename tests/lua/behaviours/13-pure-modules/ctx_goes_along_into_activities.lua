-- 13.2 A workflow's `with_context` reaches its activities.
-- as: workflow
local funcs, ctx, time = require("funcs"), require("ctx"), require("time")

return function()
  check.equal(ctx.all(), {})
  time.sleep("1ms")
  local with = funcs.new():with_context{ tenant = "t1" }
  check.equal(with:call("lua.support:pure.context", "tenant"), { value = "t1" })
  check.equal(funcs.call("lua.support:pure.context", "tenant").kind, errors.NOT_FOUND)
end
