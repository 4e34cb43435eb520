-- 11.10 `history_length` and `history_size` grow with what happens, and are those of `info`.
-- as: workflow
local workflow, time = require("workflow"), require("time")

return function()
  local length, size = workflow.history_length(), workflow.history_size()
  check.is_true(length >= 1 and size >= 1)
  time.sleep("1ms")
  check.is_true(workflow.history_length() > length)
  check.is_true(workflow.history_size() >= size)
  local info = workflow.info()
  check.equal({ info.history_length, info.history_size }, { workflow.history_length(), workflow.history_size() })
end
