-- 10.4 A coroutine that waits for the channel sees it closed when the future is cancelled.
local funcs = require("funcs")

return function()
  local future = funcs.async("lua.support:fn.sleep", "10s")
  local woken = channel.new(1)
  coroutine.spawn(function()
    local value, ok = future:channel():receive()
    woken:send({ value == nil, ok })
  end)
  funcs.call("lua.support:fn.echo")
  future:cancel()
  check.equal(check.receive(woken), { true, false })
end
