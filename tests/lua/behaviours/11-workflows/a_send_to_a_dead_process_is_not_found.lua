-- 11.4 A send from a workflow to a process that has ended: NotFound, not retryable.
-- imports: wf=lua.support:wf.lib
local funcs = require("funcs")

return function()
  local gone = funcs.call("lua.support:fn.whoami")
  local results = wf.value(wf.start("wf.tell", nil, gone, { { "topic", 1 } }))
  check.equal(results[1].kind, "NotFound")
  check.is_false(results[1].retryable)
end
