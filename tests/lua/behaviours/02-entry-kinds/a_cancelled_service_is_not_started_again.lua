-- 2.2 A service whose process was cancelled is not started again.
local funcs, time = require("funcs"), require("time")

return function()
  check.eventually(function() return funcs.call("lua.support:starts_of", "cancelled") == 1 end)
  time.sleep("40ms")
  check.equal(funcs.call("lua.support:starts_of", "cancelled"), 1)
end
