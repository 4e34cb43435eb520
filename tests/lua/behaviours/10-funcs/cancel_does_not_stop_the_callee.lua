-- 10.4 The callee is not forced to stop: one that looks at no event goes on to its end (trap 10).
-- imports: wf=lua.support:wf.lib
local funcs = require("funcs")

return function()
  local key = check.unique("deaf")
  local future = funcs.async("lua.support:fn.deaf", "30ms", key)
  wf.noted(key, "begun")
  future:cancel()
  wf.noted(key, "slept")
end
