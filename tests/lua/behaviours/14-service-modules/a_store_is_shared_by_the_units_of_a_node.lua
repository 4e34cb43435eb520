-- 14.6 What one unit sets in a store another one of the node gets.
-- nodes: one, because a store.memory is of one node
local store, funcs = require("store"), require("funcs")

return function()
  local s, key = assert(store.get("lua.support:services.memory")), check.unique("key")
  check.equal(funcs.call("lua.support:services.keep", "lua.support:services.memory", key, "there"), "there")
  check.equal(s:get(key), "there")
end
