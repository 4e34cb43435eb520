-- 11.5 Without `wait_for_cancellation` the cancel of a future does not wait for the activity.
-- as: workflow
-- kill: never, because an activity whose owner is killed while it is cancelled may not be there any more
-- imports: wf=lua.support:wf.lib
local funcs = require("funcs")

return function()
  local key = check.unique("at_once")
  local future = funcs.async("lua.support:fn.lingers", "80ms", key)
  wf.noted(key, "begun")
  check.is_true(future:cancel())
  check.is_true(future:is_canceled())
  check.equal(funcs.call("lua.support:fn.attempts", key .. "-lingered"), 0)
  wf.noted(key, "lingered")
end
