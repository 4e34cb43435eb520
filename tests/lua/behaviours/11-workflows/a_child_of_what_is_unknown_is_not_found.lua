-- 11.4 A child on an unknown host is NotFound `host not found`, an unknown entry `factory not found` (7.2).
-- as: workflow
local workflow = require("workflow")

return function()
  check.fails("NotFound", "^host not found", process.spawn("lua.support:wf.echo", "lua.support:nowhere"))
  check.fails("NotFound", "^factory not found", process.spawn("lua.support:wf.nothing", "lua.support:worker"))
  check.fails("NotFound", "^factory not found", workflow.exec("lua.support:wf.nothing"))
  check.fails("Invalid", nil, process.exec("nothing", "lua.support:worker"))
end
