-- 1.1 If the entry has a `data` key, that value is the data and the other fields are ignored.
local registry = require("registry")

return function()
  check.equal(registry.get("lua.support:with_data").data, { only = "this" })
end
