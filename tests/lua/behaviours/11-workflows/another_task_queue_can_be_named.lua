-- 11.2 `task_queue` names the queue that a workflow is started on; one that nobody serves is `host not found`.
return function()
  local pid = process.with_options({ task_queue = "lua" }):spawn_monitored("lua.support:wf.info", "lua.support:worker")
  local exit = check.receive(process.events())
  check.equal({ exit.from, exit.result.value.task_queue }, { pid, "lua" })
  check.fails("NotFound", "^host not found",
    process.with_options({ task_queue = "no queue" }):spawn("lua.support:wf.info", "lua.support:worker"))
end
