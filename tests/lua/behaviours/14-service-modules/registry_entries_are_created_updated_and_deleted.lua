-- 14.4 Changes: `:create(entry) :update(entry) :delete(id) :ops() :apply()` → new version.
local registry = require("registry")

return function()
  local id = "lua.made:" .. check.unique("entry")
  local changes = registry.snapshot():changes()
  changes:create{ id = id, kind = "registry.entry", meta = { color = "red" }, data = { n = 1 } }
  check.equal(#changes:ops(), 1)
  check.fails(errors.NOT_FOUND, nil, registry.get(id))
  assert(changes:apply())
  check.equal(registry.get(id), { id = id, kind = "registry.entry", meta = { color = "red" }, data = { n = 1 } })
  check.equal(#registry.find{ [".id"] = id, ["meta.color"] = "red" }, 1)

  changes = registry.snapshot():changes()
  changes:update{ id = id, kind = "registry.entry", meta = { color = "blue" }, data = { n = 2 } }
  assert(changes:apply())
  check.equal(registry.get(id).data, { n = 2 })
  check.equal(registry.get(id).meta, { color = "blue" })

  changes = registry.snapshot():changes()
  changes:delete(id)
  assert(changes:apply())
  check.fails(errors.NOT_FOUND, nil, registry.get(id))
end
