-- Views: tables that user code may hold although they belong to all units.
--
-- A view is empty itself; its metatable, which user code can neither read nor replace, finds the shared contents.
-- `pairs`, `next` and `rawget` look through it (order.lua, globals.lua). So what a unit writes stays in its own table.
-- Not responsible for: which views there are (environment.lua).

local K = ...

--- metatable -> the shared table behind it, for every view that user code may hold.
local shared_behind = {}
K.shared_behind = shared_behind

--- Make `mt` the metatable of views of `shared`.
function K.guard(mt, shared)
  mt.__metatable = false
  mt.__index = mt.__index or shared
  shared_behind[mt] = shared
  return mt
end
