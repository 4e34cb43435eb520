-- 14.3 `Subscription:close()`: its channel is closed, further events do not come.
local events = require("events")

return function()
  local system = check.unique("sys")
  local sub, other = events.subscribe(system), events.subscribe(system)
  sub:close()
  events.send(system, "n", "/")
  check.receive(other:channel())
  check.closed(sub:channel())
  sub:close()
end
