-- 7.2 A Spawner is immutable: each method gives a new one.
return function()
  local first = process.with_context{ a = 1 }
  local second = first:with_context{ b = 2 }
  local third = second:with_message("x", 1)
  check.is_true(first ~= second and second ~= third)
  check.equal(first:exec("lua.support:about", "lua.support:processes").context, { a = 1 })
  check.equal(second:exec("lua.support:about", "lua.support:processes").context, { a = 1, b = 2 })
  local pid = third:spawn_monitored("lua.support:collect", "lua.support:processes", 1)
  check.equal(check.receive(process.events()).result.value, { { topic = "x", from = "", data = 1 } })
  pid = second:spawn_monitored("lua.support:collect", "lua.support:processes", 1)
  process.send(pid, "y", 2)
  check.equal(check.receive(process.events()).result.value[1].topic, "y")
end
