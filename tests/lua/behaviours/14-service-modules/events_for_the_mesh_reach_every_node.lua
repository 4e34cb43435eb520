-- 14.3 Node-wide by default; an event may be sent to all nodes of the mesh.
local events, funcs = require("events"), require("funcs")

return function()
  local system = check.unique("sys")
  local sub = events.subscribe(system)
  check.is_true(funcs.call("lua.support:services.send_event", system, "k", "/p", { 1 }, true))
  check.equal(check.receive(sub:channel()), { system = system, kind = "k", path = "/p", data = { 1 } })
  check.nothing(sub:channel(), "10ms")
end
