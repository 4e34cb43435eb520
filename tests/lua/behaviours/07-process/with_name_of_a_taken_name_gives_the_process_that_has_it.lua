-- 15 A second spawn under a taken name returns the old PID, ignores the input and delivers the messages to it (trap 12).
return function()
  local name = check.unique("taken")
  local spawner = process.with_options{}:with_name(name)
  local first = spawner:with_message("first", 1):spawn_monitored("lua.support:collect", "lua.support:processes", 3)
  local second = spawner:with_message("second", 2):with_message("third", 3):spawn("lua.support:collect", "lua.support:processes", 100)
  check.equal(second, first)
  check.equal(check.receive(process.events()).result.value, {
    { topic = "first", from = "", data = 1 },
    { topic = "second", from = "", data = 2 },
    { topic = "third", from = "", data = 3 },
  })
end
