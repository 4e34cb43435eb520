-- A process that can be called. By the first argument: "echo" gives the rest, "fail" fails with that specification,
-- "context" gives the context values, "sleep" sleeps until it is cancelled and notes that under a key.
local time, store, ctx = require("time"), require("store"), require("ctx")
return { main = function(what, ...)
  if what == "echo" then return { n = select("#", ...), ... } end
  if what == "fail" then return nil, errors.new((...)) end
  if what == "context" then return ctx.all() end
  local seen = store.get("lua.support:fn.counts")
  seen:set((...), "begun")
  local event = process.events():receive()
  seen:set((...), event.kind == process.event.CANCEL and "canceled" or event.kind)
  return "canceled"
end }
