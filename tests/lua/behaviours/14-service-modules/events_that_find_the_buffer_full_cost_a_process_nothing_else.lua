-- 14.3 A subscription's channel has a buffer of 64: what comes on top is dropped, and the subscriber goes on.
-- as: process
local events = require("events")

return function()
  local system = check.unique("sys")
  local sub, witness = events.subscribe(system), events.subscribe(system, "last")
  for i = 1, 64 do events.send(system, "n", "/", i) end
  events.send(system, "last", "/")
  check.receive(witness:channel())
  for i = 1, 64 do check.equal(check.receive(sub:channel()).data, i) end
end
