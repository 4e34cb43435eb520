-- 11.5 `future:cancel()` requests the cancellation of the activity: it gets a CANCEL event.
-- as: workflow
-- kill: never, because an activity whose owner is killed while it is cancelled may not be there any more
-- imports: wf=lua.support:wf.lib
local funcs = require("funcs")

return function()
  local key = check.unique("activity")
  local future = funcs.async("lua.support:fn.sleep", "10s", key)
  wf.noted(key, "begun")
  check.is_true(future:cancel())
  check.is_true(future:is_canceled())
  wf.noted(key, "canceled")
end
