-- 11.10 `workflow.info()`: id, run, type, task queue, namespace, attempt, length and size of the history.
-- as: workflow
local workflow, time = require("workflow"), require("time")

return function()
  local info = workflow.info()
  for _, key in ipairs({ "workflow_id", "run_id", "workflow_type", "task_queue", "namespace" }) do
    check.type_is(info[key], "string", key)
  end
  check.matches(info.workflow_type, "info_tells_what_runs$")
  check.equal(info.task_queue, "lua")
  check.equal(info.namespace, "default")
  check.equal(info.attempt, 1)
  check.type_is(info.history_length, "integer")
  check.type_is(info.history_size, "integer")
  check.is_true(process.pid():find(info.workflow_id, 1, true) ~= nil)
  time.sleep("1ms")
  check.equal(workflow.info().run_id, info.run_id)
end
