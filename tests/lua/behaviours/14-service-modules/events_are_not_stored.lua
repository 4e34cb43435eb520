-- 14.3 Nothing is stored: who subscribes later gets nothing of before.
local events = require("events")

return function()
  local system = check.unique("sys")
  events.send(system, "early", "/")
  local sub = events.subscribe(system)
  events.send(system, "late", "/")
  check.equal(check.receive(sub:channel()).kind, "late")
end
