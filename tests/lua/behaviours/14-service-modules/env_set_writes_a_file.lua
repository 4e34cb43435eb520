-- 14.5 `env.storage.file`: `file_path`, `auto_create`.
local env = require("env")

return function()
  local value = check.unique("it's # a \"value\" =")
  check.is_true(env.set("LUA_SUITE_FILE", value))
  check.equal(env.get("LUA_SUITE_FILE"), value)
  local ok, err = env.set("LUA_SUITE_NO_FILE", "x")
  check.is_nil(ok)
  check.type_is(err, "userdata")
  check.fails(errors.NOT_FOUND, nil, env.get("LUA_SUITE_NO_FILE"))
end
