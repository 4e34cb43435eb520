-- 11.8 Without `trap_links` LINK_DOWN of a workflow kills the linked unit: `linked process failed` (9).
local funcs = require("funcs")

return function()
  local pid = process.spawn("lua.support:wf.wait", "lua.support:worker")
  local linked = funcs.async("lua.support:fn.linked", pid, process.pid())
  check.receive(process.listen("linked"))
  process.send(pid, "fail", { message = "no" })
  check.error_is(check.receive(linked:channel()), "Internal", "linked process failed")
end
