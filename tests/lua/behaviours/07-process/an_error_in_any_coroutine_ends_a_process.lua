-- 3.1 An error that nobody catches, in any coroutine, ends the process with that error.
-- imports: puppets=lua.support:puppets
return function()
  local pid = process.spawn_monitored("lua.support:coroutines", "lua.support:processes", "fail")
  check.error_is(puppets.exit(pid).error, "Internal", "the coroutine says no$")
end
