-- 10.1 `with_options` of an Executor replaces all options it had (trap 6).
local funcs = require("funcs")

return function()
  local again = funcs.new():with_options({ retry = { max_attempts = 3, initial_delay = 1 } })
  local spec = { key = check.unique("replaced"), fails = 1, with = { message = "no", kind = "Unavailable" } }
  check.fails("Unavailable", "^no$", again:with_options({ timeout = "5s" }):call("lua.support:fn.attempt", spec))
  spec.key = check.unique("kept")
  check.equal(again:call("lua.support:fn.attempt", spec), 2)
end
