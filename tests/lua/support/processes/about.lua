-- Returns what it knows of itself: its id, PID, arguments, context, and whom a name stands for.
--   first argument   {name = whom this name stands for, if given}, or anything else
local ctx = require("ctx")

return { main = function(...)
  local first = ...
  local about = {
    id = process.id(), pid = process.pid(), count = select("#", ...), context = ctx.all(),
    options = process.get_options(),
  }
  for i = 1, about.count do about["arg" .. i] = (select(i, ...)) end
  if type(first) == "table" and first.name then about.named = process.registry.lookup(first.name) end
  return about
end }
