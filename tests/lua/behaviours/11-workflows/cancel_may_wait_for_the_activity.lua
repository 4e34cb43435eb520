-- 11.5 With `wait_for_cancellation` the cancel of a future returns after the activity has ended.
-- as: workflow
-- kill: never, because an activity whose owner is killed while it is cancelled may not be there any more
-- imports: wf=lua.support:wf.lib
local funcs = require("funcs")

return function()
  local key = check.unique("waited")
  local executor = funcs.new():with_options({ ["activity.wait_for_cancellation"] = true })
  local future = executor:async("lua.support:fn.lingers", "30ms", key)
  wf.noted(key, "begun")
  check.is_true(future:cancel())
  check.equal(funcs.call("lua.support:fn.attempts", key .. "-lingered"), "lingered")
  check.is_true(future:is_canceled())
  check.fails("Canceled", "^canceled$", future:result())
  check.closed(future:channel())
end
