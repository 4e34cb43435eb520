-- 1.1 Loaded: every .yaml, .yml and .json file, recursively, whatever its name; several files may use one namespace.
local registry = require("registry")

return function()
  check.is_true(registry.get("lua.support:from_yml").data.found)
  check.is_true(registry.get("lua.support:from_json").data.found)
end
