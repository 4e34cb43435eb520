-- Sleeps and looks at nothing meanwhile. Under the key is noted that it has "begun", and that it has "slept".
local time, store = require("time"), require("store")
return { main = function(dur, key)
  local seen = key and store.get("lua.support:fn.counts")
  if seen then seen:set(key, "begun") end
  time.sleep(dur)
  if seen then seen:set(key, "slept") end
  return "slept"
end }
