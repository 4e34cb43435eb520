-- 10.3 If `retry_kinds` is given, only those kinds are retried, and these may be any.
local funcs = require("funcs")

return function()
  local executor = funcs.new():with_options({ retry = { max_attempts = 2, initial_delay = 1, retry_kinds = { "Internal" } } })
  local crash, other = check.unique("crash"), check.unique("other")
  check.equal(executor:call("lua.support:fn.attempt", { key = crash, fails = 1, with = "a crash" }), 2)
  check.fails("Unavailable", nil,
    executor:call("lua.support:fn.attempt", { key = other, fails = 9, with = { message = "no", kind = "Unavailable" } }))
  check.equal(funcs.call("lua.support:fn.attempts", other), 1)
end
