-- 14.4 Snapshot: `entries() get(id) find(f) namespace(ns) version() changes()`.
local registry = require("registry")

return function()
  local snap = assert(registry.snapshot())
  check.equal(#snap:entries(), #registry.find{})
  check.equal(snap:get("lua.support:services.teapot"), registry.get("lua.support:services.teapot"))
  check.fails(errors.NOT_FOUND, nil, snap:get("lua.support:no_such"))
  check.equal(snap:find{ ["meta.shelf"] = "hall" }[1].id, "lua.support:services.lamp")
  for _, entry in ipairs(check.type_is(snap:namespace("lua.support"), "table")) do
    check.matches(entry.id, "^lua%.support:")
  end
  check.equal(snap:namespace("nowhere"), {})
  check.equal(snap:version():id(), registry.current_version():id())
  check.type_is(snap:changes(), "userdata")
end
