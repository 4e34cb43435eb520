-- Publishes to a queue on this node, as the messages of the memory driver stay on the node that has them.
local queue = require("queue")

return function(id, ...)
  for _, body in ipairs{ ... } do
    local ok, err = queue.publish(id, body, { trace = "t-1" })
    if not ok then return nil, err end
  end
  return true
end
