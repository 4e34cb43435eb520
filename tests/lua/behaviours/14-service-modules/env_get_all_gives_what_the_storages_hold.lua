-- 14.5 `env.get_all()` → table of what the storages hold (no defaults).
local env = require("env")

return function()
  env.set("LUA_SUITE_MEMORY", "set")
  local all = env.get_all()
  check.equal(all.LUA_SUITE_STATIC, "fixed")
  check.equal(all.LUA_SUITE_MEMORY, "set")
  check.is_nil(all.LUA_SUITE_DEFAULT)
  check.is_nil(all.LUA_SUITE_READONLY)
end
