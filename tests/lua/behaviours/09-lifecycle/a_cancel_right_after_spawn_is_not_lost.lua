-- 8 A unit can be cancelled from the moment `spawn` returns, before it calls `events()`.
-- imports: puppets=lua.support:puppets
return function()
  for i = 1, 10 do
    local pid = process.spawn_monitored("lua.support:obeys", "lua.support:processes", "2ms")
    process.cancel(pid, "no " .. i)
    check.equal(puppets.exit(pid), { value = "no " .. i })
  end
end
