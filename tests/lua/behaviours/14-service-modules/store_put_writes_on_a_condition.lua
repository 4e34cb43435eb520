-- 14.6 `put(k, v, {ttl, if_version, only_if_absent})`.
local store = require("store")

return function()
  for _, id in ipairs{ "lua.support:services.memory", "lua.support:services.kv" } do
    local s, key = assert(store.get(id)), check.unique("key")
    check.is_true((s:put(key, 1, { only_if_absent = true })) ~= nil)
    local refused, err = s:put(key, 2, { only_if_absent = true })
    check.is_nil(refused)
    check.error_is(err, errors.ALREADY_EXISTS)
    local version = s:entry(key).version
    check.is_true((s:put(key, 3, { if_version = version })) ~= nil)
    refused, err = s:put(key, 4, { if_version = version })
    check.is_nil(refused)
    check.error_is(err, errors.CONFLICT)
    check.equal(s:get(key), 3)
    check.is_true((s:put(key, 5)) ~= nil)
    check.equal(s:get(key), 5)
  end
end
