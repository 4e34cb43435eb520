-- 11.4 What an activity gave is recorded: after a replay it is the same value, whatever it would give now.
-- as: workflow
local funcs, time = require("funcs"), require("time")

return function()
  local who = funcs.call("lua.support:fn.whoami")
  check.equal(funcs.call("lua.support:fn.echo", who), who)
  time.sleep("10ms")
  check.equal(funcs.call("lua.support:fn.echo", who), who)
  check.is_false(funcs.call("lua.support:fn.whoami") == who)
end
