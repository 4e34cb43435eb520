-- 11.5 `schedule_to_start_timeout` bounds how long an activity waits for somebody to run it.
-- as: workflow
-- kill: never, because several nodes run several calls at a time
-- imports: wf=lua.support:wf.lib
local funcs = require("funcs")

return function()
  local key = check.unique("busy")
  funcs.async("lua.support:fn.one_at_a_time", "3s", key)
  wf.noted(key, "begun")
  local executor = funcs.new():with_options({ ["activity.schedule_to_start_timeout"] = 50 })
  local value, err = executor:call("lua.support:fn.one_at_a_time", "1ms")
  check.is_nil(value)
  check.error_is(err, "Timeout", nil, false)
  check.matches(err:details().timeout_type:lower():gsub("_", ""), "^scheduletostart$")
end
