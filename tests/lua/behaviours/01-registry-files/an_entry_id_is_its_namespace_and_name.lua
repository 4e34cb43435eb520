-- 1.1 Entry ID = `namespace:name`; every field except name, kind and meta is the entry's data.
local registry = require("registry")

return function()
  local entry, err = registry.get("lua.support:pure")
  check.is_nil(err)
  check.equal(entry.id, "lua.support:pure")
  check.equal(entry.kind, "registry.entry")
  check.equal(entry.data, { size = 3, tags = { "a", "b" } })
end
