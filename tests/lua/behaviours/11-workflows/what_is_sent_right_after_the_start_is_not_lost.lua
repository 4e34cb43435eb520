-- 11.3 Signals sent right after the spawn wait for the workflow to look, in order (trap 14).
-- imports: wf=lua.support:wf.lib
return function()
  local pid = wf.start("wf.collect", nil, 30)
  for i = 1, 30 do check.is_true(process.send(pid, "n", i)) end
  local got = wf.value(pid)
  for i = 1, 30 do check.equal(got[i].value, i) end
end
