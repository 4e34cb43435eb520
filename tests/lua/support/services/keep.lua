-- What a store of this node holds under a key; with a value, sets it first.
local store = require("store")

return function(id, key, value)
  local s = assert(store.get(id))
  if value ~= nil then assert(s:set(key, value)) end
  return s:get(key)
end
