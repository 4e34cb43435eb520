-- Sleeps until it is over or until it is cancelled, and says which: "slept" or "canceled". Under the key (if any) it is
-- noted, too, and before that, that it has "begun" (wf.noted waits for that).
local time, store = require("time"), require("store")
return { main = function(dur, key)
  local function note(what) if key then store.get("lua.support:fn.counts"):set(key .. "-" .. what, what) end end
  note("begun")
  local over = time.after(dur)
  local r = channel.select{ process.events():case_receive(), over:case_receive() }
  local what = r.channel == over and "slept" or r.value.kind == process.event.CANCEL and "canceled" or r.value.kind
  note(what)
  return what
end }
