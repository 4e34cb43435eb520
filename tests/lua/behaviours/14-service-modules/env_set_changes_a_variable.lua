-- 14.5 `env.set(name, value)` → `true`; `env.storage.memory` can be written.
local env = require("env")

return function()
  local value = check.unique("value")
  check.is_true(env.set("LUA_SUITE_MEMORY", value))
  check.equal(env.get("LUA_SUITE_MEMORY"), value)
  check.is_true(env.set("lua.support:services.var_memory", value .. "!"))
  check.equal(env.get("LUA_SUITE_MEMORY"), value .. "!")
end
