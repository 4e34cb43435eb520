-- 11.9 A workflow that goes on as a new run again and again is terminated like any other, whenever it is asked for.
-- imports: wf=lua.support:wf.lib
return function()
  local pids = {}
  for i = 1, 8 do pids[i] = wf.start("wf.for_ever", nil, 0) end
  for i = 1, 8 do check.is_true(process.terminate(pids[i])) end
  for i = 1, 8 do check.error_is(wf.error(pids[i]), "Canceled", "^workflow terminated$") end
end
