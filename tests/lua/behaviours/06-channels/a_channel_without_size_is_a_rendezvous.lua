-- 6.1 `channel.new([size=0])`: 0 = rendezvous; `send` blocks until the value is taken.
return function()
  local ch, order = channel.new(), {}
  local done = channel.new(1)
  coroutine.spawn(function()
    order[#order + 1] = "sending"
    check.is_true(ch:send("v"))
    order[#order + 1] = "sent"
    done:send(true)
  end)
  require("time").sleep("5ms")
  order[#order + 1] = "receiving"
  check.equal({ ch:receive() }, { "v", true })
  check.receive(done)
  check.equal(order, { "sending", "receiving", "sent" })
end
