-- 14.6 `has(k)`; `delete(k)` → bool.
local store = require("store")

return function()
  for _, id in ipairs{ "lua.support:services.memory", "lua.support:services.kv" } do
    local s, key = assert(store.get(id)), check.unique("key")
    check.is_false(s:has(key))
    check.is_false(s:delete(key))
    s:set(key, false)
    check.is_true(s:has(key))
    check.is_true(s:delete(key))
    check.is_false(s:has(key))
    check.fails(errors.NOT_FOUND, nil, s:get(key))
    check.is_true(s:set(key, 2))
    check.equal(s:get(key), 2)
  end
end
