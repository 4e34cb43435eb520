-- 8 `listen` without options delivers the value itself: nil, a value, or a table of values.
return function()
  local me, ch = process.pid(), process.listen("x")
  process.send(me, "x")
  process.send(me, "x", { a = 1 })
  process.send(me, "x", 1, "two")
  local none, ok = ch:receive()
  check.is_nil(none)
  check.is_true(ok)
  check.equal(check.receive(ch), { a = 1 })
  check.equal(check.receive(ch), { 1, "two" })
end
