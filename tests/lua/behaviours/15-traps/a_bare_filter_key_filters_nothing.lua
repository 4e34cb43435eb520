-- 15 Trap 16: a bare filter key in `registry.find` filters nothing; `{}` and `{kind="…"}` return everything.
local registry = require("registry")

return function()
  local all = registry.find{}
  check.is_true(#all > 10)
  check.equal(#registry.find{ kind = "registry.entry" }, #all)
  check.equal(#registry.find{ name = "no such", meta = "x" }, #all)
  check.is_true(#registry.find{ [".kind"] = "registry.entry", kind = "function.lua" } < #all)
end
