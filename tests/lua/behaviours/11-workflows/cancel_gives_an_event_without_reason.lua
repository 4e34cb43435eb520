-- 11.8 The CANCEL event in a workflow: kind, from "{|topology}", at as RFC 3339 text, and no reason (trap 15).
-- imports: wf=lua.support:wf.lib
return function()
  local pid = wf.start("wf.wait")
  check.is_true(process.cancel(pid, "because"))
  local event = wf.value(pid)
  check.equal(event.kind, "pid.cancel")
  check.equal(event.from, "{|topology}")
  check.matches(event.at, "^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d")
  check.is_nil(event.reason)
  check.is_nil(event.result)
end
