-- 7.2 A name that the caller gave to a process itself is taken: the spawn delivers its messages to that process.
-- imports: puppets=lua.support:puppets
return function()
  local name = check.unique("given")
  local pid = process.spawn_monitored("lua.support:collect", "lua.support:processes", 2)
  check.is_true((process.registry.register(name, pid)))
  local spawner = process.with_options{}:with_name(name):with_message("a", 1):with_message("b", 2)
  check.equal(spawner:spawn("lua.support:give", "lua.support:processes"), pid)
  check.equal(puppets.exit(pid).value, { { topic = "a", from = "", data = 1 }, { topic = "b", from = "", data = 2 } })
end
