-- 11.8 A monitor of a workflow that waits for its `cron_schedule` hears nothing before it has run.
return function()
  local spawner = process.with_options({ id = check.unique("scheduled"), cron_schedule = "0 3 1 1 *" })
  local pid = spawner:spawn_monitored("lua.support:wf.echo", "lua.support:worker")
  check.is_true(process.monitor(pid))
  check.nothing(process.events(), "80ms")
  check.is_true(process.terminate(pid))
end
