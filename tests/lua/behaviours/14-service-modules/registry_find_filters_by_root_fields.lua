-- 14.4 `find` keys `.kind .name .ns .id`, whose value may hold one `*`.
local registry = require("registry")

local function ids(filter)
  local list = {}
  for i, entry in ipairs(registry.find(filter)) do list[i] = entry.id end
  return list
end

return function()
  check.equal(ids{ [".id"] = "lua.support:services.teapot" }, { "lua.support:services.teapot" })
  check.equal(ids{ [".name"] = "services.tea*" }, { "lua.support:services.teacup", "lua.support:services.teapot" })
  check.equal(ids{ [".name"] = "*.teapot", [".ns"] = "lua.support" }, { "lua.support:services.teapot" })
  check.equal(ids{ [".name"] = "services.tea*", [".kind"] = "library.lua" }, {})
  check.equal(ids{ [".id"] = "lua.support:services.t*t" }, { "lua.support:services.teapot" })
  for _, entry in ipairs(registry.find{ [".ns"] = "lua.support", [".kind"] = "env.storage.*" }) do
    check.matches(entry.kind, "^env%.storage%.")
  end
  check.equal(registry.find{ [".ns"] = "nowhere" }, {})
end
