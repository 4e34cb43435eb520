-- 11.4 `process.exec` and `workflow.exec` in a workflow: a child, its value or nil and its error.
-- as: workflow
local workflow = require("workflow")

return function()
  check.equal(process.exec("lua.support:wf.echo", "lua.support:worker", { 1 }), { 1 })
  check.equal(workflow.exec("lua.support:wf.echo", { 2 }), { 2 })
  local value, err = workflow.exec("lua.support:wf.fail", { message = "no", kind = "Conflict", retryable = false })
  check.is_nil(value)
  check.error_is(err, "Conflict", "^no$", false)
  value, err = process.exec("lua.support:wf.fail", "lua.support:worker", { message = "m" })
  check.is_nil(value)
  check.error_is(err, "Internal", "^m$")
end
