-- 14.5 `env.storage.os` reads the operating system's variables.
local env = require("env")

return function()
  check.matches(env.get("LUA_SUITE_WEB_SERVER"), "^http://127%.0%.0%.1:%d+$")
  check.equal(env.get_all().LUA_SUITE_WEB_SERVER, env.get("LUA_SUITE_WEB_SERVER"))
end
