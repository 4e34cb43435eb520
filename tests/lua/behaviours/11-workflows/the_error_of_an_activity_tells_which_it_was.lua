-- 11.7 To the details of an activity's error are added `_wrapper`, `_activity_id` and `_retry_state`; all else is the same.
-- as: workflow
local funcs = require("funcs")

return function()
  local failure = { message = "no", kind = "Conflict", retryable = false, details = { mine = { 1 } } }
  local _, err = funcs.call("lua.support:fn.fail", failure)
  check.error_is(err, "Conflict", "^no$", false)
  local details = err:details()
  check.equal(details.mine, { 1 })
  check.equal(details._wrapper, "activity")
  check.type_is(details._activity_id, "string")
  check.type_is(details._retry_state, "string")
end
