-- 10.4 The callee of a cancelled future is asked to stop: it gets a CANCEL event.
-- imports: wf=lua.support:wf.lib
local funcs = require("funcs")

return function()
  local key = check.unique("asked")
  local future = funcs.async("lua.support:fn.sleep", "10s", key)
  wf.noted(key, "begun")
  future:cancel()
  wf.noted(key, "canceled")
end
