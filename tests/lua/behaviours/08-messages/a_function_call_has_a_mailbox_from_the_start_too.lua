-- 8 Nothing sent before the receiver subscribes is lost: to a function call as well.
local funcs = require("funcs")
local time = require("time")

return function()
  for i = 1, 3 do funcs.call("lua.support:tell", process.pid(), "early", i) end
  time.sleep("5ms")
  local ch = process.listen("early")
  for i = 1, 3 do check.equal(check.receive(ch), i) end
end
