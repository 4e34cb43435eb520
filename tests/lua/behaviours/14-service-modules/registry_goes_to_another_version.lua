-- 14.4 `versions() history() snapshot_at(v) apply_version(v)`.
local registry = require("registry")

return function()
  local id = "lua.made:" .. check.unique("entry")
  local first = registry.current_version()
  local changes = registry.snapshot():changes()
  changes:create{ id = id, kind = "registry.entry" }
  local second = assert(changes:apply())

  check.is_true(registry.apply_version(first))
  check.equal(registry.current_version():id(), first:id())
  check.fails(errors.NOT_FOUND, nil, registry.get(id))
  check.is_true(registry.apply_version(second))
  check.equal(registry.get(id).id, id)

  local seen = {}
  for _, version in ipairs(registry.versions()) do seen[version:id()] = true end
  check.is_true(seen[first:id()] and seen[second:id()])
  local history = registry.history()
  check.equal(#history:versions(), #registry.versions())
  check.equal(history:get_version(second:id()):string(), second:string())
  check.equal(history:snapshot_at(second):get(id).id, id)
  check.fails(errors.NOT_FOUND, nil, registry.apply_version(1000000))
end
