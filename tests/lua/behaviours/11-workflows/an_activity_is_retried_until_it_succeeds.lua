-- 11.5 A failed activity is tried again without limit; an error that says nothing of `retryable` is retried, too (trap 4).
-- as: workflow
-- kill: never, because an activity whose owner is killed may run once more
local funcs = require("funcs")

return function()
  local executor = funcs.new():with_options({ ["activity.retry_policy"] = { initial_interval = 2, backoff_coefficient = 1, maximum_attempts = 0 } })
  local spec = { key = check.unique("retried"), fails = 4, with = { message = "no", kind = "Invalid" } }
  check.equal(executor:call("lua.support:fn.attempt", spec), 5)
end
