-- 11.7 Kind, message, retryable and details of the root error survive any number of layers.
-- as: workflow
local workflow = require("workflow")

return function()
  local failure = { message = "root", kind = "PermissionDenied", retryable = false, details = { mine = { deep = 1 } } }
  local _, err = workflow.exec("lua.support:wf.exec", "lua.support:wf.relay", false, "lua.support:fn.relay",
    "lua.support:fn.fail", failure)
  check.error_is(err, "PermissionDenied", "^root$", false)
  check.equal(err:details().mine, { deep = 1 })
  check.equal(err:details()._wrapper, "child_workflow")
end
