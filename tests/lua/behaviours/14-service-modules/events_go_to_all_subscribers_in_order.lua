-- 14.3 All live subscribers get an event, in order per sender.
local events = require("events")

return function()
  local system = check.unique("sys")
  local a, b = events.subscribe(system), events.subscribe(system)
  for i = 1, 20 do events.send(system, "n", "/", i) end
  for i = 1, 20 do
    check.equal(check.receive(a:channel()).data, i)
    check.equal(check.receive(b:channel()).data, i)
  end
end
