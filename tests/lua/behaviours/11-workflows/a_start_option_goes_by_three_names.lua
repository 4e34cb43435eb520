-- 11.2 Names `workflow.X` and `temporal.workflow.X` of an option are the same as X.
return function()
  for _, name in ipairs({ "run_timeout", "workflow.run_timeout", "temporal.workflow.run_timeout" }) do
    check.fails("Invalid", "run_timeout must be ",
      process.with_options({ [name] = true }):spawn("lua.support:wf.echo", "lua.support:worker"))
  end
  local id = check.unique("named")
  local pid = process.with_options({ ["temporal.workflow.id"] = id }):spawn("lua.support:wf.wait", "lua.support:worker")
  local same = process.with_options({ ["workflow.id"] = id }):spawn("lua.support:wf.wait", "lua.support:worker")
  check.equal(same, pid)
  process.send(pid, "done")
end
