-- What is noted under a key: the number of attempts, or the word of a sleeper; 0 when there is nothing.
local store = require("store")
return { main = function(key)
  return store.get("lua.support:fn.counts"):get(key) or 0
end }
