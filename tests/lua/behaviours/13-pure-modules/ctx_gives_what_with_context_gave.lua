-- 13.2 `ctx.get(key)` → `value, nil`: values come from `with_context`.
local funcs = require("funcs")

return function()
  local user = { id = 7, roles = { "a", "b" } }
  local with = funcs.new():with_context{ user = user, flag = false }
  check.equal(with:call("lua.support:pure.context", "user"), { value = user })
  check.equal(with:call("lua.support:pure.context", "flag"), { value = false })
end
