-- 14.6 `store.memory`: `max_size`: full → new keys refused.
local store = require("store")

return function()
  local s = assert(store.get("lua.support:services.small"))
  s:delete("a")
  s:delete("b")
  check.is_true(s:set("a", 1))
  check.is_true(s:set("b", 1))
  local ok, err = s:set("c", 1)
  check.is_nil(ok)
  check.type_is(err, "userdata")
  check.is_true(s:set("a", 2), "what is there can be written")
  check.is_true(s:delete("b"))
  check.is_true(s:set("c", 1))
  check.is_true(s:delete("c"))
end
