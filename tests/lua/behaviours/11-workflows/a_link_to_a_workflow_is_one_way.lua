-- 11.8 A process that dies never harms the workflow it is linked to.
-- imports: wf=lua.support:wf.lib
local funcs = require("funcs")

return function()
  local pid = wf.start("wf.wait", nil, "alive")
  check.fails("Internal", "died", funcs.call("lua.support:fn.linked", pid, false, true))
  process.send(pid, "input?")
  check.equal(check.receive(process.listen("input?")), "alive")
  process.send(pid, "done")
end
