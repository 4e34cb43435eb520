-- 6.3 `coroutine.spawn(fn)`: starts `fn()` as a coroutine of the unit; the spawner goes on first.
return function()
  local order, done = {}, channel.new(2)
  coroutine.spawn(function()
    order[#order + 1] = "first"
    done:send(1)
  end)
  coroutine.spawn(function()
    order[#order + 1] = "second"
    done:send(2)
  end)
  order[#order + 1] = "spawner"
  check.receive(done)
  check.receive(done)
  check.equal(order, { "spawner", "first", "second" })
end
