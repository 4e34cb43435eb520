-- 10.1 The error of `funcs.async` itself is for malformed ids only.
local funcs = require("funcs")

return function()
  check.fails("Invalid", "^function ID required$", funcs.async(""))
  check.fails("Invalid", "^namespace required in function ID$", funcs.async("echo"))
  check.fails("Invalid", nil, funcs.async("lua.support:"))
end
