-- 7.3 After `unlisten` a new `listen` of the topic gives a new, open channel.
return function()
  local first = process.listen("x")
  process.unlisten(first)
  local second = process.listen("x")
  check.is_true(first ~= second)
  process.send(process.pid(), "x", "again")
  check.equal(check.receive(second), "again")
  check.closed(first)
end
