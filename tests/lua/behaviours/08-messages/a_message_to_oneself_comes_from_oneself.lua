-- 8 `m:from()`: the sender's PID, one's own too.
return function()
  check.is_true(process.send(process.pid(), "note", "x"))
  local m = check.receive(process.inbox())
  check.equal(m:from(), process.pid())
  check.equal(m:payload():data(), "x")
end
