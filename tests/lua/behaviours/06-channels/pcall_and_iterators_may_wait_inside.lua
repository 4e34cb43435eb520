-- 6.1 A channel operation suspends its coroutine wherever it stands: in pcall, in an iterator, in a metamethod.
local time = require("time")

return function()
  local ch = channel.new()
  coroutine.spawn(function()
    for i = 1, 3 do
      time.sleep("1ms")
      ch:send(i)
    end
    ch:close()
  end)
  check.equal({ pcall(function() return (ch:receive()) end) }, { true, 1 })
  local slow = setmetatable({}, { __index = function() return (ch:receive()) end })
  check.equal(slow.anything, 2)
  local got = {}
  for v in function() return (ch:receive()) end do got[#got + 1] = v end
  check.equal(got, { 3 })
end
