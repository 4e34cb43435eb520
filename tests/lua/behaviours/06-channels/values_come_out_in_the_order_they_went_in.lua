-- 6.1 A channel keeps the order of its values, those of senders that wait too.
return function()
  local ch = channel.new(2)
  for i = 1, 6 do
    coroutine.spawn(function() ch:send(i) end)
  end
  require("time").sleep("5ms")
  local got = {}
  for i = 1, 6 do got[i] = ch:receive() end
  check.equal(got, { 1, 2, 3, 4, 5, 6 })
end
