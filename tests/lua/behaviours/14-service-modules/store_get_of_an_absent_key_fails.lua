-- 14.6 `get(k)`: absent → `nil, NotFound`.
local store = require("store")

return function()
  for _, id in ipairs{ "lua.support:services.memory", "lua.support:services.kv" } do
    local s = assert(store.get(id))
    check.fails(errors.NOT_FOUND, nil, s:get(check.unique("key")))
    check.fails(errors.NOT_FOUND, nil, s:entry(check.unique("key")))
  end
end
