-- 11.10 `workflow.version` gives max in a new run, and the same for the rest of it.
-- as: workflow
local workflow, time = require("workflow"), require("time")

return function()
  check.equal(workflow.version("one", 1, 3), 3)
  time.sleep("10ms")
  check.equal(workflow.version("one", 1, 5), 3)
  check.equal(workflow.version("other", 0, 1), 1)
  time.sleep("10ms")
  check.equal(workflow.version("other", 0, 1), 1)
end
