-- 14.4 Of changes that cannot all be made none is made.
local registry = require("registry")

return function()
  local id, version = "lua.made:" .. check.unique("entry"), registry.current_version():id()
  local changes = registry.snapshot():changes()
  changes:create{ id = id, kind = "registry.entry" }
  changes:delete("lua.made:no_such")
  local made, err = changes:apply()
  check.is_nil(made)
  check.error_is(err, errors.NOT_FOUND)
  check.fails(errors.NOT_FOUND, nil, registry.get(id))
  check.equal(registry.current_version():id(), version)

  changes = registry.snapshot():changes()
  changes:create{ id = "lua.support:services.teapot", kind = "registry.entry" }
  check.fails(errors.ALREADY_EXISTS, nil, changes:apply())
end
