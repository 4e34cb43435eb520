-- 11.5 `schedule_to_close_timeout` bounds all attempts together.
-- as: workflow
local funcs = require("funcs")

return function()
  local executor = funcs.new():with_options({
    ["activity.schedule_to_close_timeout"] = "60ms", ["activity.retry_policy"] = { initial_interval = 10, backoff_coefficient = 1 },
  })
  local spec = { key = check.unique("all"), fails = 100000, with = { message = "no", kind = "Unavailable" } }
  local value, err = executor:call("lua.support:fn.attempt", spec)
  check.is_nil(value)
  check.error_is(err, "Timeout", nil, false)
  check.matches(err:details().timeout_type:lower():gsub("_", ""), "^scheduletoclose$")
end
