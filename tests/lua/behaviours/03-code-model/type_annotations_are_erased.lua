-- 3.5 User files may carry type annotations; the loader erases them.
local funcs = require("funcs")

return function()
  check.equal(funcs.call("lua.support:typed", "total", { { sku = "a", amount = 2 }, { sku = "b", amount = 3 } }), 10)
  check.equal(funcs.call("lua.support:typed", "twice"), 4)
end
