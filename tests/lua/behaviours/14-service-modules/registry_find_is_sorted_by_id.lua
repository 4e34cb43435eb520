-- 14.4 Results of `find` are sorted by ID.
local registry = require("registry")

return function()
  local last = ""
  for _, entry in ipairs(registry.find{}) do
    check.is_true(last < entry.id, entry.id)
    last = entry.id
  end
end
