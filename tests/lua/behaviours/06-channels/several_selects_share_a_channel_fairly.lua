-- 6.1 A value goes to exactly one of those who wait, selects and receives alike.
return function()
  local ch, done = channel.new(), channel.new(4)
  for i = 1, 4 do
    coroutine.spawn(function()
      local v = i % 2 == 0 and ch:receive() or channel.select{ ch:case_receive() }.value
      done:send({ i, v })
    end)
  end
  require("time").sleep("5ms")
  for v = 1, 4 do ch:send(v) end
  local got = {}
  for _ = 1, 4 do
    local pair = check.receive(done)
    got[pair[1]] = pair[2]
  end
  check.equal(got, { 1, 2, 3, 4 })
end
