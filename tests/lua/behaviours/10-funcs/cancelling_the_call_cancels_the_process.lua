-- 10.5 A process that is called gets a CANCEL event when the call is cancelled.
-- imports: wf=lua.support:wf.lib
local funcs = require("funcs")

return function()
  local key = check.unique("process")
  local future = funcs.async("lua.support:fn.process", "sleep", key)
  wf.noted(key, "begun")
  future:cancel()
  wf.noted(key, "canceled")
end
