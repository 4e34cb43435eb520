-- 11.3 Without id or name each spawn starts a workflow of its own.
-- imports: wf=lua.support:wf.lib
return function()
  local one, other = wf.start("wf.info"), wf.start("wf.info")
  check.is_false(one == other)
  check.is_false(wf.value(one).workflow_id == wf.value(other).workflow_id)
end
