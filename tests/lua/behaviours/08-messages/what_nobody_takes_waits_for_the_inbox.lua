-- 8 Else it waits until one of the two exists: the inbox gets what waited, in order.
return function()
  for i = 1, 3 do process.send(process.pid(), "t" .. i, i) end
  check.nothing(process.listen("other"), "10ms")
  local inbox = process.inbox()
  for i = 1, 3 do check.equal(check.receive(inbox):topic(), "t" .. i) end
end
