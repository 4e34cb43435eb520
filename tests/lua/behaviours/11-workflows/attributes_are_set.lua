-- 11.10 `workflow.attrs{search=, memo=}` gives true.
-- as: workflow
local workflow, time = require("workflow"), require("time")

return function()
  check.is_true(workflow.attrs{ search = { state = "open", count = 2, tags = { "a", "b" } }, memo = { any = { deep = true } } })
  time.sleep("1ms")
  check.is_true(workflow.attrs{ search = { state = "closed" } })
end
