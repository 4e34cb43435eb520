-- 15 Messages sent right after `spawn` are not lost, though the child subscribes later (trap 14).
-- imports: puppets=lua.support:puppets
return function()
  local pid = process.spawn_monitored("lua.support:collect", "lua.support:processes", 3, "20ms")
  for i = 1, 3 do process.send(pid, "early", i) end
  local list = puppets.exit(pid).value
  check.equal({ list[1].data, list[2].data, list[3].data }, { 1, 2, 3 })
end
