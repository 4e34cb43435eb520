-- 8 Order is kept both ways: answers come in the order in which they were sent.
-- imports: puppets=lua.support:puppets
return function()
  local pid = puppets.new()
  for i = 1, 50 do puppets.tell(pid, "send", process.pid(), "number", i) end
  local numbers = process.listen("number")
  for i = 1, 50 do check.equal(check.receive(numbers), i) end
  puppets.tell(pid, "return")
end
