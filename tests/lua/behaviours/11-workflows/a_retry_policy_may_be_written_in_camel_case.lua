-- 11.6 The keys of a retry policy may be camelCase; intervals are milliseconds or texts.
-- as: workflow
-- kill: never, because an activity whose owner is killed may run once more
local funcs, time = require("funcs"), require("time")

return function()
  local key, before = check.unique("camel"), time.now()
  local policy = { initialInterval = 10, backoffCoefficient = 2, maximumInterval = "15ms", maximumAttempts = 3 }
  local executor = funcs.new():with_options({ ["activity.retry_policy"] = policy })
  local spec = { key = key, fails = 99, with = { message = "no", kind = "Unavailable" } }
  check.fails("Unavailable", "^no$", executor:call("lua.support:fn.attempt", spec))
  check.equal(funcs.call("lua.support:fn.attempts", key), 3)
  local taken = time.now():sub(before):milliseconds()
  check.is_true(taken >= 25 and taken < 5000)
end
