-- 11.5 The option `id` is the activity's id, as the details of its error tell (11.7).
-- as: workflow
local funcs = require("funcs")

return function()
  local executor = funcs.new():with_options({ ["activity.id"] = "charge-7" })
  local _, err = executor:call("lua.support:fn.fail", { message = "no", kind = "Conflict", retryable = false })
  check.equal(err:details()._activity_id, "charge-7")
end
