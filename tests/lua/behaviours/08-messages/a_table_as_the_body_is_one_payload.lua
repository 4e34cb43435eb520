-- 8 One body is one Payload, be it a list.
return function()
  process.send(process.pid(), "list", { 1, 2, 3 })
  local m = check.receive(process.inbox())
  check.equal(type(m:payload()), "userdata")
  check.equal(m:payload():data(), { 1, 2, 3 })
end
