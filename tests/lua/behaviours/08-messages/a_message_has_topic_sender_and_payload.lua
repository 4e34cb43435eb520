-- 8 `m:topic()` string, `m:from()` sender PID, `m:payload()` one Payload; `m:payload():data()` gives the Lua value.
return function()
  local pid = process.spawn("lua.support:reports", "lua.support:processes", process.pid(), "a", 2)
  local m = check.receive(process.inbox())
  check.equal(type(m), "userdata")
  check.equal(m:topic(), "report")
  check.equal(m:from(), pid)
  check.equal(type(m:payload()), "userdata")
  check.equal(m:payload():data(), { pid = pid, args = { n = 2, "a", 2 } })
  process.send(pid, "stop")
end
