-- Sleeps and looks at nothing meanwhile. Under the key (if any) is noted that it has "begun", and that it has "slept".
local time, store = require("time"), require("store")
return { main = function(dur, key)
  local function note(what) if key then store.get("lua.support:fn.counts"):set(key .. "-" .. what, what) end end
  note("begun")
  time.sleep(dur)
  note("slept")
  return "slept"
end }
