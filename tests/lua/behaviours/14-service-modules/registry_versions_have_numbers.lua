-- 14.4 Version objects: `id() string() previous() next()`; `string()` like `v3`.
local registry = require("registry")

return function()
  local before = assert(registry.current_version())
  check.type_is(before:id(), "integer")
  check.equal(before:string(), "v" .. before:id())
  local changes = registry.snapshot():changes()
  changes:create{ id = "lua.made:" .. check.unique("entry"), kind = "registry.entry" }
  local after = assert(changes:apply())
  check.is_true(after:id() ~= before:id())
  check.equal(after:previous():id(), before:id())
  check.equal(before:next():id(), after:id())
  check.is_nil(after:next())
  check.equal(registry.current_version():id(), after:id())
end
