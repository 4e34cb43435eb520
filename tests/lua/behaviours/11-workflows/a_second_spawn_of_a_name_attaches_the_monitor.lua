-- 11.3 With `use_existing` the monitor of the spawn variant is attached to the running workflow (trap 12).
-- imports: wf=lua.support:wf.lib
return function()
  local id = check.unique("attached")
  local pid = process.with_options({ id = id }):spawn("lua.support:wf.wait", wf.worker)
  check.equal(process.with_options({ id = id }):spawn_monitored("lua.support:wf.wait", wf.worker), pid)
  process.send(pid, "done", 4)
  check.equal(wf.value(pid), 4)
end
