-- 7.2 A taken name on a process host: the spawn variant adds no monitor.
-- imports: puppets=lua.support:puppets
return function()
  local name = check.unique("taken")
  local spawner = process.with_options{}:with_name(name)
  local first = spawner:spawn("lua.support:collect", "lua.support:processes", 1)
  check.equal(spawner:spawn_monitored("lua.support:collect", "lua.support:processes", 1), first)
  process.send(first, "end")
  check.eventually(function() return not process.send(first, "more") end)
  check.nothing(process.events(), "20ms")
end
