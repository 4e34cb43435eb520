-- 6.2 One case is taken; the others leave their channels as they are.
local time = require("time")

return function()
  local a, b, c = channel.new(), channel.new(1), channel.new(1)
  coroutine.spawn(function()
    time.sleep("5ms")
    a:send("a")
  end)
  c:send("full")
  check.equal(channel.select{ c:case_send("x"), a:case_receive(), b:case_receive() }.value, "a")
  b:send("still room")
  check.equal(b:receive(), "still room")
  check.equal(c:receive(), "full")
  check.nothing(c, "5ms")
end
