-- 14.5 `env.set`: read only: `PermissionDenied`; unknown: `NotFound`; `""` → `Invalid`.
local env = require("env")

return function()
  check.fails(errors.PERMISSION_DENIED, nil, env.set("LUA_SUITE_STATIC", "x"))
  check.fails(errors.PERMISSION_DENIED, nil, env.set("LUA_SUITE_WEB_SERVER", "x"))
  check.fails(errors.PERMISSION_DENIED, nil, env.set("LUA_SUITE_READONLY", "x"))
  check.equal(env.get("LUA_SUITE_READONLY"), "stays")
  check.fails(errors.NOT_FOUND, nil, env.set("LUA_SUITE_NO_SUCH", "x"))
  check.fails(errors.INVALID, nil, env.set("", "x"))
end
