-- 8 Order is kept from one sender to one receiver.
-- imports: puppets=lua.support:puppets
return function()
  local pid = process.spawn_monitored("lua.support:collect", "lua.support:processes", 300)
  for i = 1, 300 do process.send(pid, i % 3 == 0 and "a" or "b", i) end
  local list = puppets.exit(pid).value
  for i = 1, 300 do check.equal(list[i].data, i) end
end
