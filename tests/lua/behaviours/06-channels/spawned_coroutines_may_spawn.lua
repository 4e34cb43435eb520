-- 6.3 A spawned coroutine is one of the unit's like any other.
return function()
  local done = channel.new()
  coroutine.spawn(function()
    for i = 1, 3 do
      coroutine.spawn(function() done:send(i) end)
    end
  end)
  check.equal({ (check.receive(done)), (check.receive(done)), (check.receive(done)) }, { 1, 2, 3 })
end
