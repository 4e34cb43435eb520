-- 1.1 A single-entry form exists too: name, kind … at top level, no `entries`.
local registry = require("registry")

return function()
  local entry = registry.get("lua.support:single")
  check.equal(entry.kind, "registry.entry")
  check.is_true(entry.data.found)
end
