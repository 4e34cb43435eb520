-- 11.10 Outside of a workflow: info is nil, exec Invalid, version max, attrs true, length and size 0.
local workflow = require("workflow")

return function()
  check.is_nil(workflow.info())
  check.fails("Invalid", nil, workflow.exec("lua.support:wf.echo", 1))
  check.equal(workflow.version("change", 1, 3), 3)
  check.is_true(workflow.attrs({ search = { a = 1 }, memo = { b = 2 } }))
  check.equal(workflow.history_length(), 0)
  check.equal(workflow.history_size(), 0)
end
