-- 14.6 `info()`.
local store = require("store")

return function()
  check.type_is(store.get("lua.support:services.memory"):info(), "table")
  check.type_is(store.get("lua.support:services.kv"):info(), "table")
end
