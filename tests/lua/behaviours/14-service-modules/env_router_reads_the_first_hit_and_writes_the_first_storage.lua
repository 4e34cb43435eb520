-- 14.5 `env.storage.router`: `storages` list: read = first hit, write = first storage.
-- nodes: one, because the first write changes what it reads for good, and each node has variables of its own
local env = require("env")

return function()
  if env.get_all().LUA_SUITE_BOTH == "from static" then
    check.equal(env.get("LUA_SUITE_BOTH"), "from static")
  end
  check.is_true(env.set("LUA_SUITE_BOTH", "from memory"))
  check.equal(env.get("LUA_SUITE_BOTH"), "from memory")
end
