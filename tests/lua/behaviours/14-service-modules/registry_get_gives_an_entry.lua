-- 14.4 `registry.get(id)` → `{id, kind, meta, data}`.
local registry = require("registry")

return function()
  local entry = assert(registry.get("lua.support:services.teapot"))
  check.equal(entry, {
    id = "lua.support:services.teapot", kind = "registry.entry",
    meta = { shelf = "kitchen", tags = { "round", "blue", "hot" }, weight = 3, note = "short and stout" },
    data = { litres = 1.5, parts = { "handle", "spout" } },
  })
  check.equal(registry.get("lua.support:services.teacup").data, { litres = 0.2 })
  check.equal(registry.get("lua.support:check").kind, "library.lua")
end
