-- 8 For workflows a message is recorded and delivered exactly once, in order per sender.
-- as: workflow
local time = require("time")

return function()
  local me = process.pid()
  for i = 1, 5 do check.is_true(process.send(me, "count", i)) end
  local ch = process.listen("count")
  for i = 1, 5 do check.equal(check.receive(ch, "60s"), i) end
  check.nothing(ch, "20ms")
end
