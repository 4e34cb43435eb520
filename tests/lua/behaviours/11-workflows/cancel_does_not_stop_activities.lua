-- 11.8 Activities go on when their workflow is asked to stop.
-- imports: wf=lua.support:wf.lib
return function()
  local key = check.unique("activity")
  local pid = wf.start("wf.relay", nil, false, "lua.support:fn.sleep", "80ms", key)
  wf.noted(key, "begun")
  check.is_true(process.cancel(pid))
  check.equal(wf.value(pid), "slept")
end
