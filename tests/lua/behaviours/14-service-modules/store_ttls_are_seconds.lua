-- 14.6 Trap 17: `set(k, v[, ttl_seconds])`: a key with a time to live goes away after that many seconds.
local store, time = require("store"), require("time")

return function()
  local s, key = assert(store.get("lua.support:services.memory")), check.unique("key")
  check.is_true(s:set(key, 1, 0.03))
  check.is_true(s:set(key .. "2", 1, 20)) -- were it milliseconds, it would be gone below
  check.is_true((s:put(key .. "3", 1, { ttl = 0.03 })) ~= nil)
  time.sleep("40ms")
  check.fails(errors.NOT_FOUND, nil, s:get(key))
  check.fails(errors.NOT_FOUND, nil, s:get(key .. "3"))
  check.is_false(s:has(key))
  check.equal(s:get(key .. "2"), 1)
end
