-- 14.5 `env.get(name)` → string. Names are public names or entry IDs.
local env = require("env")

return function()
  check.equal(env.get("LUA_SUITE_STATIC"), "fixed")
  check.equal(env.get("lua.support:services.var_static"), "fixed")
  check.equal(env.get("lua.support:only_by_id"), "by id")
end
