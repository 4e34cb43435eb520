-- 14.5 `env.get`: `""` → `Invalid`; absent: `NotFound`.
local env = require("env")

return function()
  check.fails(errors.INVALID, nil, env.get(""))
  check.fails(errors.NOT_FOUND, nil, env.get("LUA_SUITE_NO_SUCH"))
  check.fails(errors.NOT_FOUND, nil, env.get("lua.support:services.no_such"))
end
