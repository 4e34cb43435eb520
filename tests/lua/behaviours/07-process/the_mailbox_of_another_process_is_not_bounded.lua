-- 7.3 A sender is never held up by a receiver that does not read: 2,000 messages wait for it.
-- imports: puppets=lua.support:puppets
return function()
  local pid = process.spawn_monitored("lua.support:collect", "lua.support:processes", 2000, "30ms")
  for i = 1, 2000 do process.send(pid, "x", i) end
  local list = puppets.exit(pid).value
  check.equal(#list, 2000)
  check.equal(list[2000].data, 2000)
end
