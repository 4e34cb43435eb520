-- 10.2 Context values go on to the processes and workflows that a callee spawns.
local funcs = require("funcs")

return function()
  local executor = funcs.new():with_context({ user = "ada" })
  local process_context = executor:call("lua.support:fn.exec", "lua.support:fn.process", "lua.support:processes", "context")
  check.equal(process_context, { user = "ada" })
  local workflow_context = executor:call("lua.support:fn.exec", "lua.support:wf.context", "lua.support:worker")
  check.equal(workflow_context, { user = "ada" })
end
