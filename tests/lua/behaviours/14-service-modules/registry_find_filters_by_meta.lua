-- 14.4 `meta.x` (equality; list value = all must be contained), `~meta.x` regex, `*meta.x` contains, `^meta.x` prefix,
-- `$meta.x` suffix.
local registry = require("registry")
local TEAPOT, TEACUP, LAMP = "lua.support:services.teapot", "lua.support:services.teacup", "lua.support:services.lamp"

local function ids(filter)
  local list = {}
  for i, entry in ipairs(registry.find(filter)) do list[i] = entry.id end
  return list
end

return function()
  check.equal(ids{ ["meta.shelf"] = "kitchen" }, { TEACUP, TEAPOT })
  check.equal(ids{ ["meta.weight"] = 3 }, { TEAPOT })
  check.equal(ids{ ["meta.tags"] = { "hot" } }, { LAMP, TEAPOT })
  check.equal(ids{ ["meta.tags"] = { "hot", "blue" } }, { TEAPOT })
  check.equal(ids{ ["~meta.note"] = "^s.*out$" }, { TEAPOT })
  check.equal(ids{ ["*meta.note"] = "with the" }, { TEACUP })
  check.equal(ids{ ["^meta.note"] = "goes" }, { TEACUP })
  check.equal(ids{ ["$meta.note"] = "stout" }, { TEAPOT })
  check.equal(ids{ ["meta.shelf"] = "kitchen", ["meta.weight"] = 1 }, { TEACUP })
  check.equal(ids{ ["meta.shelf"] = "attic" }, {})
end
