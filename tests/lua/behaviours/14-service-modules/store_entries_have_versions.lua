-- 14.6 `entry(k)` → `{key, value, version}`; each write gives another version.
local store = require("store")

return function()
  for _, id in ipairs{ "lua.support:services.memory", "lua.support:services.kv" } do
    local s, key = assert(store.get(id)), check.unique("key")
    s:set(key, "a")
    local first = assert(s:entry(key))
    check.equal(first.key, key)
    check.equal(first.value, "a")
    check.equal(s:entry(key).version, first.version)
    s:set(key, "b")
    check.is_true(s:entry(key).version ~= first.version)
  end
end
