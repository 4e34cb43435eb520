-- 11.8 A monitor that is attached after the end still gets the EXIT, from the stored result.
-- imports: wf=lua.support:wf.lib
return function()
  local pid = wf.start("wf.echo", nil, "stored")
  wf.value(pid)
  check.is_true(process.monitor(pid))
  local exit = check.receive(process.events())
  check.equal({ exit.kind, exit.from, exit.result.value }, { "pid.exit", pid, "stored" })
end
