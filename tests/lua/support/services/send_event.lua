-- Sends an event from this node, to the whole mesh if asked to.
local events = require("events")

return function(system, kind, path, data, mesh)
  return events.send(system, kind, path, data, { mesh = mesh == true })
end
