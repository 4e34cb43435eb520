-- 14.5 `env.get`: empty value = absent; default used if set.
local env = require("env")

return function()
  check.fails(errors.NOT_FOUND, nil, env.get("LUA_SUITE_EMPTY"))
  check.equal(env.get("lua.support:services.var_empty_default"), "filled in")
  check.equal(env.get("LUA_SUITE_DEFAULT"), "as said")
end
