-- 14.4 `registry.get`: absent → `nil, NotFound`.
local registry = require("registry")

return function()
  check.fails(errors.NOT_FOUND, nil, registry.get("lua.support:no_such"))
  check.fails(errors.NOT_FOUND, nil, registry.get("nowhere:x"))
end
