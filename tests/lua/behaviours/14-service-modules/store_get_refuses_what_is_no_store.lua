-- 14.6 `store.get(id)`: `NotFound`-like error if absent, `""` → `Invalid`.
local store = require("store")

return function()
  check.fails(errors.NOT_FOUND, nil, store.get("lua.support:no_such"))
  check.fails(errors.INVALID, nil, store.get(""))
  local s, err = store.get("lua.support:services.teapot")
  check.is_nil(s)
  check.type_is(err, "userdata")
end
