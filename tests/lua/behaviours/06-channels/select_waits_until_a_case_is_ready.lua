-- 6.2 Nothing ready and no default: it waits for the first that becomes ready.
local time = require("time")

return function()
  local a, b = channel.new(), channel.new()
  coroutine.spawn(function()
    time.sleep("10ms")
    b:send("late")
  end)
  local r = channel.select{ a:case_receive(), b:case_receive() }
  check.is_true(r.channel == b)
  check.equal(r.value, "late")
  check.is_true(r.ok)
end
