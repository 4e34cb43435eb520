-- 7.2 A chunk that fails to load gives its error: kind, retryable and details are kept.
return function()
  local err = check.fails("Conflict", "^the chunk says no$", process.spawn_monitored("lua.support:chunk_raises_error", "lua.support:processes"))
  check.is_false(err:retryable())
  check.equal(err:details(), { a = 1 })
  check.nothing(process.events(), "20ms")
end
