-- 10.3 `timeout` is not enforced and `activity.*` means nothing outside of workflows.
local funcs = require("funcs")

return function()
  local executor = funcs.new():with_options({ timeout = 1, ["activity.start_to_close_timeout"] = 1, other = { a = 1 } })
  check.equal(executor:call("lua.support:fn.deaf", "20ms"), "slept")
end
