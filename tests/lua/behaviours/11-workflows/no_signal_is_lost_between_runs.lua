-- 11.9 Signals that come while a workflow goes on as a new run reach the next one, in order.
-- imports: wf=lua.support:wf.lib
return function()
  local pid = wf.start("wf.pump", nil, 60)
  for i = 1, 60 do check.is_true(process.send(pid, "n", i)) end
  local seen = wf.value(pid)
  check.is_true(seen.runs > 1)
  for i = 1, 60 do check.equal(seen.got[i], i) end
end
