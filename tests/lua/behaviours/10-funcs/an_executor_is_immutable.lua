-- 10.1 Each method of an Executor gives a new one; the old one stays as it was.
local funcs = require("funcs")

return function()
  local plain = funcs.new()
  local with = plain:with_context({ user = "ada" })
  check.is_false(plain == with)
  check.is_nil(plain:call("lua.support:fn.context").user)
  check.equal(with:call("lua.support:fn.context").user, "ada")
  local more = with:with_context({ team = "core" })
  check.is_nil(with:call("lua.support:fn.context").team)
  check.equal(more:call("lua.support:fn.context").team, "core")
end
