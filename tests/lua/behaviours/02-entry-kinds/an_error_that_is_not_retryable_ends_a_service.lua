-- 2.2 A service whose error says `retryable() == false` is not started again.
local funcs, time = require("funcs"), require("time")

return function()
  check.eventually(function() return funcs.call("lua.support:starts_of", "failing_for_good") == 1 end)
  time.sleep("40ms")
  check.equal(funcs.call("lua.support:starts_of", "failing_for_good"), 1)
end
