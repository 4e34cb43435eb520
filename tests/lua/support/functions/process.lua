-- A process that can be called. By the first argument: "echo" gives the rest, "fail" fails with that specification,
-- "context" gives the context values, "sleep" sleeps until it is cancelled and notes that under a key.
local store, ctx = require("store"), require("ctx")
return { main = function(what, ...)
  if what == "echo" then return { n = select("#", ...), ... } end
  if what == "fail" then return nil, errors.new((...)) end
  if what == "context" then return ctx.all() end
  local key = ...
  local function note(text) store.get("lua.support:fn.counts"):set(key .. "-" .. text, text) end
  note("begun")
  local event = process.events():receive()
  note(event.kind == process.event.CANCEL and "canceled" or event.kind)
  return "canceled"
end }
