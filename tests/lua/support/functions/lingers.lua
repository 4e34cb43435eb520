-- Waits until it is cancelled, and then still works for a little. Under the key is noted that it has "begun", and at the
-- very end that it has "lingered".
local time, store = require("time"), require("store")
return { main = function(dur, key)
  local function note(what) store.get("lua.support:fn.counts"):set(key .. "-" .. what, what) end
  note("begun")
  process.events():receive()
  time.sleep(dur)
  note("lingered")
  return "lingered"
end }
