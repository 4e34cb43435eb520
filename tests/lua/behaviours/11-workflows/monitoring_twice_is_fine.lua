-- 11.8 Monitoring a workflow twice is no error.
-- imports: wf=lua.support:wf.lib
return function()
  local pid = process.spawn("lua.support:wf.wait", wf.worker)
  check.is_true(process.monitor(pid))
  check.is_true(process.monitor(pid))
  process.send(pid, "done", 1)
  check.equal(wf.value(pid), 1)
end
