-- 7.2 One Spawner may start many processes.
return function()
  local spawner, seen = process.with_options{}:with_message("x", "first"), {}
  for _ = 1, 3 do
    local pid = spawner:spawn_monitored("lua.support:collect", "lua.support:processes", 1)
    check.is_nil(seen[pid])
    seen[pid] = true
    check.equal(check.receive(process.events()).result.value[1].data, "first")
  end
end
