-- 14.6 `release()` → true, any number of times. After release every call → `Invalid`. `tostring`: `store.Store{}` /
-- `store.Store{released}`.
local store = require("store")

return function()
  local s = assert(store.get("lua.support:services.memory"))
  check.equal(tostring(s), "store.Store{}")
  check.is_true(s:release())
  check.is_true(s:release())
  check.equal(tostring(s), "store.Store{released}")
  check.fails(errors.INVALID, nil, s:get("k"))
  check.fails(errors.INVALID, nil, s:set("k", 1))
  check.fails(errors.INVALID, nil, s:has("k"))
  check.fails(errors.INVALID, nil, s:delete("k"))
  check.fails(errors.INVALID, nil, s:entry("k"))
  check.fails(errors.INVALID, nil, s:put("k", 1, {}))
  check.fails(errors.INVALID, nil, s:list{})
  check.fails(errors.INVALID, nil, s:info())
  check.is_true(store.get("lua.support:services.memory"):set("k", 1), "others go on")
end
