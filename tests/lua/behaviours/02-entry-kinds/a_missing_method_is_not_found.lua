-- 2.1 Without that method the start fails with NotFound, `method "x" not found in module`.
local funcs = require("funcs")

return function()
  check.fails("NotFound", 'method "missing" not found in module', funcs.call("lua.support:no_method"))
end
