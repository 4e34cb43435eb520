-- 1.2 The stored entry keeps the raw text, so `registry.get` shows the placeholder.
local registry = require("registry")

return function()
  check.equal(registry.get("lua.support:services.lamp").data.bulb, "${env:LUA_SUITE_STATIC}")
end
