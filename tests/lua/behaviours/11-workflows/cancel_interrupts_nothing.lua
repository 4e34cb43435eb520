-- 11.8 Nothing is interrupted by a cancel: a workflow that does not look goes on and completes (trap 10).
-- imports: wf=lua.support:wf.lib
return function()
  local pid = wf.start("wf.sleep", nil, "80ms", "slept")
  check.is_true(process.cancel(pid))
  check.equal(wf.value(pid), "slept")
end
