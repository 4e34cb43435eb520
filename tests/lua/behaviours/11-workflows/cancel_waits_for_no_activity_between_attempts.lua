-- 11.5 With `wait_for_cancellation` an activity that waits for its next attempt has nothing to end: the cancel returns.
-- as: workflow
-- kill: never, because a takeover would begin the attempt at once
-- imports: wf=lua.support:wf.lib
local funcs = require("funcs")

return function()
  local key = check.unique("pause")
  local executor = funcs.new():with_options({
    ["activity.wait_for_cancellation"] = true, ["activity.retry_policy"] = { initial_interval = "1h" },
  })
  local future = executor:async("lua.support:fn.attempt", { key = key, fails = 9, with = { message = "no" } })
  check.eventually(function() return funcs.call("lua.support:fn.attempts", key) == 1 end)
  check.is_true(future:cancel())
  check.is_true(future:is_canceled())
  check.equal(funcs.call("lua.support:fn.attempts", key), 1)
end
