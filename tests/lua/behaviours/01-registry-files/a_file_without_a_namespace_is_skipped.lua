-- 1.1 A file without `namespace` is skipped silently.
local registry = require("registry")

return function()
  for _, entry in ipairs(registry.snapshot():entries()) do
    check.is_true(entry.id:find("nameless", 1, true) == nil, entry.id)
  end
end
