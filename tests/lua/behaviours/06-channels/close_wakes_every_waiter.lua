-- 6.1 `ch:close()` wakes every waiter.
return function()
  local ch, done = channel.new(), channel.new(3)
  for _ = 1, 3 do
    coroutine.spawn(function() done:send(table.pack(ch:receive())) end)
  end
  require("time").sleep("5ms")
  ch:close()
  for _ = 1, 3 do check.equal(check.receive(done), { n = 2, nil, false }) end
end
