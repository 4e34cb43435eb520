-- What is noted under a key: the number of attempts; 0 when there is nothing.
local store = require("store")
return { main = function(key)
  return store.get("lua.support:fn.counts"):get(key) or 0
end }
