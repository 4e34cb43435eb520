-- 10.3 `max_delay` bounds each delay.
local funcs, time = require("funcs"), require("time")

return function()
  local retry = { max_attempts = 3, initial_delay = "1m", max_delay = "20ms", jitter = 0 }
  local spec = { key = check.unique("max"), fails = 2, with = { message = "no", kind = "Unavailable" } }
  local before = time.now()
  check.equal(funcs.new():with_options({ retry = retry }):call("lua.support:fn.attempt", spec), 3)
  local taken = time.now():sub(before):milliseconds()
  check.is_true(taken >= 40 and taken < 20000)
end
