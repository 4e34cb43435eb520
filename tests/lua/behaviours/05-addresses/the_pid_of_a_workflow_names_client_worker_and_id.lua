-- 5.1 Workflow: `{<client entry ID>@<worker entry ID>|<workflow id>}`.
-- as: workflow
local workflow = require("workflow")

return function()
  check.equal(process.pid(), "{lua.support:client@lua.support:worker|" .. workflow.info().workflow_id .. "}")
end
