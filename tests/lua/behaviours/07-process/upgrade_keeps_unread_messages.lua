-- 7.4 What was not read stays in the mailbox, in order, for the new code.
-- imports: puppets=lua.support:puppets
return function()
  local puppet = puppets.new()
  puppets.watch(puppet)
  puppets.tell(puppet, "upgrade", "lua.support:sends_upgraded", process.pid(), 20)
  for i = 1, 20 do process.send(puppet, i % 2 == 0 and "a" or "b", i) end
  local list = puppets.exit(puppet).value
  for i = 1, 20 do check.equal(list[i], i) end
end
