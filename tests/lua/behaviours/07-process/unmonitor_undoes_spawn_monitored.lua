-- 9 `unmonitor` takes the monitor of `spawn_monitored` away, too; afterwards `monitor` works again.
-- imports: puppets=lua.support:puppets
return function()
  local pid = process.spawn_monitored("lua.support:collect", "lua.support:processes", 1)
  check.is_true((process.unmonitor(pid)))
  check.is_true((process.monitor(pid)))
  process.send(pid, "x", 1)
  check.equal(puppets.exit(pid).value[1].data, 1)
  check.nothing(process.events(), "20ms")
end
