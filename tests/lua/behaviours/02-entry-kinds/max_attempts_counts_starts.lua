-- 15 The restart counter counts starts, not restarts: `max_attempts: 3` is three starts in all (trap 19).
local funcs, time = require("funcs"), require("time")

return function()
  check.eventually(function() return funcs.call("lua.support:starts_of", "failing_three_times") == 3 end)
  time.sleep("40ms")
  check.equal(funcs.call("lua.support:starts_of", "failing_three_times"), 3)
end
