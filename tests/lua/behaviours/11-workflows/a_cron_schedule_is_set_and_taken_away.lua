-- 11.2 A workflow with a `cron_schedule` has its PID at once; terminate ends the schedule.
return function()
  local spawner = process.with_options({ id = check.unique("cron"), cron_schedule = "0 3 1 1 *" })
  local pid = spawner:spawn("lua.support:wf.echo", "lua.support:worker")
  check.type_is(pid, "string")
  check.is_true(process.terminate(pid))
  check.fails("Internal", nil, process.terminate(pid))
end
