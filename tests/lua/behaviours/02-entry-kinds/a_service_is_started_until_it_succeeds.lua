-- 2.2 Without `max_attempts` a failing service is started until it ends without an error.
local funcs, time = require("funcs"), require("time")

return function()
  check.eventually(function() return funcs.call("lua.support:starts_of", "recovering") == 4 end)
  time.sleep("40ms")
  check.equal(funcs.call("lua.support:starts_of", "recovering"), 4)
end
