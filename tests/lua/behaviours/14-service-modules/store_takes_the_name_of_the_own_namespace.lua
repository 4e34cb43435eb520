-- 1.1 A reference without `:` is resolved in the caller's own namespace.
local store, funcs = require("store"), require("funcs")

return function()
  check.equal(funcs.call("lua.support:services.keep", "services.memory", check.unique("key"), 7), 7)
  check.fails(errors.NOT_FOUND, nil, store.get("services.memory"))
end
