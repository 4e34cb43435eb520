-- 7.4 A process may upgrade itself many times; EXIT comes once, at its end.
-- imports: puppets=lua.support:puppets
return function()
  local pid = process.spawn_monitored("lua.support:counts_upgrades", "lua.support:processes", 30)
  check.equal(puppets.exit(pid).value, 0)
  check.nothing(process.events(), "10ms")
end
