-- 11.4 The EXIT events of all children arrive, each with its own result.
-- as: workflow
-- imports: wf=lua.support:wf.lib
return function()
  local pids = {}
  for i = 1, 6 do pids[i] = process.spawn("lua.support:wf.echo", "lua", i) end
  for i = 6, 1, -1 do check.equal(wf.value(pids[i]), i) end
end
