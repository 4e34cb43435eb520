-- 11.4 Which of several timers came first is recorded.
-- as: workflow
local time = require("time")

return function()
  local short, long = time.after("10ms"), time.after("1s")
  local r = channel.select{ long:case_receive(), short:case_receive() }
  check.is_true(r.channel == short)
  long:receive()
  check.equal(select("#", time.sleep("1ms")), 0)
end
