-- 11.5 A Lua crash counts as kind Internal, and is retried like another failure.
-- as: workflow
-- kill: never, because an activity whose owner is killed may run once more
local funcs = require("funcs")

return function()
  local executor = funcs.new():with_options({ retry_policy = { initial_interval = 2 } })
  check.equal(executor:call("lua.support:fn.attempt", { key = check.unique("crash"), fails = 2, with = "a crash" }), 3)
end
