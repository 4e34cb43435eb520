-- 7.3 Messages that were on their way to a process that is terminated are gone with it: it does nothing more.
-- imports: puppets=lua.support:puppets
return function()
  local pid = process.spawn_monitored("lua.support:coroutines", "lua.support:processes", "tell", process.pid())
  process.terminate(pid)
  puppets.exit(pid)
  check.nothing(process.listen("alive"), "50ms")
end
