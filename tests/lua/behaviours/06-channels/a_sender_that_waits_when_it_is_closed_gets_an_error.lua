-- 6.1 If the channel gets closed while the sender waits: `send` returns `nil, err`.
return function()
  local ch, done = channel.new(), channel.new(1)
  coroutine.spawn(function() done:send(table.pack(ch:send(1))) end)
  require("time").sleep("5ms")
  ch:close()
  local results = check.receive(done)
  check.is_nil(results[1])
  check.type_is(results[2], "userdata")
  check.matches(results[2], "closed")
end
