-- 14.4 `build_delta(a, b)`.
local registry = require("registry")

return function()
  local function entry(name, n) return { id = "lua.made:" .. name, kind = "registry.entry", meta = {}, data = { n = n } } end
  local ops = assert(registry.build_delta({ entry("a", 1), entry("b", 1), entry("c", 1) },
    { entry("a", 1), entry("b", 2), entry("d", 1) }))
  local seen = {}
  for _, op in ipairs(ops) do seen[op.entry.id] = op.kind end
  check.equal(seen, {
    ["lua.made:b"] = "entry.update", ["lua.made:c"] = "entry.delete", ["lua.made:d"] = "entry.create",
  })
  check.equal(registry.build_delta({ entry("a", 1) }, { entry("a", 1) }), {})
end
