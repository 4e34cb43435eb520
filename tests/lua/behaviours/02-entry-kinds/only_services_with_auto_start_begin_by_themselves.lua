-- 2.2 `auto_start` is false by default: such a service is started when one that requires it starts, else not at all.
local funcs = require("funcs")

return function()
  check.eventually(function() return funcs.call("lua.support:starts_of", "needing") == 1 end)
  check.equal(funcs.call("lua.support:starts_of", "needed"), 1)
  check.equal(funcs.call("lua.support:starts_of", "not_started"), 0)
end
