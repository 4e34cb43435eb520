-- 11.4 A message tells its sender, and a workflow can send to that PID like to any other.
return function()
  local pid = process.spawn("lua.support:wf.wait", "lua.support:worker")
  local answers = process.listen("ping", { message = true })
  process.send(pid, "ping", { n = 1 })
  local m = check.receive(answers)
  check.equal({ m:topic(), m:from(), m:payload():data() }, { "ping", pid, { n = 1 } })
  process.send(pid, "done")
end
