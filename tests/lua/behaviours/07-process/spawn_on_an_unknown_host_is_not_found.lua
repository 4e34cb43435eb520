-- 7.2 An unknown host gives `NotFound`, `host not found`, for every way to start.
return function()
  for _, name in ipairs({ "spawn", "spawn_monitored", "spawn_linked", "spawn_linked_monitored", "exec" }) do
    local err = check.fails("NotFound", "host not found", process[name]("lua.support:give", "lua.support:nowhere"))
    check.is_false(err:retryable(), name)
  end
  check.nothing(process.events(), "20ms")
end
