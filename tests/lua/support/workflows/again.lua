-- Goes on as a new run `times` times, and gives what each run saw of itself.
local workflow = require("workflow")
return { main = function(times, seen)
  seen = seen or {}
  local info = workflow.info()
  seen[#seen + 1] = {
    pid = process.pid(), id = info.workflow_id, run = info.run_id, type = info.workflow_type, attempt = info.attempt,
    length = info.history_length,
  }
  if #seen <= times then process.upgrade(nil, times, seen) end
  return seen
end }
