-- 1.1 Names may contain `.`, `-`, `_`, `/`.
local registry = require("registry")

return function()
  check.equal(registry.get("lua.support:na.me-with_all/kinds").data, { ok = true })
end
