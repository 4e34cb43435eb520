-- 9 `spawn_monitored` has added the monitor: `monitor` of that child is an error.
-- imports: puppets=lua.support:puppets
return function()
  local pid = process.spawn_monitored("lua.support:collect", "lua.support:processes", 1)
  check.fails("Internal", "already monitoring pid", process.monitor(pid))
  process.terminate(pid)
  puppets.exit(pid)
end
