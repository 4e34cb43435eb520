-- 10.3 With `max_attempts` above 1 a failed call is made again, at most so many times in all; the last error is the result.
local funcs = require("funcs")

return function()
  local executor = funcs.new():with_options({ retry = { max_attempts = 3, initial_delay = 1, jitter = 0 } })
  local key, hopeless = check.unique("third"), check.unique("hopeless")
  local failure = { message = "no", kind = "Unavailable", details = { a = 1 } }
  check.equal(executor:call("lua.support:fn.attempt", { key = key, fails = 2, with = failure }), 3)
  local err = check.fails("Unavailable", "^no$",
    executor:call("lua.support:fn.attempt", { key = hopeless, fails = 99, with = failure }))
  check.equal(err:details(), { a = 1 })
  check.equal(funcs.call("lua.support:fn.attempts", hopeless), 3)
end
