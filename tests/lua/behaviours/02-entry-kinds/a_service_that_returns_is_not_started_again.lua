-- 15 A normal exit never restarts (trap 19).
local funcs, time = require("funcs"), require("time")

return function()
  check.eventually(function() return funcs.call("lua.support:starts_of", "returning") == 1 end)
  time.sleep("40ms")
  check.equal(funcs.call("lua.support:starts_of", "returning"), 1)
end
