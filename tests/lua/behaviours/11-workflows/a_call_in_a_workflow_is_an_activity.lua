-- 11.4 `funcs.call` in a workflow is an activity: its result is recorded, so it does not run again in a replay.
-- as: workflow
-- kill: never, because an activity whose owner is killed may run again
local time, funcs = require("time"), require("funcs")

return function()
  local key = check.unique("once")
  check.equal(funcs.call("lua.support:fn.attempt", { key = key, fails = 0 }), 1)
  time.sleep("10ms")
  check.equal(funcs.call("lua.support:fn.attempts", key), 1)
end
