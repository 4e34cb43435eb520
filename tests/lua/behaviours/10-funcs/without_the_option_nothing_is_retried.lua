-- 10.3 Without `retry`, or with `max_attempts` of 1, a call is made once.
local funcs = require("funcs")

return function()
  local failure = { message = "no", kind = "Unavailable", retryable = true }
  local plain, once = check.unique("plain"), check.unique("once")
  check.fails("Unavailable", "^no$", funcs.call("lua.support:fn.attempt", { key = plain, fails = 9, with = failure }))
  check.equal(funcs.call("lua.support:fn.attempts", plain), 1)
  local executor = funcs.new():with_options({ retry = { max_attempts = 1, initial_delay = 1 } })
  check.fails("Unavailable", "^no$", executor:call("lua.support:fn.attempt", { key = once, fails = 9, with = failure }))
  check.equal(funcs.call("lua.support:fn.attempts", once), 1)
end
