-- 7.2 A name is taken only as long as its process lives: then a new one is spawned.
-- imports: puppets=lua.support:puppets
return function()
  local spawner = process.with_options{}:with_name(check.unique("again"))
  local first = spawner:spawn_monitored("lua.support:give", "lua.support:processes", 1)
  check.equal(puppets.exit(first).value, 1)
  local second = spawner:spawn_monitored("lua.support:give", "lua.support:processes", 2)
  check.is_true(first ~= second)
  check.equal(puppets.exit(second).value, 2)
end
