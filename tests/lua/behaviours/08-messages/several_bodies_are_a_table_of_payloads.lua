-- 8 `m:payload()`: a table of Payloads when several bodies were sent.
return function()
  process.send(process.pid(), "many", 1, "two", { three = 3 })
  local bodies = check.receive(process.inbox()):payload()
  check.equal(type(bodies), "table")
  check.equal(#bodies, 3)
  check.equal({ bodies[1]:data(), bodies[2]:data(), bodies[3]:data() }, { 1, "two", { three = 3 } })
end
