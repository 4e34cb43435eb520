-- 11.2 What is sent to a workflow during its `start_delay` waits for it.
-- imports: wf=lua.support:wf.lib
return function()
  local pid = wf.start("wf.collect", { start_delay = "60ms" }, 2)
  check.is_true(process.send(pid, "a", 1))
  check.is_true(process.send(pid, "b", 2))
  local got = wf.value(pid)
  check.equal({ got[1].topic, got[1].value, got[2].topic, got[2].value }, { "a", 1, "b", 2 })
end
