-- 10.3 Delays: a number is milliseconds (trap 17), a text a duration; each delay is the one before times `backoff_factor`.
local funcs, time = require("funcs"), require("time")

local function taken(retry)
  local spec = { key = check.unique("delays"), fails = 2, with = { message = "no", kind = "Unavailable" } }
  local before = time.now()
  check.equal(funcs.new():with_options({ retry = retry }):call("lua.support:fn.attempt", spec), 3)
  return time.now():sub(before):milliseconds()
end

return function()
  check.is_true(taken({ max_attempts = 3, initial_delay = 20, backoff_factor = 3, jitter = 0 }) >= 80)
  check.is_true(taken({ max_attempts = 3, initial_delay = "20ms", backoff_factor = 1, jitter = 0 }) >= 40)
end
