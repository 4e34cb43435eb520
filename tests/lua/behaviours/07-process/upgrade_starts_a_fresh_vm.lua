-- 7.4 The new code runs in a fresh VM: globals of the old code are gone, its coroutines too.
-- imports: puppets=lua.support:puppets
return function()
  local upgraded, alive = process.listen("upgraded"), process.listen("alive")
  local pid = process.spawn_monitored("lua.support:leaves_things", "lua.support:processes", process.pid())
  check.is_nil(check.receive(upgraded).leftover)
  check.nothing(alive, "50ms")
  process.send(pid, "x", 1)
  check.equal(puppets.exit(pid).value, { 1 })
end
