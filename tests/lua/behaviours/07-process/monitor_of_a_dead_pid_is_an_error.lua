-- 9 `monitor` and `link` of a dead pid give the error `pid not registered`.
-- imports: puppets=lua.support:puppets
return function()
  local pid = process.spawn_monitored("lua.support:give", "lua.support:processes")
  puppets.exit(pid)
  check.is_false(check.fails("Internal", "pid not registered", process.monitor(pid)):retryable())
  check.is_false(check.fails("Internal", "pid not registered", process.link(pid)):retryable())
  check.fails("Internal", "pid not registered", process.monitor("{lua.support:processes|0x00001}"))
  check.nothing(process.events(), "20ms")
end
