-- Sleeps until it is over or until it is cancelled, and says which: "slept" or "canceled". Under the key (if any) it is
-- noted, too, and before that, that it has "begun".
local time, store = require("time"), require("store")
return { main = function(dur, key)
  local seen = key and store.get("lua.support:fn.counts")
  if seen then seen:set(key, "begun") end
  local over = time.after(dur)
  local r = channel.select{ process.events():case_receive(), over:case_receive() }
  local what = r.channel == over and "slept" or r.value.kind == process.event.CANCEL and "canceled" or r.value.kind
  if seen then seen:set(key, what) end
  return what
end }
