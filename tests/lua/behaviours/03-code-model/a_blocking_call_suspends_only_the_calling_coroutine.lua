-- 3.1 Blocking calls suspend only the calling coroutine.
local time = require("time")
local funcs = require("funcs")

return function()
  local order = {}
  local done = channel.new(3)
  local called = channel.new(1)
  coroutine.spawn(function()
    time.sleep("1ms")
    called:receive()
    order[#order + 1] = "woken"
    done:send(1)
  end)
  coroutine.spawn(function()
    order[#order + 1] = funcs.call("lua.support:echo", "called")
    called:send(true)
    done:send(2)
  end)
  order[#order + 1] = "main"
  check.receive(done)
  check.receive(done)
  check.equal(order, { "main", "called", "woken" })
end
