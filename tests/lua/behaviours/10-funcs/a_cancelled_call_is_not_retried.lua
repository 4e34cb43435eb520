-- 10.3 A cancelled call is never retried.
local funcs, time = require("funcs"), require("time")

return function()
  local key = check.unique("cancelled")
  local executor = funcs.new():with_options({ retry = { max_attempts = 9, initial_delay = "40ms" } })
  local future = executor:async("lua.support:fn.attempt", { key = key, fails = 99, with = { message = "no", kind = "Timeout" } })
  check.eventually(function() return funcs.call("lua.support:fn.attempts", key) >= 1 end)
  future:cancel()
  time.sleep("20ms") -- for an attempt that was under way
  local attempts = funcs.call("lua.support:fn.attempts", key)
  time.sleep("60ms")
  check.equal(funcs.call("lua.support:fn.attempts", key), attempts)
end
