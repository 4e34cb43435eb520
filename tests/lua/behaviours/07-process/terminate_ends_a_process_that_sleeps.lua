-- 7.3 `process.terminate` kills a process in whatever it waits for.
-- imports: puppets=lua.support:puppets
return function()
  local pid = process.spawn_monitored("lua.support:collect", "lua.support:processes", 1, "1h")
  process.terminate(pid)
  check.error_is(puppets.exit(pid).error, "Internal", "^process terminated$")
end
