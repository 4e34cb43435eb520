-- 14.6 One more kind on a JetStream KV bucket with the same API: all nodes see the same keys.
local store, funcs = require("store"), require("funcs")

return function()
  local s, key = assert(store.get("lua.support:services.kv")), check.unique("key")
  s:set(key, { n = 1 })
  check.equal(funcs.call("lua.support:services.keep", "lua.support:services.kv", key), { n = 1 })
  check.equal(funcs.call("lua.support:services.keep", "lua.support:services.kv", key, "there"), "there")
  check.equal(s:get(key), "there")
end
