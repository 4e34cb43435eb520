-- 7.2 The monitor of `spawn_monitored` is attached before the child can run: EXIT comes even if it ends at once.
-- imports: puppets=lua.support:puppets
return function()
  for i = 1, 20 do
    local pid = process.spawn_monitored("lua.support:give", "lua.support:processes", i)
    check.equal(puppets.exit(pid), { value = i })
  end
end
