-- 11.4 A workflow goes on where it was, whoever owns it: activities, timers and signals, one after another.
-- as: workflow
local funcs, time = require("funcs"), require("time")

return function()
  local total = 0
  for i = 1, 5 do
    total = total + funcs.call("lua.support:fn.echo", i)
    time.sleep("5ms")
    process.send(process.pid(), "tick", total)
    total = total + check.receive(process.listen("tick"), "20s")
  end
  check.equal(total, 114)
end
