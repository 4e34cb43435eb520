-- 10.3 The options are those of `call` and `async`: a future gets the outcome of the last attempt.
local funcs = require("funcs")

return function()
  local executor = funcs.new():with_options({ retry = { max_attempts = 2, initial_delay = 1 } })
  local spec = { key = check.unique("async"), fails = 1, with = { message = "no", kind = "Timeout" } }
  check.equal(check.receive(executor:async("lua.support:fn.attempt", spec):channel()):data(), 2)
end
