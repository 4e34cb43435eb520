-- 14.4 A snapshot stays as it was taken.
local registry = require("registry")

return function()
  local id = "lua.made:" .. check.unique("entry")
  local before = registry.snapshot()
  local changes = before:changes()
  changes:create{ id = id, kind = "registry.entry", data = { n = 1 } }
  local version = assert(changes:apply())
  check.fails(errors.NOT_FOUND, nil, before:get(id))
  check.equal(registry.snapshot_at(version):get(id).data, { n = 1 })
  check.fails(errors.NOT_FOUND, nil, registry.snapshot_at(version:previous()):get(id))
end
