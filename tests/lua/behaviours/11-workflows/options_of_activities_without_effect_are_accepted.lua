-- 11.5 The options that mean nothing here are accepted.
-- as: workflow
local funcs = require("funcs")

return function()
  local executor = funcs.new():with_options({
    ["activity.disable_eager_execution"] = true, ["activity.summary"] = "s", ["activity.priority"] = 1,
    ["activity.task_queue"] = "lua", ["activity.wait_for_cancellation"] = false,
  })
  check.equal(executor:call("lua.support:fn.echo", 1), 1)
end
