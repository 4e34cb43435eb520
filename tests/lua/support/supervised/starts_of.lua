-- How often the service that counts under `key` has been started on this node.
local store = require("store")

return { main = function(key)
  return store.get("lua.support:service_starts"):get(key) or 0
end }
