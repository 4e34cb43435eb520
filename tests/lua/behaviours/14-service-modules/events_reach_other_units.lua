-- 14.3 Events go to every subscriber of the node, also of other units.
-- nodes: one, because events are of one node unless they are sent for the mesh
local events, funcs = require("events"), require("funcs")

return function()
  local system = check.unique("sys")
  local sub = events.subscribe(system)
  check.is_true(funcs.call("lua.support:services.send_event", system, "k", "/p", { 1 }))
  check.equal(check.receive(sub:channel()), { system = system, kind = "k", path = "/p", data = { 1 } })
end
