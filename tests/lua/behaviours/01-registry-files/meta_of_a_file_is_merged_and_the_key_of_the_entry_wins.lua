-- 1.1 `meta` of the file is merged into every entry's meta; the entry's key wins.
local registry = require("registry")

return function()
  check.equal(registry.get("lua.support:pure").meta, { team = "core", color = "blue" })
  check.equal(registry.get("lua.support:with_data").meta, { team = "core", color = "red" })
end
