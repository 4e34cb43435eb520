-- 11.8 Sending to a workflow that has ended is NotFound; cancel and terminate are refused, too (7.3).
-- imports: wf=lua.support:wf.lib
return function()
  local pid = wf.start("wf.echo", nil, 1)
  wf.value(pid)
  check.error_is(check.fails("NotFound", nil, process.send(pid, "topic", 1)), "NotFound", nil, false)
  check.fails("Internal", nil, process.cancel(pid))
  check.fails("Internal", nil, process.terminate(pid))
end
