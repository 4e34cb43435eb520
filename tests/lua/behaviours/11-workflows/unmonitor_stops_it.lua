-- 11.8 After `unmonitor` no EXIT comes; to unmonitor what is not monitored is fine.
-- imports: wf=lua.support:wf.lib
return function()
  local pid = process.spawn_monitored("lua.support:wf.wait", wf.worker)
  check.is_true(process.unmonitor(pid))
  check.is_true(process.unmonitor(pid))
  process.send(pid, "done", 1)
  check.nothing(process.events(), "80ms")
end
