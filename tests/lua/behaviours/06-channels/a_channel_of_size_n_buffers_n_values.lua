-- 6.1 `channel.new(n)`: a buffer of n; `send` returns true when the value is buffered, and blocks when it is full.
return function()
  local ch = channel.new(2)
  check.is_true(ch:send(1))
  check.is_true(ch:send(2))
  local sent = false
  coroutine.spawn(function()
    ch:send(3)
    sent = true
  end)
  require("time").sleep("5ms")
  check.is_false(sent, "the third one waits")
  check.equal({ ch:receive() }, { 1, true })
  require("time").sleep("5ms")
  check.is_true(sent)
  check.equal({ (ch:receive()), (ch:receive()) }, { 2, 3 })
end
