-- 6.1 Of several receivers that wait the first one gets the first value.
return function()
  local ch, got, done = channel.new(), {}, channel.new(3)
  for i = 1, 3 do
    coroutine.spawn(function()
      got[i] = ch:receive()
      done:send(i)
    end)
  end
  require("time").sleep("5ms")
  for _, v in ipairs{ "a", "b", "c" } do ch:send(v) end
  for _ = 1, 3 do check.receive(done) end
  check.equal(got, { "a", "b", "c" })
end
